"""What comes after a unit has ended: units that need all the others, and at last the job's own end."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from service.store.database import clock
from service.store.deliveries import queue_delivery
from service.store.kept import forget_kept
from service.store.locks import lock_job
from service.store.states import ENDED_JOB, ENDED_UNIT, JobState, UnitRole, UnitState
from service.store.tables import Artifact, Job, Unit
from service.store.tallies import tally


def end_job_with_its_last_unit(session: Session, job: Job) -> None:
    """Make the units that can be made now, or end the job when none are left. job: locked by the caller."""
    session.flush()
    ended = select(Unit.id).where(Unit.job_id == job.id, Unit.state.in_(ENDED_UNIT))
    session.execute(delete(Artifact).where(Artifact.unit_id.in_(ended), Artifact.preview))
    if not _some_model_has_ended(session, job.id):
        return
    moment = clock(session)
    units = session.scalars(select(Unit).where(Unit.job_id == job.id).order_by(Unit.position)).all()
    models = list(dict.fromkeys(unit.model for unit in units if unit.role == UnitRole.WORK))
    following = _following(units, models, combines=job.combines)
    session.add_all(
        Unit(
            job_id=job.id,
            position=len(units) + number,
            role=role,
            model=model,
            images=[],
            payload={},
            owner=job.owner,
            priority=job.priority,
            submitted_at=job.created_at,
            queued_at=moment,
            steps_total=1,
            state=UnitState.QUEUED,
        )
        for number, (role, model) in enumerate(following)
    )
    if following or not _all_ended(units):
        return
    forget_kept(session, job.id)
    if job.state == JobState.RUNNING:
        failed = [unit for unit in units if unit.state == UnitState.FAILED]
        job.error = _error(failed, len(units), models)
        _end(session, job, JobState.FAILED if failed else JobState.SUCCEEDED, moment)


def cancel_job(session: Session, job_id: str) -> JobState | None:
    """End a job that has not ended, and all of its units that have not; what was stored stays.

    A worker that holds one of them finds its claim gone. Returns the state that the job has now, none where there is no
    such job.
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
    session.execute(delete(Artifact).where(Artifact.job_id == job_id, Artifact.preview))
    forget_kept(session, job_id)
    _end(session, job, JobState.CANCELLED, moment)
    return JobState.CANCELLED


def count_following(session: Session, job_id: str) -> int:
    """How many of the job's units over other units wait for a worker."""
    wanted = (Unit.job_id == job_id, Unit.role != UnitRole.WORK, Unit.state == UnitState.QUEUED)
    return session.scalar(select(func.count()).select_from(Unit).where(*wanted)) or 0


def _end(session: Session, job: Job, state: JobState, moment: datetime) -> None:
    job.state, job.finished_at = state, moment
    queue_delivery(session, job, moment)
    tally(session, f"jobs_{state}", job.analysis, total=max((moment - job.created_at).total_seconds(), 0.0))


def _some_model_has_ended(session: Session, job_id: str) -> bool:
    """Whether all units of some model have: before that nothing is due, however many units there are."""
    still_open = func.count().filter(Unit.state.not_in(ENDED_UNIT))
    query = select(Unit.model).where(Unit.job_id == job_id).group_by(Unit.model).having(still_open == 0).limit(1)
    return session.scalar(query) is not None


def _following(units: Sequence[Unit], models: Sequence[str], *, combines: bool) -> list[tuple[UnitRole, str]]:
    """Role and model of the units that are due: their parts have ended, and one of them succeeded."""
    due: list[tuple[UnitRole, str]] = []
    for model in models if combines else ():
        own = [unit for unit in units if unit.model == model]
        if _due(own, UnitRole.COMBINE):
            due.append((UnitRole.COMBINE, model))
    if due or len(models) < 2:
        return due
    gave = {unit.model for unit in units if unit.state == UnitState.SUCCEEDED}
    return [(UnitRole.COMPARE, "")] if len(gave) > 1 and _due(units, UnitRole.COMPARE) else []


def _due(units: Sequence[Unit], role: UnitRole) -> bool:
    was_made = any(unit.role == role for unit in units)
    return not was_made and _all_ended(units) and any(unit.state == UnitState.SUCCEEDED for unit in units)


def _all_ended(units: Sequence[Unit]) -> bool:
    return all(unit.state in ENDED_UNIT for unit in units)


def _error(failed: Sequence[Unit], units: int, models: Sequence[str]) -> str | None:
    """How many units failed, and of the first its picture, model and reason."""
    if not failed:
        return None
    first = failed[0]
    if units == 1:
        return first.error
    of = [f"of picture {first.images[0]}"] if first.images else []
    of += [f"with {first.model}"] if len(models) > 1 and first.model else []
    return f"{len(failed)} of {units} units failed; the first{''.join(f', {which}' for which in of)}: {first.error}"
