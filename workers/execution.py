"""Running units one after the other: each is claimed, computed and ended, and the units that follow are announced."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import structlog
from sqlalchemy.exc import SQLAlchemyError

from occluscope.engine.memory import is_out_of_memory
from occluscope.errors import OccluscopeError, UnitAbortedError
from service.queue import Queue
from service.settings import Settings
from service.store.database import Database
from service.store.leases import Claim, claim_unit, end_lease
from service.store.packing import UnpackableError
from service.store.scheduling import due_unit
from service.store.states import INSPECT
from service.store.units import fail_queued_unit
from workers.activity import Activity
from workers.computing import computed
from workers.endings import Ending, Failed, Inspected, Succeeded, ending_after
from workers.heartbeat import Heartbeat
from workers.inspection import inspected_card
from workers.memory import end_in_order, is_within, memory_bound
from workers.model_cache import ModelCache
from workers.patience import Written, write_patiently
from workers.reporting import UnitReport

_log = structlog.get_logger(__name__)


class Executor:
    """Runs units, one at a time, for one worker process. end: asks that process to end, to be restarted."""

    def __init__(
        self,
        config: Settings,
        database: Database,
        queue: Queue,
        worker_id: str,
        heartbeat: Heartbeat,
        activity: Activity,
        *,
        end: Callable[[], None] = end_in_order,
    ) -> None:
        self._end = end
        self._queue = queue
        self._config = config
        self._database = database
        self._worker_id = worker_id
        self._heartbeat = heartbeat
        self._activity = activity
        self._models = ModelCache(config.model_cache_bytes)
        self.memory_bound = config.worker_memory_bytes or memory_bound(self._models.limit_bytes)
        self.stopping = threading.Event()  # set when the worker was asked to end

    def run(self) -> None:
        """Run the unit that is due, if there is one: another worker may have taken it."""
        with self._activity.working():
            try:
                claim = self._claim()
            except SQLAlchemyError as error:  # the unit stays queued, and the reconciler announces it again
                _log.warning("no unit claimed, database out of reach", error=str(error))
                return
            except Exception:  # noqa: BLE001 - as above; a worker goes on with the next message
                _log.exception("no unit claimed")
                return
            if claim is None:
                return
            with structlog.contextvars.bound_contextvars(job=claim.job_id, unit=claim.unit_id):
                self._run_claimed(claim)
        self._keep_to_memory()

    def _claim(self) -> Claim | None:
        if self.stopping.is_set():
            return None
        unit_id = None
        try:
            with self._database.writing() as session:
                unit_id = due_unit(session, self._models.names)
                if unit_id is None:
                    return None
                return claim_unit(session, unit_id, self._worker_id, self._config.lease_seconds)
        except SQLAlchemyError:
            raise
        except Exception as error:
            if unit_id is None:
                raise
            self._fail_unreadable(unit_id, error)
            return None

    def _fail_unreadable(self, unit_id: str, error: Exception) -> None:
        """Fail a unit whose row, or whose job's row, cannot be read: otherwise it would stay the first in the queue."""
        _log.exception("unit cannot be read", unit=unit_id)
        kind = type(error).__name__
        reason = f"what is stored of it cannot be read ({kind}); the worker's log has unit {unit_id}"
        with self._database.writing() as session:
            fail_queued_unit(session, unit_id, reason)

    def _run_claimed(self, claim: Claim) -> None:
        start = time.perf_counter()
        _log.info("unit claimed", analysis=claim.analysis, model=claim.model, stage=claim.stage, fence=claim.fence)
        try:
            with self._heartbeat.holding(claim) as lost:
                report = UnitReport(
                    self._database, self._config, claim, self._activity, lost=lost, stopping=self.stopping
                )
                ending, written = self._written(self._computed(claim, report), claim, report)
        except Exception:  # noqa: BLE001 - not even a failure could be written; nobody need wait for the lease
            _log.exception("unit's end could not be written")
            self._let_go(claim)
            return
        seconds = round(time.perf_counter() - start, 3)
        _log.info(ending.name if written.held else "unit was not ours any more", seconds=seconds)
        self._announce(written.units_made)

    def _computed(self, claim: Claim, report: UnitReport) -> Ending:
        """Compute the unit; return its ending."""
        try:
            if claim.stage == INSPECT:
                return Inspected(inspected_card(claim, self._database))
            report.forget_earlier()
            outcome = computed(claim, report, self._database, self._models)
            return Succeeded(report.given.rest(outcome), report.given.stored)
        except BaseException as raised:  # noqa: BLE001 - whatever a model raises (SystemExit), its job must end with a reason
            error = report.given.refusal or raised  # what is raised after a refusal may come of it
            ending = ending_after(error, claim, self._config.max_attempts, stopping=self.stopping.is_set())
            _note(error, ending)
            if isinstance(ending, Failed) and is_out_of_memory(error):
                with suppress(Exception):  # a device that failed may refuse even this
                    self._models.clear()
            return ending

    def _written(self, ending: Ending, claim: Claim, report: UnitReport) -> tuple[Ending, Written]:
        """Write the unit's ending while the claim is valid; return the ending that was written."""

        def write(ending: Ending) -> Written:
            return write_patiently(self._database, partial(ending.write, claim=claim), report.is_unwanted_after)

        try:
            return ending, write(ending)
        except UnpackableError as error:
            ending = Failed(str(error))
            return ending, write(ending)
        except Exception:  # noqa: BLE001 - whatever it is, the unit ends
            _log.exception("results could not be stored")
            ending = Failed("its results could not be stored")
            return ending, write(ending)

    def _let_go(self, claim: Claim) -> None:
        """End the lease now, so that the reconciler frees the unit, or fails it after its last attempt."""
        try:
            with self._database.writing() as session:
                end_lease(session, claim)
        except Exception:  # noqa: BLE001 - the last resort of all
            _log.exception("lease not ended; it runs out")

    def _announce(self, units: int) -> None:
        """Announce the units that the ended one made possible; if that fails, the reconciler announces them."""
        try:
            self._queue.announce(units)
        except Exception as error:  # noqa: BLE001 - the unit has ended, whatever the broker says
            _log.warning("nothing announced", error=str(error))

    def _keep_to_memory(self) -> None:
        """Free memory if there is too much of it; if that is not enough, end this process to be replaced."""
        try:
            self._models.settle()
            if is_within(self.memory_bound):
                return
            self._models.clear()
            if not is_within(self.memory_bound):
                _log.warning(
                    "worker ends, to be restarted: its memory is over its bound", bound_bytes=self.memory_bound
                )
                self._end()
        except Exception:  # noqa: BLE001 - the unit is written; the next may go better
            _log.exception("memory not looked after")


def _note(error: BaseException, ending: Ending) -> None:
    """Log why a unit was not done, with the traceback unless the error has a message for the user."""
    if isinstance(ending, Failed):
        _log.warning("unit fails", error=ending.reason, exc_info=not isinstance(error, OccluscopeError))
    elif not isinstance(error, UnitAbortedError):
        _log.warning("unit not done", error=str(getattr(error, "orig", error)))
