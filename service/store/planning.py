"""Planning what follows a stage: the model's next stage, or the comparison of all models."""

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from occluscope import analyses, models
from occluscope.analyses.contract import AnalysisSpec, ImageRef
from occluscope.analyses.contract import Stage as PlannedStage
from occluscope.analyses.contract import Unit as PlannedUnit
from service.store.given import is_shown
from service.store.kept import kept_before
from service.store.stages import count_ended, stage_of_units, stages_of, waiting_units
from service.store.states import COMPARE, NO_ANALYSIS, UnitState
from service.store.tables import Artifact, Image, Job, JobImage, NamedImage, Stage, Unit
from service.store.upsert import insert_ignoring

_MADE: Final = "units_made"
_NOT_PLANNED: Final = "following"  # name of a stage that stands for those that are not known
_log = structlog.get_logger(__name__)


def plan_following(session: Session, job: Job, model: str, moment: datetime) -> bool:
    """Plan the units that follow a model's stage that has ended; return false if there are none.

    job: locked by the caller. If planning fails, it makes one failed unit, whose reason the job ends with.
    """
    stages = stages_of(session, job.id)
    if model and _plan_later(session, job, stages, model, moment):
        return True
    stages = stages_of(session, job.id)
    gave = {stage.model for stage in stages if stage.succeeded}
    is_compared = any(stage.name == COMPARE for stage in stages)
    if is_compared or len(gave) < 2 or not all(stage.has_ended for stage in stages):
        return False
    _queue_units(session, job, COMPARE, "", _comparison(session, job.id), moment)
    return True


def units_made(session: Session) -> int:
    """How many units this transaction has queued; they are announced to workers once it has ended."""
    return int(session.info.get(_MADE, 0))


def _plan_later(session: Session, job: Job, stages: Sequence[Stage], model: str, moment: datetime) -> bool:
    """Plan the model's next stage that has units."""
    last = [stage for stage in stages if stage.model == model][-1]
    if not last.succeeded or job.analysis == NO_ANALYSIS:
        return False
    try:
        spec = analyses.spec(job.analysis)
    except LookupError:
        reason = f"there is no analysis '{job.analysis}' in this version, to plan what follows"
        _fail_stage(session, job, _NOT_PLANNED, model, reason, moment)
        return False
    for stage in spec.stages_after(last.name):
        try:
            planned = _planned(session, job, spec, stage, model)
        except SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a plan raises, the job ends with a reason
            _log.exception("stage cannot be planned", job=job.id, stage=stage.name)
            reason = f"its units could not be planned ({type(error).__name__})"
            _fail_stage(session, job, stage.name, model, reason, moment)
            return False
        if planned:
            _queue_units(session, job, stage.name, model, planned, moment)
            return True
    return False


def _planned(session: Session, job: Job, spec: AnalysisSpec, stage: PlannedStage, model: str) -> list[PlannedUnit]:
    before = kept_before(lambda: nullcontext(session), job.id, model, spec.stages_before(stage.name))
    return list(stage.plan(spec.parse(job.params), models.card(model, job.owner), _images(session, job.id), before))


def _images(session: Session, job_id: str) -> list[ImageRef]:
    """The job's pictures, in the job's order."""
    query = select(Image.id, Image.width, Image.height).join(JobImage).where(JobImage.job_id == job_id)
    return [ImageRef(*row) for row in session.execute(query.order_by(JobImage.position))]


def _comparison(session: Session, job_id: str) -> list[PlannedUnit]:
    """One unit, with a step for each result that several models gave and one for all metrics."""
    question = (Artifact.name, Artifact.variant, Artifact.image_id)
    query = select(*question).join(Unit, Unit.id == Artifact.unit_id)
    query = query.where(Artifact.job_id == job_id, is_shown(Artifact), ~Artifact.preview).group_by(*question)
    questions = query.having(func.count(Artifact.model.distinct()) > 1).subquery()
    return [PlannedUnit(images=(), steps=1 + (session.scalar(select(func.count()).select_from(questions)) or 0))]


def _queue_units(
    session: Session, job: Job, stage: str, model: str, planned: Sequence[PlannedUnit], moment: datetime
) -> None:
    """Queue a stage's units, behind all others of the job."""
    _hold_pictures(session, job.id, planned)
    _add_stage(session, job, stage, model, planned, moment)
    session.info[_MADE] = units_made(session) + len(planned)


def _hold_pictures(session: Session, job_id: str, planned: Sequence[PlannedUnit]) -> None:
    """Keep further pictures that these units need from being deleted before the job.

    If such a picture is already deleted, its unit fails with that reason.
    """
    needed = {image for unit in planned for image in unit.images}
    needed -= set(session.scalars(select(JobImage.image_id).where(JobImage.job_id == job_id))) if needed else set()
    there = select(Image.id).where(Image.id.in_(needed)).order_by(Image.id).with_for_update(read=True, key_share=True)
    for image_id in session.scalars(there).all() if needed else ():
        insert_ignoring(session, NamedImage, job_id=job_id, image_id=image_id)


def _fail_stage(session: Session, job: Job, stage: str, model: str, error: str, moment: datetime) -> None:
    """Add a failed unit in place of those that could not be planned."""
    (unit,) = _add_stage(session, job, stage, model, [PlannedUnit((), 1)], moment)
    unit.state, unit.error, unit.finished_at = UnitState.FAILED, error, moment
    session.flush()
    count_ended(session, job.id, stage, model, failed=True, steps_done=0)


def _add_stage(
    session: Session, job: Job, stage: str, model: str, planned: Sequence[PlannedUnit], moment: datetime
) -> list[Unit]:
    stages = stages_of(session, job.id)
    last = session.scalar(select(func.max(Unit.position)).where(Unit.job_id == job.id))  # an upgrade may leave gaps
    units = waiting_units(job, stage, model, planned, 0 if last is None else last + 1, moment)
    session.add(stage_of_units(job.id, len(stages), stage, model, planned))
    session.add_all(units)
    session.flush()
    return units
