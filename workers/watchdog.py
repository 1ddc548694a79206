"""The watchdog: ends a worker that looks alive but does no work, so that its supervisor starts another.

A Celery worker may silently stop receiving messages after its connection was cut, and a computation may hang. Both
look alive from outside: the process runs, and its heartbeat goes on.
"""

import os
import threading
from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.queue import Queue
from service.settings import Settings
from service.store.database import Database
from service.store.scheduling import waiting_by_priority
from workers.activity import Activity

EXIT_STATUS: Final = 70  # EX_SOFTWARE of sysexits.h

_log = structlog.get_logger(__name__)


def end_process() -> None:
    """End the process at once: what blocks the worker would block an orderly end, too."""
    os._exit(EXIT_STATUS)


class Watchdog:
    """A thread that checks the worker at every heartbeat. end: called if the worker does no work."""

    def __init__(
        self,
        database: Database,
        queue: Queue,
        config: Settings,
        activity: Activity,
        end: Callable[[], None] = end_process,
    ) -> None:
        self._database = database
        self._queue = queue
        self._config = config
        self._activity = activity
        self._end = end
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start checking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop checking: the worker ends by itself."""
        self._stop.set()

    def reason(self) -> str | None:
        """Why this worker should end; None while it works."""
        still = self._activity.still_seconds
        if self._activity.is_busy:
            return f"its unit made no progress for {still:.0f} s" if still > self._config.stall_seconds else None
        if (
            still <= self._config.watchdog_seconds or self._queue.waiting() is None
        ):  # without a broker no worker receives messages
            return None
        with self._database.reading() as session:
            oldest = max(waiting.oldest_seconds for waiting in waiting_by_priority(session).values())
        if oldest <= self._config.watchdog_seconds or self._activity.is_busy:
            return None
        return f"a unit waits for {oldest:.0f} s, and no message came for {still:.0f} s"

    def _run(self) -> None:
        while not self._stop.wait(self._config.heartbeat_seconds):
            try:
                reason = self.reason()
            except SQLAlchemyError:
                continue  # the heartbeat logs that already
            except Exception:  # noqa: BLE001 - whatever it is, a worker without its watchdog would be left to hang
                _log.exception("watchdog could not look")
                continue
            if reason and not self._stop.is_set():
                _log.error("watchdog ends the worker", reason=reason)
                self._end()
