"""Arrays that units keep for the unit that combines them, read one at a time: hundreds of pictures' fit no memory."""

import io
from collections.abc import Iterator, Mapping

import numpy as np
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from occluscope.analyses.contract import Part
from occluscope.analyses.contract import Unit as PlannedUnit
from service.store.database import Database
from service.store.packing import KEPT_ARRAY
from service.store.states import UnitRole, UnitState
from service.store.tables import KeptArray, Unit


def kept_rows(unit_id: str, arrays: Mapping[str, bytes]) -> list[KeptArray]:
    """What a unit kept, by name, in NPZ format (see `service.store.packing`)."""
    return [KeptArray(unit_id=unit_id, name=name, array=array) for name, array in arrays.items()]


def kept_parts(database: Database, job_id: str, model: str) -> list[Part]:
    """What a model's units that succeeded kept, in the plan's order; each array is read when it is looked at."""
    query = (
        select(Unit.id, Unit.images, Unit.steps_total, Unit.payload)
        .where(
            Unit.job_id == job_id,
            Unit.model == model,
            Unit.role == UnitRole.WORK,
            Unit.state == UnitState.SUCCEEDED,
        )
        .order_by(Unit.position)
    )
    with database.reading() as session:
        units = session.execute(query).all()
    return [
        Part(PlannedUnit(tuple(images), steps, payload), _KeptArrays(database, unit_id))
        for unit_id, images, steps, payload in units
    ]


def forget_kept(session: Session, job_id: str) -> None:
    """Delete what the job's units kept."""
    units = select(Unit.id).where(Unit.job_id == job_id)
    session.execute(delete(KeptArray).where(KeptArray.unit_id.in_(units)))


class _KeptArrays(Mapping[str, np.ndarray]):
    """One unit's arrays by name."""

    def __init__(self, database: Database, unit_id: str) -> None:
        self._database, self._unit_id = database, unit_id

    def __getitem__(self, name: str) -> np.ndarray:
        query = select(KeptArray.array).where(KeptArray.unit_id == self._unit_id, KeptArray.name == name)
        with self._database.reading() as session:
            npz = session.scalar(query)
        if npz is None:
            raise KeyError(name)
        with np.load(io.BytesIO(npz), allow_pickle=False) as stored:
            return np.asarray(stored[KEPT_ARRAY])

    def __iter__(self) -> Iterator[str]:
        query = select(KeptArray.name).where(KeptArray.unit_id == self._unit_id).order_by(KeptArray.name)
        with self._database.reading() as session:
            return iter(session.scalars(query).all())

    def __len__(self) -> int:
        query = select(func.count()).select_from(KeptArray).where(KeptArray.unit_id == self._unit_id)
        with self._database.reading() as session:
            return session.scalar(query) or 0
