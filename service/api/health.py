"""``/healthz``, ``/readyz``, ``/metrics``: is it alive, can it work, how is it doing."""

from collections.abc import Iterator
from http import HTTPStatus

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from service.api.context import Context, context
from service.store.jobs import jobs_by_state
from service.store.units import units_by_state
from service.store.workers import live_workers

blueprint = APIBlueprint("health", __name__, abp_tags=[Tag(name="health")])

_MISSED_HEARTBEATS = 3  # after which a worker no longer counts as live


class Liveness(BaseModel):
    """The process answers."""

    status: str


class Readiness(BaseModel):
    """Whether a job that is submitted now would run. workers: how many were heard of lately."""

    ready: bool
    database: bool
    broker: bool
    workers: int


@blueprint.get("/healthz", summary="Is the API alive?", responses={200: Liveness})
def healthz() -> Response:
    """Needs no other server."""
    return jsonify(status="alive")


@blueprint.get("/readyz", summary="Would a job run now?", responses={200: Readiness, 503: Readiness})
def readyz() -> Response:
    """Database, broker and at least one live worker."""
    here = context()
    workers = _workers(here)
    broker = here.queue.waiting() is not None
    readiness = Readiness(
        ready=bool(workers) and broker, database=workers is not None, broker=broker, workers=workers or 0
    )
    response = jsonify(readiness.model_dump())
    response.status_code = HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return response


@blueprint.get(
    "/metrics",
    summary="Prometheus metrics",
    responses={
        200: {
            "description": "Prometheus text format",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
def metrics() -> Response:
    """Counted in the database, so they are the same from every API process."""
    registry = CollectorRegistry()
    registry.register(_StoreCollector(context()))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _workers(here: Context) -> int | None:
    """Live workers; none when the database is out of reach."""
    try:
        with here.database.reading() as session:
            return live_workers(session, _MISSED_HEARTBEATS * here.settings.heartbeat_seconds)
    except SQLAlchemyError:
        return None


class _StoreCollector(Collector):
    def __init__(self, here: Context) -> None:
        self._here = here

    def collect(self) -> Iterator[Metric]:
        with self._here.database.reading() as session:
            counted = {"jobs": jobs_by_state(session), "units": units_by_state(session)}
        for what, by_state in counted.items():
            gauge = GaugeMetricFamily(f"occluscope_{what}", f"{what.capitalize()} by state", labels=["state"])
            for state, count in by_state.items():
                gauge.add_metric([state], count)
            yield gauge
        yield GaugeMetricFamily("occluscope_workers", "Workers heard of lately", value=_workers(self._here) or 0)
