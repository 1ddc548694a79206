"""The base of all kinds of results, and a result with its name."""

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from occluscope.results.variant import ONLY, Variant

Json = dict[str, Any]


@dataclass(frozen=True)
class Packed:
    """A result as it is stored: small facts as JSON, and the numbers as one array (None for kinds without an array)."""

    meta: Json
    array: np.ndarray | None = None


class Result(ABC):
    """A result of a unit."""

    kind: ClassVar[str]
    formats: ClassVar[tuple[str, ...]]  # formats for download; the first is the default
    on_picture: ClassVar[bool] = False  # whether it can be drawn over its picture

    @abstractmethod
    def pack(self) -> Packed:
        """The result in the form that is stored."""

    @classmethod
    @abstractmethod
    def unpack(cls, packed: Packed) -> Self:
        """Rebuild, equal bit for bit."""

    @abstractmethod
    def to_json(self) -> Json:
        """The whole result with its numbers; NaN (nothing was measured) becomes null."""

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
    """A result with the name that its analysis gives it.

    image: the id of its picture; None for a result of several pictures.
    variant: distinguishes several results of one name.
    """

    name: str
    result: Result
    image: str | None = None
    variant: Variant = ONLY


@dataclass(frozen=True)
class Metric:
    """A number. unit: ``probability``, ``px``, ``s``, …; None if it has none. image, variant: as for `NamedResult`."""

    name: str
    value: float
    unit: str | None = None
    image: str | None = None
    variant: Variant = ONLY


def shortest(values: np.ndarray) -> list[list[Any]]:
    """Nested lists of numbers with as few decimals as the float32 values need; NaN becomes None."""
    shortest = values.astype(str).astype(object)
    flat = [None if text == "nan" else float(text) for text in shortest.ravel()]
    columns = values.shape[1]
    return [flat[start : start + columns] for start in range(0, len(flat), columns)]
