"""Units as workers see them: claimed, renewed, reported, committed, failed, given back.

Every change here holds only for the claim's own fencing number. A worker whose lease ran out and whose unit
was claimed again, or whose job was deleted, changes nothing and is told so.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from sqlalchemy import and_, delete, func, select, update
from sqlalchemy.orm import Session

from occluscope.analyses.contract import Outcome
from occluscope.analyses.contract import Unit as PlannedUnit
from occluscope.results import NamedResult, Packed, Result, unpack
from service.store.database import now
from service.store.ending import end_job_with_its_last_unit
from service.store.kept import keep_arrays
from service.store.states import JobState, UnitRole, UnitState
from service.store.tables import Artifact, Job, Metric, Unit


@dataclass(frozen=True)
class Claim:
    """A worker's right to one unit. fence: the number that every write under it is held against."""

    unit_id: str
    job_id: str
    fence: int
    analysis: str
    model: str
    params: dict[str, Any]
    unit: PlannedUnit
    role: str = UnitRole.WORK


def claim_unit(session: Session, unit_id: str, worker_id: str, lease_seconds: float) -> Claim | None:
    """Take a queued unit; none when there is nothing to take."""
    moment = now()
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
    session.execute(
        update(Job)
        .where(Job.id == claimed.job_id, Job.state == JobState.QUEUED)
        .values(state=JobState.RUNNING, started_at=moment)
    )
    job = session.get_one(Job, claimed.job_id)
    planned = PlannedUnit(tuple(claimed.images), claimed.steps_total, claimed.payload)
    return Claim(claimed.id, job.id, claimed.fence, job.analysis, claimed.model, job.params, planned, claimed.role)


def renew_lease(session: Session, claim: Claim, lease_seconds: float) -> bool:
    """Hold the unit for longer; false when the claim is gone."""
    return _change(session, claim, leased_until=now() + timedelta(seconds=lease_seconds))


def report_progress(session: Session, claim: Claim, steps_done: int, previews: Sequence[NamedResult] = ()) -> bool:
    """Note how far the unit is, and its results as they stand; false when the claim is gone."""
    if not _change(session, claim, steps_done=steps_done):
        return False
    if previews:
        session.execute(delete(Artifact).where(Artifact.unit_id == claim.unit_id, Artifact.preview))
        session.add_all(_artifact_row(claim, position, named, preview=True) for position, named in enumerate(previews))
    return True


def commit_unit(session: Session, claim: Claim, outcome: Outcome) -> bool:
    """Store what the unit gave and end it, all or nothing; false, with nothing stored, when the claim is gone."""
    _lock_job(session, claim)
    ended = _change(
        session,
        claim,
        state=UnitState.SUCCEEDED,
        steps_done=Unit.steps_total,
        finished_at=now(),
        leased_until=None,
    )
    if not ended:
        return False
    keep_arrays(session, claim.unit_id, outcome.kept)
    session.add_all(_artifact_row(claim, position, named) for position, named in enumerate(outcome.results))
    session.add_all(
        Metric(
            job_id=claim.job_id,
            unit_id=claim.unit_id,
            position=position,
            model=claim.model,
            name=metric.name,
            variant=metric.variant,
            value=metric.value,
            unit=metric.unit,
            image_id=metric.image,
        )
        for position, metric in enumerate(outcome.metrics)
    )
    end_job_with_its_last_unit(session, claim.job_id)
    return True


def fail_unit(session: Session, claim: Claim, error: str) -> bool:
    """End the unit with a reason for its user; false when the claim is gone."""
    _lock_job(session, claim)
    if not _change(session, claim, state=UnitState.FAILED, error=error, finished_at=now(), leased_until=None):
        return False
    end_job_with_its_last_unit(session, claim.job_id)
    return True


def give_back_unit(session: Session, claim: Claim) -> bool:
    """Put the unit back in the queue, as a worker that stops does; it is no failed attempt.

    False when the claim is gone.
    """
    return _change(
        session,
        claim,
        state=UnitState.QUEUED,
        attempts=Unit.attempts - 1,
        steps_done=0,
        worker_id=None,
        leased_until=None,
    )


def free_expired_units(session: Session, max_attempts: int) -> list[str]:
    """Queue again what its worker left, and fail what was left `max_attempts` times.

    Returns the ids that are to be published.
    """
    expired = and_(Unit.state == UnitState.RUNNING, Unit.leased_until < now())
    exhausted = session.execute(
        update(Unit)
        .where(expired, Unit.attempts >= max_attempts)
        .values(
            state=UnitState.FAILED,
            error=f"its worker died or fell silent {max_attempts} times while it ran",
            finished_at=now(),
            leased_until=None,
        )
        .returning(Unit.job_id)
    )
    for job_id in sorted({row.job_id for row in exhausted}):
        session.execute(select(Job.id).where(Job.id == job_id).with_for_update())
        end_job_with_its_last_unit(session, job_id)
    freed = session.scalars(
        update(Unit)
        .where(expired)
        .values(state=UnitState.QUEUED, steps_done=0, worker_id=None, leased_until=None)
        .returning(Unit.id)
    )
    return list(freed)


def queued_units(session: Session, limit: int) -> list[str]:
    """Ids of units that wait for a worker, the oldest jobs' first."""
    query = (
        select(Unit.id)
        .join(Job, Job.id == Unit.job_id)
        .where(Unit.state == UnitState.QUEUED)
        .order_by(Job.created_at, Unit.position)
        .limit(limit)
    )
    return list(session.scalars(query))


def units_by_state(session: Session) -> dict[str, int]:
    """How many units there are in each state."""
    counts: dict[str, int] = dict(session.execute(select(Unit.state, func.count()).group_by(Unit.state)).all())
    return {state: counts.get(state, 0) for state in UnitState}


def stored_result(artifact: Artifact) -> Result:
    """A result as its unit gave it, bit for bit."""
    array = None if artifact.array is None else np.load(io.BytesIO(artifact.array), allow_pickle=False)
    return unpack(artifact.kind, Packed(artifact.meta, array))


def _change(session: Session, claim: Claim, **values: Any) -> bool:
    changed = session.execute(
        update(Unit)
        .where(Unit.id == claim.unit_id, Unit.fence == claim.fence, Unit.state == UnitState.RUNNING)
        .values(**values)
        .returning(Unit.id)
    )
    return changed.first() is not None


def _lock_job(session: Session, claim: Claim) -> None:
    """One at a time: of two workers that end a job's last two units, the later one must see the other's."""
    session.execute(select(Job.id).where(Job.id == claim.job_id).with_for_update())


def _artifact_row(claim: Claim, position: int, named: NamedResult, *, preview: bool = False) -> Artifact:
    packed = named.result.pack()
    array = None if packed.array is None else named.result.to_npy()
    digest = hashlib.sha256(json.dumps(packed.meta, sort_keys=True).encode())
    digest.update(array or b"")
    return Artifact(
        job_id=claim.job_id,
        unit_id=claim.unit_id,
        position=position,
        model=claim.model,
        name=named.name,
        variant=named.variant,
        preview=preview,
        kind=named.result.kind,
        image_id=named.image,
        shape=None if packed.array is None else list(packed.array.shape),
        sha256=digest.hexdigest(),
        meta=packed.meta,
        array=array,
    )
