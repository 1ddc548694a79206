"""``/healthz`` and ``/readyz``: is it alive, can it work."""

from http import HTTPStatus

from flask import Response
from flask_openapi3 import APIBlueprint, Tag
from sqlalchemy.exc import SQLAlchemyError

from occluscope import wire
from service.api.context import Context, context
from service.api.views import answer
from service.settings import Settings
from service.store.workers import live_workers

blueprint = APIBlueprint("health", __name__, abp_tags=[Tag(name="health")])

_MISSED_HEARTBEATS = 3  # without a heartbeat, after which a worker no longer counts as live


@blueprint.get("/healthz", summary="Is the API alive?", responses={200: wire.Liveness})
def healthz() -> Response:
    """Needs no other server."""
    return answer(wire.Liveness(status="alive"))


@blueprint.get("/readyz", summary="Would a job run now?", responses={200: wire.Readiness, 503: wire.Readiness})
def readyz() -> Response:
    """Database, broker and at least one live worker that takes units from the broker."""
    here = context()
    workers = _consumers(here)
    broker = here.queue.waiting() is not None
    readiness = wire.Readiness(
        ready=bool(workers) and broker, database=workers is not None, broker=broker, workers=workers or 0
    )
    return answer(readiness, HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE)


def heard_within(settings: Settings) -> float:
    """Seconds within which a worker must have sent a heartbeat to count as live."""
    return _MISSED_HEARTBEATS * settings.heartbeat_seconds


def _consumers(here: Context) -> int | None:
    """Live workers that take units from the broker; None if the database is unreachable."""
    try:
        with here.database.reading() as session:
            return sum(worker.consuming for worker in live_workers(session, heard_within(here.settings)))
    except SQLAlchemyError:
        return None
