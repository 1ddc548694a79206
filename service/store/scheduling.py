"""Scheduling: which unit is due next.

Priorities take turns, and so do owners within each priority. Of four turns, three are for ``interactive`` units and one
is for ``batch`` units, as long as both wait. Within a priority it is the turn of the owner who was served longest ago.
Of that owner, the oldest job comes first; of that job, a unit of a model that the worker has loaded, otherwise the
first unit. (Preferring a loaded model delays nobody: the job needs all of its units.)

So nobody waits for ever: the first of an owner's units is claimed within `longest_wait` claims, whatever others submit.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.store.database import clock
from service.store.states import Priority, UnitState
from service.store.tables import Owner, Turn, Unit
from service.store.tallies import next_number
from service.store.upsert import insert_ignoring, insert_setting

_ROUND: Final = 4  # turns, one of which is for batch
_TURNS: Final = "turns"  # the tally that numbers the turns
_TRIES: Final = 10  # attempts; one fails if the owner's last unit was cancelled meanwhile
_QUEUED = Unit.state == UnitState.QUEUED


@dataclass(frozen=True)
class Waiting:
    """Units that wait for a worker. oldest_seconds: how long the first of them has waited."""

    units: int
    oldest_seconds: float


def longest_wait(priority: Priority, owners: int) -> int:
    """The most claims until an owner's first unit is claimed, if this many owners have units of this priority."""
    if priority == Priority.BATCH:
        return _ROUND * owners
    return owners + -(-owners // (_ROUND - 1))


def due_unit(session: Session, loaded: Collection[str] = ()) -> str | None:
    """Id of the unit to claim next; None if no unit waits. This ends the turn of its owner.

    loaded: names of the models that the worker has in memory.
    """
    for _ in range(_TRIES):
        waiting = _waiting_priorities(session)
        if not waiting:
            return None
        number = next_number(session, _TURNS)
        first = Priority.INTERACTIVE if number % _ROUND else Priority.BATCH
        priority = first if first in waiting else waiting[0]
        owner = _whose_turn(session, priority)
        if owner is None:
            continue
        insert_setting(session, Turn, {"priority": priority, "owner": owner}, {"number": number})
        if unit_id := _first_unit(session, priority, owner, loaded):
            return unit_id
    return None


def note_owner(session: Session, name: str) -> None:
    """Make sure that the owner has a row."""
    insert_ignoring(session, Owner, name=name)


def count_waiting(session: Session, limit: int) -> int:
    """The number of units that wait for a worker, counted up to `limit`."""
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


def _waiting_priorities(session: Session) -> list[Priority]:
    """The priorities with waiting units, in the order of their turns."""
    probes = [select(Unit.priority).where(_QUEUED, Unit.priority == priority).limit(1) for priority in Priority]
    found = session.execute(select(*(probe.scalar_subquery() for probe in probes))).one()
    return [Priority(priority) for priority in found if priority is not None]


def _whose_turn(session: Session, priority: Priority) -> str | None:
    """Of the owners with units of this priority, the one who was served longest ago or never."""
    of_priority = (_QUEUED, Unit.priority == priority)
    first = select(func.min(Unit.owner).label("owner")).where(*of_priority)
    waiting = first.cte("waiting", recursive=True)  # from owner to owner along the index, skipping the units of each
    following: Any = select(func.min(Unit.owner)).where(*of_priority, Unit.owner > waiting.c.owner).scalar_subquery()
    waiting = waiting.union_all(select(following).where(waiting.c.owner.is_not(None)))
    query = (
        select(waiting.c.owner)
        .join(Turn, (Turn.priority == priority) & (Turn.owner == waiting.c.owner), isouter=True)
        .where(waiting.c.owner.is_not(None))
        .order_by(func.coalesce(Turn.number, 0), waiting.c.owner)
        .limit(1)
    )
    return session.scalar(query)


def _first_unit(session: Session, priority: int, owner: str, loaded: Collection[str]) -> str | None:
    """The owner's first unit, if possible of a loaded model; units that are being cancelled or deleted are skipped.

    Waiting for one of those would make all other claims wait, too.
    """
    order = (Unit.submitted_at, Unit.job_id, Unit.position)  # in the order of the index
    of_owner = select(Unit.id, Unit.model, Unit.submitted_at, Unit.job_id).where(
        _QUEUED, Unit.priority == priority, Unit.owner == owner
    )
    query = of_owner.order_by(*order).limit(1).with_for_update(key_share=True, skip_locked=True)
    first = session.execute(query).one_or_none()
    if first is None:
        return None
    if first.model in loaded or not loaded:
        return str(first.id)
    of_job = (Unit.submitted_at == first.submitted_at, Unit.job_id == first.job_id)
    rather = session.execute(query.where(*of_job, Unit.model.in_(loaded))).one_or_none()
    return str((rather or first).id)
