"""The heartbeat: says from a thread of its own that the worker lives, and renews the lease of its unit."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from sqlalchemy.exc import SQLAlchemyError

from service.settings import Settings
from service.store.database import Database
from service.store.units import Claim, renew_lease
from service.store.workers import forget_worker, note_worker

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Beats every `heartbeat_seconds` until stopped, however long a unit's computation takes."""

    def __init__(self, database: Database, config: Settings, worker_id: str, device: str) -> None:
        self._database = database
        self._config = config
        self._worker_id = worker_id
        self._device = device
        self._held: tuple[Claim, threading.Event] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Say that the worker is there, and go on saying so."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """Stop, and take the worker off the list."""
        self._stop.set()
        self._thread.join()
        try:
            with self._database.writing() as session:
                forget_worker(session, self._worker_id)
        except SQLAlchemyError as error:
            _log.warning("could not sign off", error=str(error))

    @contextmanager
    def holding(self, claim: Claim) -> Iterator[threading.Event]:
        """Renew this claim's lease meanwhile; the event given is set once the claim is lost."""
        lost = threading.Event()
        self._held = (claim, lost)
        try:
            yield lost
        finally:
            self._held = None

    def _run(self) -> None:
        while not self._stop.wait(self._config.heartbeat_seconds):
            self._beat()

    def _beat(self) -> None:
        held = self._held
        try:
            with self._database.writing() as session:
                note_worker(session, self._worker_id, self._device)
                if held and not renew_lease(session, held[0], self._config.lease_seconds):
                    held[1].set()
        except SQLAlchemyError as error:
            _log.warning("no heartbeat", error=str(error))
