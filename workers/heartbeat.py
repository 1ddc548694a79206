"""The heartbeat: a thread that reports that the worker is alive, and renews the lease of its unit."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import torch
from sqlalchemy.exc import SQLAlchemyError

from service.settings import Settings
from service.store.database import Database
from service.store.leases import Claim, give_back_unit, renew_lease
from service.store.workers import Pulse, forget_worker, note_worker
from workers.consumption import consuming
from workers.memory import resident_bytes

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Reports every `heartbeat_seconds` until stopped, however long a unit takes."""

    def __init__(self, database: Database, config: Settings, worker_id: str, device: str) -> None:
        self._database = database
        self._config = config
        self._worker_id = worker_id
        self._device = device
        self._held: tuple[Claim, threading.Event] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start to report that the worker is alive."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """Stop, and remove the worker's row."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            with self._database.writing() as session:
                forget_worker(session, self._worker_id)
        except SQLAlchemyError as error:
            _log.warning("could not sign off", error=str(error))
        except Exception:  # noqa: BLE001 - the worker ends all the same
            _log.exception("could not sign off")

    @contextmanager
    def holding(self, claim: Claim) -> Iterator[threading.Event]:
        """Renew this claim's lease in the block; the yielded event is set once the claim is lost."""
        lost = threading.Event()
        self._held = (claim, lost)
        try:
            yield lost
        finally:
            self._held = None

    def give_back(self) -> None:
        """Give back the current unit, if there is one, because its computation does not end in time."""
        if held := self._held:
            held[1].set()
            with self._database.writing() as session:
                given_back = give_back_unit(session, held[0])
            _log.info(
                "unit given back" if given_back else "unit was taken away", job=held[0].job_id, unit=held[0].unit_id
            )

    def _run(self) -> None:
        while not self._stop.wait(self._config.heartbeat_seconds):
            held = self._held
            ids = {"job": held[0].job_id, "unit": held[0].unit_id} if held else {}
            with structlog.contextvars.bound_contextvars(worker=self._worker_id, **ids):
                self._beat()

    def _beat(self) -> None:
        """Report once. It never raises: without this thread the worker would lose every unit."""
        held = self._held
        try:
            pulse = self._pulse()
            with self._database.writing() as session:
                note_worker(session, pulse)
                if held and not renew_lease(session, held[0], self._config.lease_seconds):
                    held[1].set()
        except SQLAlchemyError as error:
            _log.warning("no heartbeat", error=str(error))
        except Exception:  # noqa: BLE001 - the next one may be written
            _log.exception("no heartbeat")

    def _pulse(self) -> Pulse:
        """What this worker reports. What cannot be measured is left out, and the lease is renewed all the same."""
        memory, gpu_memory = 0, None
        try:
            memory = resident_bytes()
            gpu_memory = torch.cuda.memory_reserved() if torch.cuda.is_available() else None
        except Exception as error:  # noqa: BLE001 - /proc cannot be read, or the device has failed
            _log.warning("memory not measured", error=str(error))
        return Pulse(self._worker_id, self._device, consuming.is_set(), memory, gpu_memory)
