"""The reconciler: frees units of dead workers, announces units that wait unannounced, deletes old jobs."""

import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.queue import MOST_MESSAGES, Queue
from service.settings import Settings
from service.store.database import Database, clock
from service.store.given import forget_of_ended
from service.store.leases import Freed, free_expired_units, next_expiry
from service.store.scheduling import count_waiting
from service.store.workers import forget_silent_workers
from service.upkeep.retention import delete_what_is_over

_SILENT_HEARTBEATS: Final = 20  # without a heartbeat, after which a worker's row is deleted
_RETENTION_SECONDS: Final = 60.0  # between two deletions of old jobs
_SHORTEST_WAIT_SECONDS: Final = 0.1
_PORTIONS: Final = 20  # of hidden results that are deleted in one round

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Round:
    """What one round did.

    announced: messages sent. patient: expired leases were not acted on this time. unfinished: hidden results may be
    left to be deleted.
    """

    freed: list[Freed]
    announced: int
    patient: bool = False
    unfinished: bool = False


class Reconciler:
    """Works in rounds. Any number of reconcilers may run at once."""

    def __init__(self, database: Database, queue: Queue, config: Settings) -> None:
        self._database = database
        self._queue = queue
        self._config = config
        self._watch = _Watch(config)
        self._retention_due = 0.0

    def run(self, stop: threading.Event) -> None:
        """Run until `stop` is set; while the database or the broker is unreachable, wait and retry."""
        wait_seconds = 0.0
        while not stop.wait(wait_seconds):
            wait_seconds = self._config.reconcile_seconds
            try:
                ended = self.round()
                wait_seconds = _SHORTEST_WAIT_SECONDS if ended.unfinished else self._until_next()
            except SQLAlchemyError as error:
                _log.warning("database out of reach", error=str(error))
            except Exception:  # noqa: BLE001 - whatever it is, leases go on being freed
                _log.exception("round not ended")

    def round(self) -> Round:
        """Free units whose lease has expired, and make sure that every waiting unit has a message."""
        freed, patient = self.free()
        announced = self._announce()
        if time.monotonic() >= self._retention_due:
            delete_what_is_over(self._database, self._config)
            self._retention_due = time.monotonic() + _RETENTION_SECONDS
        return Round(freed, announced, patient, self._forget())

    def free(self) -> tuple[list[Freed], bool]:
        """Free units whose lease has expired. Return them, and whether expired leases were not acted on this time."""
        config = self._config
        with self._database.writing() as session:
            patient = self._watch.missed_something(clock(session))
            freed = [] if patient else free_expired_units(session, config.max_attempts, config.lease_seconds)
            forget_silent_workers(session, _SILENT_HEARTBEATS * config.heartbeat_seconds)
        for unit in freed:
            _log.warning(
                "lease ran out", job=unit.job_id, unit=unit.unit_id, attempts=unit.attempts, failed=unit.failed
            )
        return freed, patient

    def _forget(self) -> bool:
        """Delete what units gave that have failed or were cancelled, in portions; whether some may be left."""
        for _ in range(_PORTIONS):
            with self._database.writing() as session:
                if not forget_of_ended(session):
                    return False
        return True

    def _announce(self) -> int:
        """Send the messages that are missing: the broker lost them, or was unreachable when they were to be sent."""
        messages = self._queue.waiting()
        if messages is None or messages >= MOST_MESSAGES:
            return 0
        with self._database.reading() as session:
            missing = max(count_waiting(session, MOST_MESSAGES) - messages, 0)
        announced = self._queue.announce(missing)
        if announced:
            _log.info("announced", units=announced)
        return announced

    def _until_next(self) -> float:
        """Seconds until the next round: at most until the next lease can expire."""
        with self._database.reading() as session:
            expiry = next_expiry(session)
        usual = self._config.reconcile_seconds
        return usual if expiry is None else min(usual, max(expiry, _SHORTEST_WAIT_SECONDS))


class _Watch:
    """Notices time during which no lease could be renewed, or by which the clock alone was moved.

    After the clock was set, the database was unreachable, or this process was suspended, a lease may look expired
    although its worker is alive. The worker then gets the time of two heartbeats to renew it.
    """

    def __init__(self, config: Settings) -> None:
        self._heartbeat = config.heartbeat_seconds
        self._longest_pause = config.reconcile_seconds + config.heartbeat_seconds
        self._last: tuple[datetime, float] | None = None
        self._patient_until = 0.0

    def missed_something(self, moment: datetime) -> bool:
        """Whether it is unsafe to act on expired leases now. moment: the time of the database's clock."""
        steady = time.monotonic()
        if self._last:
            passed = steady - self._last[1]
            jumped = abs((moment - self._last[0]).total_seconds() - passed)
            if jumped > self._heartbeat or passed > self._longest_pause:
                _log.warning("time was missed", clock_jumped_seconds=round(jumped, 1), paused_seconds=round(passed, 1))
                self._patient_until = steady + 2 * self._heartbeat
        self._last = (moment, steady)
        return steady < self._patient_until
