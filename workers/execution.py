"""One unit from its claim to its commit."""

import threading
import time
from collections.abc import Callable

import structlog
import torch
from sqlalchemy.exc import SQLAlchemyError

from occluscope import analyses, pictures
from occluscope.analyses.contract import Outcome
from occluscope.errors import OccluscopeError, UnitAbortedError
from occluscope.models import card
from occluscope.preparation import Picture
from occluscope.results import NamedResult
from service.queue import Queue
from service.settings import Settings
from service.store.comparing import compare_models
from service.store.database import Database
from service.store.ending import following_units
from service.store.images import image_content
from service.store.kept import kept_parts
from service.store.states import UnitRole
from service.store.units import (
    Claim,
    claim_unit,
    commit_unit,
    fail_unit,
    give_back_unit,
    report_progress,
)
from workers.heartbeat import Heartbeat
from workers.model_cache import ModelCache

Preview = Callable[[], list[NamedResult]]
_log = structlog.get_logger(__name__)


class Executor:
    """Runs units, one at a time, for one worker process."""

    def __init__(
        self, config: Settings, database: Database, queue: Queue, worker_id: str, heartbeat: Heartbeat
    ) -> None:
        self._queue = queue
        self._config = config
        self._database = database
        self._worker_id = worker_id
        self._heartbeat = heartbeat
        self._models = ModelCache(config.model_cache_size)
        self.stopping = threading.Event()  # set when the worker was asked to end

    def run(self, unit_id: str) -> None:
        """Claim a unit and do it; a unit that another worker holds or has ended changes nothing."""
        with self._database.writing() as session:
            claim = claim_unit(session, unit_id, self._worker_id, self._config.lease_seconds)
        if claim is None:
            return
        with structlog.contextvars.bound_contextvars(job=claim.job_id, unit=claim.unit_id):
            self._run_claimed(claim)

    def _run_claimed(self, claim: Claim) -> None:
        start = time.perf_counter()
        try:
            with self._heartbeat.holding(claim) as lost:
                outcome = self._compute(claim, _Reporter(self._database, self._config, claim, lost, self.stopping))
        except UnitAbortedError:
            self._give_back(claim)
        except OccluscopeError as error:
            self._fail(claim, str(error))
        except (MemoryError, torch.OutOfMemoryError):
            self._fail(claim, f"out of memory while running {claim.model}")
        except Exception as error:  # noqa: BLE001 - whatever a model raises, its job must end with a reason
            _log.exception("unit failed")
            self._fail(claim, f"internal error ({type(error).__name__}); the worker's log has unit {claim.unit_id}")
        else:
            self._commit(claim, outcome, time.perf_counter() - start)

    def _compute(self, claim: Claim, report: "_Reporter") -> Outcome:
        spec = analyses.spec(claim.analysis)
        params = spec.parse(claim.params)
        if claim.role == UnitRole.COMPARE:
            return compare_models(self._database, claim.job_id)
        if claim.role == UnitRole.COMBINE:
            parts = kept_parts(self._database, claim.job_id, claim.model)
            return analyses.combine(claim.analysis)(card(claim.model), params, parts, report)
        prepared = [self._picture(image_id, claim.model) for image_id in claim.unit.images]
        model = self._models.get(claim.model)
        return analyses.compute(claim.analysis)(model, prepared, params, claim.unit, report)

    def _picture(self, image_id: str, model: str) -> Picture:
        with self._database.reading() as session:
            content = image_content(session, image_id)
        if content is None:
            raise OccluscopeError(f"picture {image_id} is gone")
        return card(model).preparation.prepare(pictures.decode(content))

    def _commit(self, claim: Claim, outcome: Outcome, seconds: float) -> None:
        with self._database.writing() as session:
            committed = commit_unit(session, claim, outcome)
        _log.info("unit succeeded" if committed else "unit was not ours any more", seconds=round(seconds, 3))
        self._publish_following(claim)

    def _fail(self, claim: Claim, error: str) -> None:
        with self._database.writing() as session:
            fail_unit(session, claim, error)
        _log.warning("unit failed", error=error)
        self._publish_following(claim)

    def _publish_following(self, claim: Claim) -> None:
        """Whoever ends a last unit tells of those that come after it; were it lost, the reconciler would."""
        with self._database.reading() as session:
            unit_ids = following_units(session, claim.job_id)
        for unit_id in unit_ids:
            self._queue.publish_unit(unit_id)

    def _give_back(self, claim: Claim) -> None:
        with self._database.writing() as session:
            given_back = give_back_unit(session, claim)
        _log.info("unit given back" if given_back else "unit was taken away")


class _Reporter:
    """Writes a unit's progress now and then, and ends its computation when it is no longer wanted."""

    def __init__(
        self,
        database: Database,
        config: Settings,
        claim: Claim,
        lost: threading.Event,
        stopping: threading.Event,
    ) -> None:
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
        moment = time.monotonic()
        if moment - self._written >= self._interval:
            self._written = moment
            self._write(steps_done, self._shown(preview, moment))
        if self._lost.is_set():
            raise UnitAbortedError("the claim is gone")

    def _shown(self, preview: Preview | None, moment: float) -> list[NamedResult]:
        """The preview, if it is time for a new one."""
        if preview is None or moment - self._previewed < self._preview_interval:
            return []
        self._previewed = moment
        return preview()

    def _write(self, steps_done: int, previews: list[NamedResult]) -> None:
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
