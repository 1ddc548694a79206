"""What comes after a unit has ended: the units of the next stage, and at last the job's own end."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, delete, select, update
from sqlalchemy.orm import Session

from occluscope.analyses.contract import FIRST
from service.store.changes import note_change
from service.store.database import clock
from service.store.deliveries import queue_delivery
from service.store.given import forget_given
from service.store.kept import forget_kept
from service.store.locks import lock_job
from service.store.planning import plan_following
from service.store.stages import count_all_ended, count_ended, stages_of
from service.store.states import ENDED_JOB, ENDED_UNIT, NO_ANALYSIS, JobState, UnitState
from service.store.tables import Artifact, Job, Model, Stage, Unit
from service.store.tallies import tally


def note_ended_unit(
    session: Session, job: Job, unit_id: str, stage: str, model: str, *, failed: bool, steps_done: int
) -> None:
    """Count a unit as ended, then plan the units that can follow now, or end the job if none are left.

    job: locked by the caller, who has already written the unit's row.
    """
    session.execute(delete(Artifact).where(Artifact.unit_id == unit_id, Artifact.preview))
    if failed:
        forget_given(session, Unit.id == unit_id)
    note_change(job, of_results=True)
    if not count_ended(session, job.id, stage, model, failed=failed, steps_done=steps_done):
        return
    moment = clock(session)
    if plan_following(session, job, model, moment):
        return
    stages = stages_of(session, job.id)
    if all(stage.has_ended for stage in stages):
        forget_kept(session, job.id)
        if job.state == JobState.RUNNING:
            job.error = _error(session, job.id, stages)
            failures = any(stage.failed for stage in stages)
            _end(session, job, JobState.FAILED if failures else JobState.SUCCEEDED, moment)


def cancel_job(session: Session, job_id: str) -> JobState | None:
    """Cancel a job and its unfinished units, unless it has ended; results of units that have succeeded stay.

    A worker that holds one of the units finds that its claim is gone. Returns the job's state afterwards, None if there
    is no such job.
    """
    if (job := lock_job(session, job_id)) is None:
        return None
    if job.state in ENDED_JOB:
        return JobState(job.state)
    moment = clock(session)
    session.execute(
        update(Unit)
        .where(Unit.job_id == job_id, Unit.state.not_in(ENDED_UNIT))
        .values(state=UnitState.CANCELLED, finished_at=moment, leased_until=None)
    )
    count_all_ended(session, job_id)
    session.execute(delete(Artifact).where(Artifact.job_id == job_id, Artifact.preview))
    forget_given(session, and_(Unit.job_id == job_id, Unit.has_given, Unit.state == UnitState.CANCELLED))
    note_change(job, of_results=True)
    forget_kept(session, job_id)
    _end(session, job, JobState.CANCELLED, moment)
    return JobState.CANCELLED


def _end(session: Session, job: Job, state: JobState, moment: datetime) -> None:
    job.state, job.finished_at = state, moment
    if job.analysis == NO_ANALYSIS and state != JobState.SUCCEEDED:
        reason = job.error or f"its inspection was {state}"
        session.execute(update(Model).where(Model.job_id == job.id).values(error=reason))
    queue_delivery(session, job, moment)
    tally(session, f"jobs_{state}", job.analysis, total=max((moment - job.created_at).total_seconds(), 0.0))


def _error(session: Session, job_id: str, stages: Sequence[Stage]) -> str | None:
    """The job's error: how many units failed, and the picture, the model and the reason of the first."""
    failed, units = sum(stage.failed for stage in stages), sum(stage.units for stage in stages)
    if not failed:
        return None
    of_job = select(Unit.id, Unit.model, Unit.error).where(Unit.job_id == job_id, Unit.state == UnitState.FAILED)
    first = session.execute(of_job.order_by(Unit.position).limit(1)).one()
    if units == 1:
        return str(first.error)
    images = _images(session, first.id)
    of = [f"of picture {images[0]}"] if images else []
    several = sum(stage.name == FIRST for stage in stages) > 1
    of += [f"with {first.model}"] if several and first.model else []
    return f"{failed} of {units} units failed; the first{''.join(f', {which}' for which in of)}: {first.error}"


def _images(session: Session, unit_id: str) -> list[str]:
    """A unit's pictures; empty if they cannot be read."""
    try:
        return list(session.scalar(select(Unit.images).where(Unit.id == unit_id)) or [])
    except (ValueError, TypeError):
        return []
