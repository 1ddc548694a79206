"""Leases: who holds which unit, and for how long.

A claim gives a unit to one worker under a fencing number. Whoever lets its lease run out loses the unit: the next
claim has a higher number, and every write here and in `service.store.units` holds only for the current one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import ColumnElement, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, defer

from occluscope.analyses.contract import FIRST
from occluscope.analyses.contract import Unit as PlannedUnit
from service.store.changes import note_change
from service.store.database import clock, is_outage
from service.store.ending import note_ended_unit
from service.store.given import forget_given
from service.store.locks import lock_job, share_job
from service.store.states import JobState, UnitState
from service.store.tables import Job, Unit
from service.store.tallies import tally

_log = structlog.get_logger(__name__)
_LONGEST_LEASES: Final = 2.0  # a lease that runs longer than so many was written by a clock that was set back since


@dataclass(frozen=True)
class Claim:
    """A worker's right to one unit. fence: the number that every write under it is held against.

    owner: whose job it is of. attempts, outages, has_given: as of `service.store.tables.Unit`; this claim is counted
    among the attempts.
    """

    unit_id: str
    job_id: str
    fence: int
    analysis: str
    model: str
    params: dict[str, Any]
    unit: PlannedUnit
    claimed_at: datetime
    owner: str = ""
    stage: str = FIRST
    attempts: int = 1
    outages: int = 0
    has_given: bool = False


@dataclass(frozen=True)
class Freed:
    """A unit whose lease ran out. failed: it was its last attempt; else it is queued again."""

    unit_id: str
    job_id: str
    attempts: int
    failed: bool


def claim_unit(session: Session, unit_id: str, worker_id: str, lease_seconds: float) -> Claim | None:
    """Take a queued unit; none when there is nothing to take.

    It never waits for the lock of a job, since all other claims wait for this one. A job that has begun is not written
    here. One that has not begun is locked by others only while they cancel or delete it: then its unit is not taken.
    """
    moment = clock(session)
    of_job = select(Job.id, Job.state, Job.analysis, Job.params).join(Unit, Unit.job_id == Job.id)
    job = session.execute(of_job.where(Unit.id == unit_id)).one_or_none()
    if job is None:
        return None
    locked = lock_job(session, job.id, skip_locked=True) if job.state == JobState.QUEUED else None
    if locked is None and job.state == JobState.QUEUED:
        return None
    claimed = session.scalar(
        update(Unit)
        .where(Unit.id == unit_id, Unit.state == UnitState.QUEUED)
        .values(
            state=UnitState.RUNNING,
            fence=Unit.fence + 1,
            attempts=Unit.attempts + 1,
            worker_id=worker_id,
            leased_until=moment + timedelta(seconds=lease_seconds),
            started_at=moment,
            steps_done=0,
        )
        .returning(Unit)
    )
    if claimed is None:
        return None
    if locked and locked.state == JobState.QUEUED:
        locked.state, locked.started_at = JobState.RUNNING, moment
        note_change(locked)
    tally(session, "unit_attempts", job.analysis, claimed.model)
    planned = PlannedUnit(tuple(claimed.images), claimed.steps_total, claimed.payload)
    return Claim(
        unit_id=claimed.id,
        job_id=job.id,
        fence=claimed.fence,
        analysis=job.analysis,
        model=claimed.model,
        params=job.params,
        unit=planned,
        claimed_at=moment,
        owner=claimed.owner,
        stage=claimed.stage,
        attempts=claimed.attempts,
        outages=claimed.outages,
        has_given=claimed.has_given,
    )


def renew_lease(session: Session, claim: Claim, lease_seconds: float) -> bool:
    """Hold the unit for longer; false when the claim is gone."""
    return change_held(session, claim, leased_until=clock(session) + timedelta(seconds=lease_seconds))


def end_lease(session: Session, claim: Claim) -> bool:
    """Let the lease run out now: the unit is free, and its attempt is used up; false when the claim is gone."""
    return change_held(session, claim, leased_until=clock(session) - timedelta(seconds=1))


def give_back_unit(session: Session, claim: Claim, *, failed_attempt: bool = False, outage: bool = False) -> bool:
    """Put the unit back in the queue, as a worker that stops does; it is no failed attempt unless that is said.

    What it gave stays hidden, and is deleted now or later. outage: it is given back since the database was away. False
    when the claim is gone.
    """
    given_back = share_job(session, claim.job_id) and change_held(
        session,
        claim,
        state=UnitState.QUEUED,
        attempts=claim.attempts if failed_attempt else claim.attempts - 1,
        outages=claim.outages + 1 if outage else claim.outages,
        steps_done=0,
        worker_id=None,
        leased_until=None,
        queued_at=clock(session),
    )
    if given_back:
        forget_given(session, Unit.id == claim.unit_id)
    return given_back


def free_expired_units(session: Session, max_attempts: int, lease_seconds: float) -> list[Freed]:
    """Queue again what its worker left, and fail what was left `max_attempts` times.

    Safe to run any number of times at once: a job that another transaction works on is left to that or to the next
    round. A job whose units cannot be freed, because its rows are damaged, holds up no other job. A lease that ends too
    far in the future, since the clock was set back, is cut to one lease from now.
    """
    moment = clock(session)
    longest = moment + timedelta(seconds=_LONGEST_LEASES * lease_seconds)
    session.execute(
        update(Unit)
        .where(Unit.state == UnitState.RUNNING, Unit.leased_until > longest)
        .values(leased_until=moment + timedelta(seconds=lease_seconds))
    )
    expired = (Unit.state == UnitState.RUNNING, Unit.leased_until < moment)
    found = session.scalars(select(Unit.job_id).where(*expired).distinct().order_by(Unit.job_id)).all()
    freed: list[Freed] = []
    for job_id in found:
        try:
            with session.begin_nested():
                of_job = _free_expired_of(session, job_id, expired, max_attempts, moment)
        except Exception as error:
            if isinstance(error, DBAPIError) and is_outage(error):
                raise
            _log.exception("expired units not freed", job=job_id)
        else:
            freed += of_job
            for _ in of_job:
                tally(session, "recoveries")
    return freed


def end_leases_of(session: Session, worker_prefix: str = "") -> int:
    """Let the leases of workers run out now, who are known to be dead; by default of all. Gives how many they held."""
    ended = session.execute(
        update(Unit)
        .where(Unit.state == UnitState.RUNNING, Unit.worker_id.startswith(worker_prefix, autoescape=True))
        .values(leased_until=clock(session) - timedelta(seconds=1))
        .returning(Unit.id)
    )
    return len(ended.all())


def next_expiry(session: Session) -> float | None:
    """Seconds until the next lease runs out unless it is renewed; none while nothing runs."""
    query = select(Unit.leased_until).where(Unit.state == UnitState.RUNNING).order_by(Unit.leased_until).limit(1)
    moment = session.scalar(query)
    return None if moment is None else max((moment - clock(session)).total_seconds(), 0.0)


def change_held(session: Session, claim: Claim, **values: Any) -> bool:
    """Change the unit's row; false, with nothing changed, when the claim is gone."""
    changed = session.execute(update(Unit).where(*_under(claim)).values(**values).returning(Unit.id))
    return changed.first() is not None


