"""One unit from its claim to its commit."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import structlog
import torch
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from occluscope import analyses, pictures
from occluscope.analyses.contract import FIRST, Work
from occluscope.engine.memory import is_out_of_memory
from occluscope.errors import OccluscopeError, UnitAbortedError
from occluscope.models import card
from occluscope.preparation import Picture
from occluscope.results import NamedResult
from service.queue import Queue
from service.settings import Settings
from service.store.comparing import compare_models
from service.store.database import Database, is_outage
from service.store.images import image_content
from service.store.kept import kept_before
from service.store.leases import Claim, claim_unit, end_lease, give_back_unit
from service.store.packing import PackedOutcome, PackedResult, pack_outcome, pack_results
from service.store.planning import units_made
from service.store.scheduling import due_unit
from service.store.states import COMPARE
from service.store.units import commit_unit, fail_queued_unit, fail_unit, report_progress
from workers.activity import Activity
from workers.heartbeat import Heartbeat
from workers.memory import end_in_order, is_within, memory_bound
from workers.model_cache import ModelCache

Preview = Callable[[], list[NamedResult]]
Write = Callable[[Session], bool]
_FIRST_PAUSE_SECONDS: Final = 0.1  # between two attempts to write how a unit ended
_LONGEST_PAUSE_SECONDS: Final = 2.0
_LONGEST_REASON: Final = 2000  # characters
# Under one unit; after so many its own data may be what brings the database down, and it uses up attempts.
_MOST_OUTAGES: Final = 20
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
        self._made = 0  # units that the one at work made possible, and nobody was told of yet
        self.stopping = threading.Event()  # set when the worker was asked to end

    def run(self) -> None:
        """Take the unit that is due and do it; where none is, other workers were sooner, and nothing changes."""
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

    def _keep_to_memory(self) -> None:
        """Give memory back where there is too much of it; where that does not do, ask for another process."""
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
        """End a unit whose row, or its job's, holds what cannot be read: it would stay the first in the queue."""
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
                event, written = self._ended(claim, lost)
        except Exception:  # noqa: BLE001 - not even a failure could be written; nobody need wait for the lease
            _log.exception("unit's end could not be written")
            self._let_go(claim)
            return
        seconds = round(time.perf_counter() - start, 3)
        _log.info(event if written else "unit was not ours any more", seconds=seconds)
        self._announce_following()

    def _ended(self, claim: Claim, lost: threading.Event) -> tuple[str, bool]:
        """Compute the unit and write how it ended; gives what happened, and whether it was still ours to write."""
        event, write = self._attempt(claim, lost)
        try:
            return event, self._write(write, lost)
        except Exception:  # noqa: BLE001 - whatever it is, the unit ends
            _log.exception("results could not be stored")
            return "unit failed", self._write(_failing(claim, "its results could not be stored"), lost)

    def _let_go(self, claim: Claim) -> None:
        """End the lease now, so that the reconciler frees the unit, or fails it as one that was attempted too often."""
        try:
            with self._database.writing() as session:
                end_lease(session, claim)
        except Exception:  # noqa: BLE001 - the last resort of all
            _log.exception("lease not ended; it runs out")

    def _attempt(self, claim: Claim, lost: threading.Event) -> tuple[str, Write]:
        """Compute the unit; gives what happened and how it is to be written."""
        report = _Reporter(self._database, self._config, claim, lost, self.stopping, self._activity)
        try:
            outcome = self._compute(claim, report)
        except UnitAbortedError:
            return "unit given back", lambda session: give_back_unit(session, claim)
        except (OperationalError, InterfaceError) as error:
            return self._interrupted(claim, error)
        except OccluscopeError as error:
            reason = str(error)
        except BaseException as error:  # noqa: BLE001 - whatever a model raises (SystemExit), its job must end with a reason
            if self.stopping.is_set() and not isinstance(error, Exception):  # it was not the model
                return "unit given back", lambda session: give_back_unit(session, claim)
            reason = self._reason(claim, error)
        else:
            return "unit succeeded", lambda session: commit_unit(session, claim, outcome)
        _log.warning("unit fails", error=reason)
        return "unit failed", _failing(claim, reason)

    def _interrupted(self, claim: Claim, error: OperationalError | InterfaceError) -> tuple[str, Write]:
        """The database failed under the unit. Where it was away, that is no fault of the unit's, within reason."""
        _log.warning("database failed under the unit", error=str(error.orig))
        if is_outage(error) and claim.outages < _MOST_OUTAGES:
            return "unit given back", lambda session: give_back_unit(session, claim, outage=True)
        if claim.attempts < self._config.max_attempts:
            return "unit given back", lambda session: give_back_unit(session, claim, failed_attempt=True)
        kind = type(error.orig).__name__
        reason = (
            f"the database failed {claim.attempts} times under it ({kind}); the worker's log has unit {claim.unit_id}"
        )
        return "unit failed", _failing(claim, reason)

    def _reason(self, claim: Claim, error: BaseException) -> str:
        """What the user is told; the log has the rest."""
        _log.exception("unit raised")
        if is_out_of_memory(error):
            with suppress(Exception):  # a device that failed may refuse even that
                self._models.clear()
            return f"out of memory while running {claim.model or claim.stage}"
        return f"internal error ({type(error).__name__}); the worker's log has unit {claim.unit_id}"

    def _write(self, write: Write, lost: threading.Event) -> bool:
        """Write how the unit ended, as long as the claim holds: a database that is gone or full is waited out."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                with self._database.writing() as session:
                    written = write(session)
            except (OperationalError, InterfaceError) as error:
                if not is_outage(error):
                    raise
                _log.warning("not written, database out of reach", error=str(error.orig), again_in_seconds=pause)
            else:
                self._made += units_made(session)
                return written
            self._activity.stir()
            if lost.is_set() or self.stopping.wait(pause):
                return False
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _compute(self, claim: Claim, report: "_Reporter") -> PackedOutcome:
        """What the unit gave, packed: before the database's turn, and once, however often it must be written."""
        if claim.stage == COMPARE:
            return pack_outcome(compare_models(self._database, claim.job_id, report))
        spec = analyses.spec(claim.analysis)
        params, unit = spec.parse(claim.params), claim.unit
        prepared = [self._picture(image_id, claim.model) for image_id in unit.images]
        if claim.stage == FIRST:
            model = self._models.get(claim.model)
            return pack_outcome(analyses.compute(claim.analysis)(model, prepared, params, unit, report))
        stages = spec.stages_before(claim.stage)
        before = kept_before(self._database.reading, claim.job_id, claim.model, stages)
        work = Work(card(claim.model), params, unit, prepared, before, partial(self._models.get, claim.model))
        return pack_outcome(analyses.compute_later(claim.analysis, claim.stage)(work, report))

    def _picture(self, image_id: str, model: str) -> Picture:
        with self._database.reading() as session:
            content = image_content(session, image_id)
        if content is None:
            raise OccluscopeError(f"picture {image_id} is gone")
        return card(model).preparation.prepare(pictures.decode(content))

    def _announce_following(self) -> None:
        """Whoever ends a last unit tells of those that come after it; were it lost, the reconciler would."""
        made, self._made = self._made, 0
        try:
            self._queue.announce(made)
        except Exception as error:  # noqa: BLE001 - the unit has ended, whatever the broker says
            _log.warning("nothing announced", error=str(error))


