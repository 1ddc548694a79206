"""What units gave before their end: stored already, and shown to nobody until the unit has succeeded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, delete, or_, select
from sqlalchemy.orm import Session

from occluscope.results import Metric as GivenMetric
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


def is_shown(table: type[Artifact] | type[Metric]) -> ColumnElement[bool]:
    """Whether a row is for readers: a preview, or of a unit that has succeeded. The query joins `Unit`."""
    succeeded = Unit.state == UnitState.SUCCEEDED
    return or_(Artifact.preview, succeeded) if table is Artifact else succeeded


def forget_given(session: Session, of: ColumnElement[bool]) -> None:
    """Delete what units gave that did not succeed, previews excepted. of: which units, as a condition on `Unit`."""
    units = select(Unit.id).where(of)
    for rows in (
        delete(Artifact).where(Artifact.unit_id.in_(units), ~Artifact.preview),
        delete(Metric).where(Metric.unit_id.in_(units)),
    ):
        session.execute(rows.execution_options(synchronize_session=False))
