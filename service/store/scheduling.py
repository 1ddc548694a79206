"""Scheduling: which unit is due next.

Priorities take turns, and owners within each. Of four turns one is for what nobody waits for, three for what somebody
does, as long as there is both. Within a priority it is the turn of the owner who was served longest ago; of theirs the
oldest job is first, in it a unit of a model that the worker has loaded (that costs nobody anything: the job needs them
all), then its first unit.

So nobody waits for ever: of an owner's units the first is claimed within `longest_wait` claims, whatever others submit.
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

_ROUND: Final = 4  # turns, of which one is for batch
_TURNS: Final = "turns"  # the tally that numbers them
_TRIES: Final = 10  # each lost to an owner whose last unit was cancelled in between
_QUEUED = Unit.state == UnitState.QUEUED


@dataclass(frozen=True)
class Waiting:
    """Units that wait for a worker. oldest_seconds: since the one that waits longest was queued."""

    units: int
    oldest_seconds: float


def longest_wait(priority: Priority, owners: int) -> int:
    """Claims within which the first unit of an owner is claimed, where so many owners have units of this priority."""
    if priority == Priority.BATCH:
        return _ROUND * owners
    return owners + -(-owners // (_ROUND - 1))


def due_unit(session: Session, loaded: Collection[str] = ()) -> str | None:
    """Id of the unit to claim next, none when none waits. Its owner's turn is over with this.

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
    """Have a row for an owner."""
    insert_ignoring(session, Owner, name=name)


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


def _waiting_priorities(session: Session) -> list[Priority]:
    """The priorities of which units wait, the first to go first."""
    probes = [select(Unit.priority).where(_QUEUED, Unit.priority == priority).limit(1) for priority in Priority]
    found = session.execute(select(*(probe.scalar_subquery() for probe in probes))).one()
    return [Priority(priority) for priority in found if priority is not None]


def _whose_turn(session: Session, priority: Priority) -> str | None:
    """The owner who was served longest ago, or never, of those with units of this priority."""
    of_priority = (_QUEUED, Unit.priority == priority)
    first = select(func.min(Unit.owner).label("owner")).where(*of_priority)
    waiting = first.cte("waiting", recursive=True)  # from owner to owner along the index, past the units of each
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
    """The owner's oldest unit, rather of a loaded model; it skips units that are being cancelled or deleted.

    To wait for one of those would make all other claims wait.
    """
    order = (Unit.submitted_at, Unit.job_id, Unit.position)  # as an index has them
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
