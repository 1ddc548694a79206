"""The reconciler: publishes what the broker lost or was never told, and frees what dead workers left."""

import threading
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.queue import Queue
from service.settings import Settings
from service.store.database import Database
from service.store.units import free_expired_units, queued_units
from service.store.workers import forget_silent_workers

_BATCH: Final = 1000  # units published in one round
_SILENT_ROUNDS: Final = 20  # heartbeats after which a worker's row is dropped

_log = structlog.get_logger(__name__)


def reconcile_once(database: Database, queue: Queue, config: Settings) -> int:
    """One round; returns how many units were published.

    Safe to run any number of times at once: a unit published twice is claimed once. Queued units are
    published again only when the broker's queue is empty, so that a long queue is not doubled.
    """
    with database.writing() as session:
        unpublished = free_expired_units(session, config.max_attempts)
        forget_silent_workers(session, _SILENT_ROUNDS * config.heartbeat_seconds)
    if unpublished:
        _log.info("leases ran out", units=len(unpublished))
    if queue.waiting() == 0:
        with database.reading() as session:
            unpublished = queued_units(session, _BATCH)
    published = 0
    for unit_id in unpublished:
        if not queue.publish_unit(unit_id):
            break
        published += 1
    return published


def reconcile_forever(database: Database, queue: Queue, config: Settings, stop: threading.Event) -> None:
    """Round after round until `stop` is set; an unreachable server is waited out."""
    while not stop.wait(config.reconcile_seconds):
        try:
            reconcile_once(database, queue, config)
        except SQLAlchemyError as error:
            _log.warning("database out of reach", error=str(error))
