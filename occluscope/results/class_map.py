"""class_map: a 2-D map of class indices with their labels."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from occluscope.results.grid import GridGeometry
from occluscope.results.kind import Json, Packed, Result


@dataclass(frozen=True)
class ClassMap(Result):
    """A class for every cell of a grid.

    classes: int32 [rows, columns], class indices.
    labels: the label of each index that occurs.
    geometry: where the cells lie.
    caption: what the map shows, in words.
    """

    kind: ClassVar[str] = "class_map"
    formats: ClassVar[tuple[str, ...]] = ("png", "npy", "json", "csv")
    on_picture: ClassVar[bool] = True

    classes: np.ndarray
    labels: dict[int, str]
    geometry: GridGeometry
    caption: str

    def pack(self) -> Packed:
        labels = {str(index): label for index, label in self.labels.items()}
        meta = {"geometry": self.geometry.to_json(), "labels": labels, "caption": self.caption}
        return Packed(meta, self.classes)

    @classmethod
    def unpack(cls, packed: Packed) -> Self:
        assert packed.array is not None  # noqa: S101 - the store keeps both halves in one row
        labels = {int(index): label for index, label in packed.meta["labels"].items()}
        geometry = GridGeometry.from_json(packed.meta["geometry"])
        return cls(packed.array, labels, geometry, packed.meta["caption"])

    def to_json(self) -> Json:
        return {"kind": self.kind, **self.pack().meta, "classes": self.classes.tolist()}

    def to_csv(self) -> str:
        return "\n".join(["y,x,class", *self.geometry.csv_rows(self.classes)]) + "\n"

    def by_frequency(self) -> list[int]:
        """The class indices in the map, the most frequent first."""
        indices, counts = np.unique(self.classes, return_counts=True)
        return [int(index) for index in indices[np.argsort(-counts, kind="stable")]]
