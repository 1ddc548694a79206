"""matrix: a 2-D array of numbers with named rows."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from occluscope.results.kind import Json, Packed, Result, shortest
from occluscope.results.rows import as_csv


@dataclass(frozen=True)
class Matrix(Result):
    """A number for every row and column.

    values: float32 [rows, columns]; a shorter row is filled up with NaN. rows: names. columns: the columns' quantity.
    unit: of the values; None if they have none. caption: the quantity in words.
    """

    kind: ClassVar[str] = "matrix"
    formats: ClassVar[tuple[str, ...]] = ("png", "npy", "json", "csv")

    values: np.ndarray
    rows: tuple[str, ...]
    columns: str
    unit: str | None
    caption: str

    def pack(self) -> Packed:
        meta = {"rows": list(self.rows), "columns": self.columns, "unit": self.unit, "caption": self.caption}
        return Packed(meta, self.values)

    @classmethod
    def unpack(cls, packed: Packed) -> Self:
        assert packed.array is not None  # noqa: S101 - the store keeps both halves in one row
        meta = packed.meta
        return cls(packed.array, tuple(meta["rows"]), meta["columns"], meta["unit"], meta["caption"])

    def to_json(self) -> Json:
        return {"kind": self.kind, **self.pack().meta, "values": shortest(self.values)}

    def to_csv(self) -> str:
        """One line for each row."""
        rows = zip(self.rows, shortest(self.values), strict=True)
        return as_csv(["row", *range(self.values.shape[1])], ([name, *values] for name, values in rows))
