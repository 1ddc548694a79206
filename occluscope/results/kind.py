"""What every kind of result can do, and how one is named."""

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from occluscope.results.variant import ONLY, Variant

Json = dict[str, Any]


@dataclass(frozen=True)
class Packed:
    """A result as it is stored: small facts as JSON, numbers as one array (none for kinds that have no array)."""

    meta: Json
    array: np.ndarray | None = None


class Result(ABC):
    """One result of one unit, of one kind."""

    kind: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]  # downloads that this kind offers, the first is the default
    on_picture: ClassVar[bool] = False  # whether it can be laid over its picture

    @abstractmethod
    def pack(self) -> Packed:
        """Split into what the store keeps."""

    @classmethod
    @abstractmethod
    def unpack(cls, packed: Packed) -> Self:
        """Rebuild, equal bit for bit."""

    @abstractmethod
    def to_json(self) -> Json:
        """The whole result, numbers included; NaN (nothing measured there) as null."""

    @abstractmethod
    def to_csv(self) -> str:
        """The whole result as rows under one header line."""

    def to_npy(self) -> bytes:
        """The array alone in NumPy's NPY format."""
        array = self.pack().array
        if array is None:
            raise TypeError(f"a {self.kind} has no array")
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        return buffer.getvalue()


@dataclass(frozen=True)
class NamedResult:
    """A result under the name its analysis gave it.

    image: the id of the picture it belongs to, if to one.
    variant: which of several of this name.
    """

    name: str
    result: Result
    image: str | None = None
    variant: Variant = ONLY


@dataclass(frozen=True)
class Metric:
    """One number. unit: ``probability``, ``px``, ``s``, … or none where it has no unit; the rest as `NamedResult`."""

    name: str
    value: float
    unit: str | None = None
    image: str | None = None
    variant: Variant = ONLY


def shortest(values: np.ndarray) -> list[list[Any]]:
    """Nested lists whose decimals are the shortest that give the same float32 back; NaN as None."""
    shortest = values.astype(str).astype(object)
    flat = [None if text == "nan" else float(text) for text in shortest.ravel()]
    columns = values.shape[1]
    return [flat[start : start + columns] for start in range(0, len(flat), columns)]
