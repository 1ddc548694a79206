"""What units gave before their end: stored already, and shown to nobody until the unit has succeeded.

If a unit ends otherwise or waits again, that is one small change, and what it gave stays hidden. A portion of it is
deleted with that change. The rest is deleted later in portions: under the unit's next claim, or by the reconciler.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import Session

from occluscope.results import Metric as GivenMetric
from service.store.locks import share_job
from service.store.packing import PackedResult
from service.store.states import UnitState
from service.store.tables import Artifact, Metric, Unit


@dataclass(frozen=True)
class Given:
    """How much a unit has given before its end: results and metrics, and the results' bytes."""

    results: int = 0
    metrics: int = 0
    stored_bytes: int = 0

    def plus(self, results: Sequence[PackedResult], metrics: Sequence[GivenMetric]) -> "Given":
        """With these after it."""
        return Given(
            self.results + len(results),
            self.metrics + len(metrics),
            self.stored_bytes + sum(packed.stored_bytes for packed in results),
        )


NOTHING: Final = Given()
# Of results or metrics that are deleted in one transaction: other writers wait for its end on SQLite.
_PORTION_ROWS: Final = 1000
_PORTION_BYTES: Final = 16 * 2**20


def is_shown(table: type[Artifact] | type[Metric]) -> ColumnElement[bool]:
    """Whether a row is for readers: a preview, or of a unit that has succeeded. The query joins `Unit`."""
    succeeded = Unit.state == UnitState.SUCCEEDED
    return or_(Artifact.preview, succeeded) if table is Artifact else succeeded


def forget_given(session: Session, of: ColumnElement[bool]) -> bool:
    """Delete a portion of what units gave that have not succeeded, previews excepted; whether nothing is left.

    What is left stays hidden. of: which units, as a condition on `Unit`; nobody else may write under them meanwhile.
    """
    units = select(Unit.id).where(of)
    size = func.coalesce(func.length(Artifact.array), 0)
    results = select(Artifact.id, size).where(Artifact.unit_id.in_(units), ~Artifact.preview).limit(_PORTION_ROWS)
    left_bytes, chosen = _PORTION_BYTES, []
    for artifact_id, its_bytes in session.execute(results).all():
        if left_bytes <= 0:
            break
        chosen.append(artifact_id)
        left_bytes -= its_bytes
    metrics = select(Metric.id).where(Metric.unit_id.in_(units)).limit(_PORTION_ROWS)
    numbers = session.scalars(metrics).all() if left_bytes > 0 and len(chosen) < _PORTION_ROWS else []
    for rows in (delete(Artifact).where(Artifact.id.in_(chosen)), delete(Metric).where(Metric.id.in_(numbers))):
        session.execute(rows.execution_options(synchronize_session=False))
    is_all = left_bytes > 0 and len(chosen) < _PORTION_ROWS and len(numbers) < _PORTION_ROWS
    if is_all:
        forgotten = update(Unit).where(of, Unit.has_given).values(has_given=False)
        session.execute(forgotten.execution_options(synchronize_session=False))
    return is_all


def forget_of_ended(session: Session) -> bool:
    """Delete a portion of what a unit gave that has failed or was cancelled; false when there is no such unit.

    What a unit gave that waits again is deleted under its next claim.
    """
    over = (Unit.has_given, Unit.state.in_((UnitState.FAILED, UnitState.CANCELLED)))
    found = session.execute(select(Unit.id, Unit.job_id).where(*over).limit(1)).one_or_none()
    if found is None or not share_job(session, found.job_id):
        return False
    unit = select(Unit.id).where(Unit.id == found.id, *over).with_for_update(key_share=True, skip_locked=True)
    if session.scalar(unit) is None:  # another reconciler is at it
        return False
    forget_given(session, Unit.id == found.id)
    return True
