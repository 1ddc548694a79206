"""Scheduling: which unit is due next.

In this order: what somebody waits for before what nobody does; the owner who was served longest ago; their oldest job;
in it a unit of a model that the worker has loaded (that costs nobody anything: the job needs them all); its first unit.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from service.store.database import clock
from service.store.states import Priority, UnitState
from service.store.tables import Owner, Unit
from service.store.upsert import insert_ignoring

_TRIES: Final = 10  # each lost to a worker that took an owner's last unit in between
_QUEUED = Unit.state == UnitState.QUEUED


@dataclass(frozen=True)
class Waiting:
    """Units that wait for a worker. oldest_seconds: since the one that waits longest was queued."""

    units: int
    oldest_seconds: float


def due_unit(session: Session, loaded: Collection[str] = ()) -> str | None:
    """Id of the unit to claim next, none when none waits. Its owner's turn is over with this.

    loaded: names of the models that the worker has in memory.
    """
    for _ in range(_TRIES):
        priority = session.scalar(select(Unit.priority).where(_QUEUED).order_by(Unit.priority).limit(1))
        if priority is None:
            return None
        owner = _whose_turn(session, priority)
        if owner is None:
            continue
        session.execute(update(Owner).where(Owner.name == owner).values(served_at=clock(session)))
        if unit_id := _first_unit(session, priority, owner, loaded):
            return unit_id
    return None


def note_owner(session: Session, name: str) -> None:
    """Give an owner who is new a place among those who take turns: before all who were served."""
    insert_ignoring(session, Owner, name=name, served_at=datetime.fromtimestamp(0, tz=clock(session).tzinfo))


def count_waiting(session: Session, limit: int) -> int:
    """How many units wait for a worker; at most `limit` are counted."""
    waiting = select(Unit.id).where(_QUEUED).limit(limit).subquery()
    return session.scalar(select(func.count()).select_from(waiting)) or 0


def waiting_by_priority(session: Session) -> dict[Priority, Waiting]:
    """Depth and age of the queue, for each priority."""
    query = select(Unit.priority, func.count(), func.min(Unit.queued_at)).where(_QUEUED).group_by(Unit.priority)
    moment = clock(session)
    found = {
        Priority(priority): Waiting(count, max((moment - oldest).total_seconds(), 0.0))
        for priority, count, oldest in session.execute(query)
    }
    return {priority: found.get(priority, Waiting(0, 0.0)) for priority in Priority}


def _whose_turn(session: Session, priority: int) -> str | None:
    """The owner who was served longest ago of those with units of this priority; their row is locked."""
    waits = exists().where(_QUEUED, Unit.priority == priority, Unit.owner == Owner.name)
    query = select(Owner.name).where(waits).order_by(Owner.served_at, Owner.name).limit(1).with_for_update()
    return session.scalar(query)


def _first_unit(session: Session, priority: int, owner: str, loaded: Collection[str]) -> str | None:
    of_owner = (_QUEUED, Unit.priority == priority, Unit.owner == owner)
    oldest = select(Unit.job_id).where(*of_owner).order_by(Unit.submitted_at, Unit.job_id).limit(1)
    job_id = session.scalar(oldest)
    if job_id is None:
        return None
    of_job = select(Unit.id).where(_QUEUED, Unit.job_id == job_id).order_by(Unit.position).limit(1)
    return session.scalar(of_job.where(Unit.model.in_(loaded))) or session.scalar(of_job)