def _failing(claim: Claim, reason: str) -> Write:
    """Text that any database takes, of any length that a library's error has."""
    text = reason.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()[:_LONGEST_REASON]
    return lambda session: fail_unit(session, claim, text)


class _Reporter:
    """Writes a unit's progress now and then, and ends its computation when it is no longer wanted."""

    def __init__(
        self,
        database: Database,
        config: Settings,
        claim: Claim,
        lost: threading.Event,
        stopping: threading.Event,
        activity: Activity,
    ) -> None:
        self._activity = activity
        self._database = database
        self._interval = config.progress_seconds
        self._claim = claim
        self._lost = lost
        self._stopping = stopping
        self._preview_interval = config.preview_seconds
        self._written = self._previewed = 0.0

    def __call__(self, steps_done: int, preview: Preview | None = None, /) -> None:
        if self._stopping.is_set():
            raise UnitAbortedError("the worker stops")
        self._activity.stir()
        moment = time.monotonic()
        if moment - self._written >= self._interval:
            self._written = moment
            self._write(steps_done, self._shown(preview, moment))
        if self._lost.is_set():
            raise UnitAbortedError("the claim is gone")

    def _shown(self, preview: Preview | None, moment: float) -> list[PackedResult]:
        """The preview, if it is time for a new one; packed here, before the database's turn."""
        if preview is None or moment - self._previewed < self._preview_interval:
            return []
        self._previewed = moment
        return pack_results(preview())

    def _write(self, steps_done: int, previews: list[PackedResult]) -> None:
        try:
            with self._database.writing() as session:
                if not report_progress(session, self._claim, steps_done, previews):
                    self._lost.set()
        except SQLAlchemyError as error:  # the unit itself is well; its commit will wait for the database
            _log.warning("progress not written", error=str(error))


def describe_device(device: torch.device) -> str:
    """The device as people know it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU, {torch.get_num_threads()} threads"
