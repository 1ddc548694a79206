"""Stages: a job's units counted by stage and model, so that what comes next is known without reading each unit.

They are written under the job's lock, in the transaction that changes the units.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, literal, select, union_all, update
from sqlalchemy.orm import Session

from occluscope.analyses.contract import FIRST
from occluscope.analyses.contract import Unit as PlannedUnit
from service.store.states import UnitState
from service.store.tables import Job, Stage, Unit


def stage_of_units(job_id: str, position: int, name: str, model: str, units: Sequence[PlannedUnit]) -> Stage:
    """The row of a stage whose units all wait."""
    return Stage(
        job_id=job_id,
        position=position,
        name=name,
        model=model,
        units=len(units),
        still_open=len(units),
        failed=0,
        steps_total=sum(unit.steps for unit in units),
        steps_done=0,
    )


def waiting_units(
    job: Job, stage: str, model: str, planned: Sequence[PlannedUnit], first: int, moment: datetime
) -> list[Unit]:
    """The rows of a stage's units, queued now. first: position of the first of them in the job."""
    return [
        Unit(
            job_id=job.id,
            position=first + number,
            stage=stage,
            model=model,
            images=list(unit.images),
            payload=unit.payload,
            owner=job.owner,
            priority=job.priority,
            submitted_at=job.created_at,
            queued_at=moment,
            steps_total=unit.steps,
            state=UnitState.QUEUED,
        )
        for number, unit in enumerate(planned)
    ]


def stages_of(session: Session, job_id: str) -> list[Stage]:
    """The job's stages, in their order."""
    query = select(Stage).where(Stage.job_id == job_id).order_by(Stage.position)
    return list(session.scalars(query.execution_options(populate_existing=True)))


def count_ended(session: Session, job_id: str, name: str, model: str, *, failed: bool, steps_done: int) -> bool:
    """Count a unit as ended; return whether it was the last of its stage."""
    counted = (
        update(Stage)
        .where(Stage.job_id == job_id, Stage.name == name, Stage.model == model)
        .values(
            still_open=Stage.still_open - 1,
            failed=Stage.failed + int(failed),
            steps_done=Stage.steps_done + steps_done,
        )
        .returning(Stage.still_open)
    )
    return session.scalar(counted) == 0


def count_all_ended(session: Session, job_id: str) -> None:
    """Count the steps that a cancelled job's units had done."""
    done = (
        select(func.coalesce(func.sum(Unit.steps_done), 0))
        .where(Unit.job_id == Stage.job_id, Unit.stage == Stage.name, Unit.model == Stage.model)
        .scalar_subquery()
    )
    session.execute(update(Stage).where(Stage.job_id == job_id).values(still_open=0, steps_done=done))


def steps_of(session: Session, job_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Steps done and in total, by job id; of running units, as far as they have reported.

    One query, so that a unit that ends meanwhile is neither counted twice nor left out.
    """
    ended = select(Stage.job_id, Stage.steps_done, Stage.steps_total).where(Stage.job_id.in_(job_ids))
    running = select(Unit.job_id, Unit.steps_done, literal(0)).where(
        Unit.job_id.in_(job_ids), Unit.state == UnitState.RUNNING
    )
    job_id, done, total = union_all(ended, running).subquery().c
    query = select(job_id, func.sum(done), func.sum(total)).group_by(job_id)
    return {found: (int(steps_done), int(steps)) for found, steps_done, steps in session.execute(query)}


def models_of(session: Session, job_ids: Sequence[str]) -> dict[str, list[str]]:
    """The models that several jobs run, in the order they were given, by the job's id, in one query."""
    query = (
        select(Stage.job_id, Stage.model)
        .where(Stage.job_id.in_(job_ids), Stage.name == FIRST)
        .order_by(Stage.job_id, Stage.position)
    )
    found: dict[str, list[str]] = {job_id: [] for job_id in job_ids}
    for job_id, model in session.execute(query):
        found[job_id].append(model)
    return found
