"""``/healthz`` and ``/readyz``: is it alive, can it work."""

from http import HTTPStatus

from flask import Response, jsonify
from flask_openapi3 import APIBlueprint, Tag
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from service.api.context import Context, context
from service.settings import Settings
from service.store.workers import live_workers

blueprint = APIBlueprint("health", __name__, abp_tags=[Tag(name="health")])

_MISSED_HEARTBEATS = 3  # after which a worker no longer counts as live


class Liveness(BaseModel):
    """The process answers."""

    status: str


class Readiness(BaseModel):
    """Whether a job that is submitted now would run. workers: how many were heard of lately and take units."""

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
    """Database, broker and at least one live worker that takes units: one that only seems to live does not count."""
    here = context()
    workers = _consumers(here)
    broker = here.queue.waiting() is not None
    readiness = Readiness(
        ready=bool(workers) and broker, database=workers is not None, broker=broker, workers=workers or 0
    )
    response = jsonify(readiness.model_dump())
    response.status_code = HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE
    return response


def heard_within(settings: Settings) -> float:
    """Seconds within which a worker must have been heard of to count as live."""
    return _MISSED_HEARTBEATS * settings.heartbeat_seconds


def _consumers(here: Context) -> int | None:
    """Live workers that take units from the broker; none when the database is out of reach."""
    try:
        with here.database.reading() as session:
            return sum(worker.consuming for worker in live_workers(session, heard_within(here.settings)))
    except SQLAlchemyError:
        return None