def lock_held(session: Session, claim: Claim) -> bool:
    """Hold the unit's row until the transaction ends; false when the claim is gone."""
    held = select(Unit.id).where(*_under(claim)).with_for_update(key_share=True)
    return session.scalar(held) is not None


def _under(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return Unit.id == claim.unit_id, Unit.fence == claim.fence, Unit.state == UnitState.RUNNING


def _free_expired_of(
    session: Session, job_id: str, expired: Sequence[ColumnElement[bool]], max_attempts: int, moment: datetime
) -> list[Freed]:
    if (job := lock_job(session, job_id, skip_locked=True)) is None:
        return []
    of_job = select(Unit).where(Unit.job_id == job_id, *expired).order_by(Unit.position)
    of_job = of_job.options(defer(Unit.images), defer(Unit.payload))
    # Locking reads the row again: its lease may have been renewed since it was found.
    units = session.scalars(of_job.with_for_update(key_share=True)).all()
    return [_free(session, job, unit, max_attempts, moment) for unit in units]


def _free(session: Session, job: Job, unit: Unit, max_attempts: int, moment: datetime) -> Freed:
    failed = unit.attempts >= max_attempts
    unit.leased_until = None
    if failed:
        unit.state, unit.finished_at = UnitState.FAILED, moment
        unit.error = f"its worker died or fell silent {max_attempts} times while it ran"
        session.flush()
        note_ended_unit(session, job, unit.id, unit.stage, unit.model, failed=True, steps_done=unit.steps_done)
    else:
        unit.state, unit.queued_at = UnitState.QUEUED, moment
        unit.steps_done, unit.worker_id = 0, None
        forget_given(session, Unit.id == unit.id)
    return Freed(unit.id, unit.job_id, unit.attempts, failed)
