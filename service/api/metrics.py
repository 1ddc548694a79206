"""``/metrics``: how the service is doing, for Prometheus.

Queue, units, jobs and workers are counted in the database, so they are the same from every API process; requests are
counted by the process that answers.
"""

from collections.abc import Iterator
from typing import Final

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.orm import Session

from service.api import requests
from service.api.context import Context, context
from service.api.health import heard_within
from service.store.deliveries import deliveries_by_state
from service.store.jobs import jobs_by_state
from service.store.scheduling import waiting_by_priority
from service.store.states import ENDED_JOB
from service.store.tallies import Counted, all_tallies
from service.store.units import units_by_state
from service.store.workers import live_workers

blueprint = APIBlueprint("metrics", __name__, abp_tags=[Tag(name="health")])

_COUNTERS: Final = {  # what is tallied: its help
    "unit_attempts": "Claims of units by workers",
    "unit_failures": "Units that ended with an error",
    "steps": "Steps that units of work have ended with; of occlusion, windows",
}


@blueprint.get(
    "/metrics",
    summary="Prometheus metrics",
    responses={
        200: {"description": "Prometheus text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
def metrics() -> Response:
    """In Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_StoreCollector(context()))
    content = generate_latest(registry) + generate_latest(requests.registry)
    return Response(content, content_type=CONTENT_TYPE_LATEST)


class _StoreCollector(Collector):
    def __init__(self, here: Context) -> None:
        self._here = here

    def collect(self) -> Iterator[Metric]:
        with self._here.database.reading() as session:
            yield from _states(session)
            yield from _queue(session)
            yield from _deliveries(session)
            yield from _workers(session, heard_within(self._here.settings))
            yield from _tallied(all_tallies(session))


def _states(session: Session) -> Iterator[Metric]:
    for what, by_state in (("jobs", jobs_by_state(session)), ("units", units_by_state(session))):
        gauge = GaugeMetricFamily(f"occluscope_{what}", f"{what.capitalize()} stored, by state", labels=["state"])
        for state, count in by_state.items():
            gauge.add_metric([state], count)
        yield gauge


def _deliveries(session: Session) -> Iterator[Metric]:
    gauge = GaugeMetricFamily("occluscope_deliveries", "Webhooks' deliveries, by state", labels=["state"])
    for state, count in deliveries_by_state(session).items():
        gauge.add_metric([state], count)
    yield gauge


def _queue(session: Session) -> Iterator[Metric]:
    depth = GaugeMetricFamily("occluscope_queue_units", "Units that wait for a worker", labels=["priority"])
    age = GaugeMetricFamily(
        "occluscope_queue_oldest_seconds", "Since the unit that waits longest was queued", labels=["priority"]
    )
    for priority, waiting in waiting_by_priority(session).items():
        depth.add_metric([priority.label], waiting.units)
        age.add_metric([priority.label], waiting.oldest_seconds)
    yield depth
    yield age


def _workers(session: Session, within_seconds: float) -> Iterator[Metric]:
    alive = live_workers(session, within_seconds)
    consuming = sum(worker.consuming for worker in alive)
    yield GaugeMetricFamily("occluscope_workers", "Workers heard of lately that take units", value=consuming)
    memory = GaugeMetricFamily("occluscope_worker_memory_bytes", "Memory of a worker's process", labels=["worker"])
    gpu = GaugeMetricFamily(
        "occluscope_worker_gpu_memory_bytes", "Memory that a worker holds on its GPU", labels=["worker", "device"]
    )
    for worker in alive:
        memory.add_metric([worker.id], worker.memory_bytes)
        if worker.gpu_memory_bytes is not None:
            gpu.add_metric([worker.id, worker.device], worker.gpu_memory_bytes)
    yield memory
    yield gpu


def _tallied(tallies: dict[tuple[str, str, str], Counted]) -> Iterator[Metric]:
    labels = ["analysis", "model"]
    for name, description in _COUNTERS.items():
        counter = CounterMetricFamily(f"occluscope_{name}", description, labels=labels)
        for (tallied, analysis, model), counted in tallies.items():
            if tallied == name:
                counter.add_metric([analysis, model], counted.count)
        yield counter
    seconds = SummaryMetricFamily(
        "occluscope_unit_seconds", "From a unit's claim to its commit, of units that succeeded", labels=labels
    )
    for (tallied, analysis, model), counted in tallies.items():
        if tallied == "unit_seconds":
            seconds.add_metric([analysis, model], counted.count, counted.total)
    yield seconds
    ended = SummaryMetricFamily(
        "occluscope_job_seconds", "From a job's submission to its end", labels=["analysis", "state"]
    )
    for state in sorted(ENDED_JOB):
        for (tallied, analysis, _), counted in tallies.items():
            if tallied == f"jobs_{state}":
                ended.add_metric([analysis, state], counted.count, counted.total)
    yield ended
    recovered = tallies.get(("recoveries", "", ""), Counted()).count
    yield CounterMetricFamily("occluscope_recoveries", "Units freed after their lease had run out", value=recovered)
