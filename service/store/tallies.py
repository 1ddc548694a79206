"""Tallies: counts that only grow, kept when the rows they counted are deleted.

They are collected while a transaction runs and written at its end, in a fixed order. So the lock of a row that every
worker writes is held only briefly, and no two transactions deadlock.
"""

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.store.tables import Tally
from service.store.upsert import insert_adding

_GATHERED = "tallies"


@dataclass
class Counted:
    """A count and a total."""

    count: int = 0
    total: float = 0.0


def tally(
    session: Session, name: str, analysis: str = "", model: str = "", *, count: int = 1, total: float = 0
) -> None:
    """Count something when this transaction commits. total: added to the total, such as seconds."""
    gathered: dict[tuple[str, str, str], Counted] = session.info.setdefault(_GATHERED, defaultdict(Counted))
    counted = gathered[name, analysis, model]
    counted.count += count
    counted.total += total


def write_tallies(session: Session) -> None:
    """Write what was collected."""
    gathered: dict[tuple[str, str, str], Counted] = session.info.pop(_GATHERED, {})
    for (name, analysis, model), counted in sorted(gathered.items()):
        key = {"name": name, "analysis": analysis, "model": model}
        insert_adding(session, Tally, key, {"count": counted.count, "total": counted.total})


def next_number(session: Session, name: str) -> int:
    """Count something now and return its number, from 1. Others wait for theirs until this transaction ends."""
    key = {"name": name, "analysis": "", "model": ""}
    insert_adding(session, Tally, key, {"count": 1, "total": 0})
    return session.scalars(select(Tally.count).filter_by(**key)).one()


def all_tallies(session: Session) -> dict[tuple[str, str, str], Counted]:
    """Everything counted so far, by name, analysis and model."""
    rows = session.scalars(select(Tally).order_by(Tally.name, Tally.analysis, Tally.model))
    return {(row.name, row.analysis, row.model): Counted(row.count, row.total) for row in rows}
