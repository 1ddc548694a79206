"""heatmap: a 2-D map of float32 numbers with its geometry."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from occluscope.results.grid import GridGeometry
from occluscope.results.kind import Json, Packed, Result, shortest
from occluscope.results.rows import as_csv


@dataclass(frozen=True)
class Heatmap(Result):
    """A number for every cell of a grid.

    values: float32 [rows, columns], NaN where nothing was measured.
    geometry: where the cells lie.
    unit: of the values (``probability``).
    caption: the quantity in words, with its class.
    """

    kind: ClassVar[str] = "heatmap"
    formats: ClassVar[tuple[str, ...]] = ("png", "npy", "json", "csv")
    on_picture: ClassVar[bool] = True

    values: np.ndarray
    geometry: GridGeometry
    unit: str
    caption: str

    def pack(self) -> Packed:
        meta = {"geometry": self.geometry.to_json(), "unit": self.unit, "caption": self.caption}
        return Packed(meta, self.values)

    @classmethod
    def unpack(cls, packed: Packed) -> Self:
        assert packed.array is not None  # noqa: S101 - the store keeps both halves in one row
        geometry = GridGeometry.from_json(packed.meta["geometry"])
        return cls(packed.array, geometry, packed.meta["unit"], packed.meta["caption"])

    def to_json(self) -> Json:
        return {"kind": self.kind, **self.pack().meta, "values": shortest(self.values)}

    def to_csv(self) -> str:
        return "\n".join([as_csv(["y", "x", self.unit], []).rstrip("\n"), *self.geometry.csv_rows(self.values), ""])
