"""Arrays that units keep for later stages. They are read one at a time, since all of them may not fit in memory."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, overload

import numpy as np
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from occluscope.analyses.contract import Before, Part
from occluscope.analyses.contract import Unit as PlannedUnit
from service.store.packing import KEPT_ARRAY
from service.store.states import UnitState
from service.store.tables import KeptArray, Unit

Reading = Callable[[], AbstractContextManager[Session]]

_PAGE: Final = 500  # parts read in one query


def kept_rows(unit_id: str, arrays: Mapping[str, bytes]) -> list[KeptArray]:
    """What a unit kept, by name, in NPZ format (see `service.store.packing`)."""
    return [KeptArray(unit_id=unit_id, name=name, array=array) for name, array in arrays.items()]


def kept_before(reading: Reading, job_id: str, model: str, stages: Sequence[str]) -> Before:
    """What a model's units of these stages kept. Parts are read in portions, and each array when it is accessed.

    reading: opens a session for each access.
    """
    return {stage: KeptParts(reading, job_id, model, stage) for stage in stages}


def forget_kept(session: Session, job_id: str) -> None:
    """Delete what the job's units kept."""
    units = select(Unit.id).where(Unit.job_id == job_id)
    session.execute(delete(KeptArray).where(KeptArray.unit_id.in_(units)))


class KeptParts(Sequence[Part]):
    """A stage's units that succeeded, in the plan's order."""

    def __init__(self, reading: Reading, job_id: str, model: str, stage: str) -> None:
        self._reading = reading
        self._wanted = (
            Unit.job_id == job_id,
            Unit.model == model,
            Unit.stage == stage,
            Unit.state == UnitState.SUCCEEDED,
        )

    @overload
    def __getitem__(self, place: int) -> Part: ...

    @overload
    def __getitem__(self, place: slice) -> list[Part]: ...

    def __getitem__(self, place: int | slice) -> Part | list[Part]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        found = self._page(place if place >= 0 else len(self) + place, 1)
        if not found:
            raise IndexError(place)
        return found[0]

    def __iter__(self) -> Iterator[Part]:
        start = 0
        while page := self._page(start, _PAGE):
            yield from page
            start += len(page)

    def __len__(self) -> int:
        with self._reading() as session:
            return session.scalar(select(func.count()).select_from(Unit).where(*self._wanted)) or 0

    def _page(self, start: int, most: int) -> list[Part]:
        query = select(Unit.id, Unit.images, Unit.steps_total, Unit.payload).where(*self._wanted)
        with self._reading() as session:
            rows: Sequence[Any] = session.execute(query.order_by(Unit.position).limit(most).offset(start)).all()
        return [
            Part(PlannedUnit(tuple(images), steps, payload), _KeptArrays(self._reading, unit_id))
            for unit_id, images, steps, payload in rows
        ]


class _KeptArrays(Mapping[str, np.ndarray]):
    """One unit's arrays by name."""

    def __init__(self, reading: Reading, unit_id: str) -> None:
        self._reading, self._unit_id = reading, unit_id

    def __getitem__(self, name: str) -> np.ndarray:
        query = select(KeptArray.array).where(KeptArray.unit_id == self._unit_id, KeptArray.name == name)
        with self._reading() as session:
            npz = session.scalar(query)
        if npz is None:
            raise KeyError(name)
        with np.load(io.BytesIO(npz), allow_pickle=False) as stored:
            return np.asarray(stored[KEPT_ARRAY])

    def __iter__(self) -> Iterator[str]:
        query = select(KeptArray.name).where(KeptArray.unit_id == self._unit_id).order_by(KeptArray.name)
        with self._reading() as session:
            return iter(session.scalars(query).all())

    def __len__(self) -> int:
        query = select(func.count()).select_from(KeptArray).where(KeptArray.unit_id == self._unit_id)
        with self._reading() as session:
            return session.scalar(query) or 0
