"""curves: named series of numbers over one axis."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from occluscope.results.image import as_base64, from_base64
from occluscope.results.kind import Json, Packed, Result
from occluscope.results.rows import as_csv


@dataclass(frozen=True)
class Series:
    """One curve. values: float [points], NaN where nothing was measured. unit: of the values; None if they have none.

    low, high: a band around the curve, float [points]; None if there is no band.
    """

    name: str
    values: np.ndarray
    unit: str | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    def rows(self) -> list[tuple[str, np.ndarray]]:
        """The curve and its band as columns with names."""
        rows = [(self.name, self.values)]
        if self.low is not None and self.high is not None:
            rows += [(f"{self.name}, low", self.low), (f"{self.name}, high", self.high)]
        return rows


@dataclass(frozen=True)
class Strip:
    """Pictures for points of an axis. places: the points, ascending. pictures: uint8 [places, height, width, 3]."""

    places: tuple[float, ...]
    pictures: np.ndarray

    def to_json(self) -> Json:
        """The pictures side by side, as one PNG in base64."""
        return {"places": list(self.places), "png": as_base64(np.concatenate(list(self.pictures), axis=1))}

    @classmethod
    def from_json(cls, content: Json) -> Self:
        """Rebuild from `to_json`."""
        beside = from_base64(content["png"])
        return cls(tuple(content["places"]), np.stack(np.split(beside, len(content["places"]), axis=1)))


@dataclass(frozen=True)
class Curves(Result):
    """Series over one axis.

    axis: float [points]. axis_name, axis_unit: its quantity. caption: what the curves show, in words.
    labels: names of the points, if the axis has no quantity; the axis is then 0, 1, 2, …
    strip: pictures for some points.
    """

    kind: ClassVar[str] = "curves"
    formats: ClassVar[tuple[str, ...]] = ("png", "npy", "json", "csv")

    axis: np.ndarray
    axis_name: str
    axis_unit: str | None
    series: tuple[Series, ...]
    caption: str
    labels: tuple[str, ...] | None = None
    strip: Strip | None = None

    def pack(self) -> Packed:
        """The array is float64 [1 + rows, points]: the axis, then every series with its band."""
        meta = {
            "axis": {"name": self.axis_name, "unit": self.axis_unit, "labels": self.labels},
            "series": [{"name": one.name, "unit": one.unit, "band": one.low is not None} for one in self.series],
            "caption": self.caption,
            "strip": self.strip and self.strip.to_json(),
        }
        rows = [self.axis, *(values for one in self.series for _, values in one.rows())]
        return Packed(meta, np.stack([np.asarray(row, dtype=np.float64) for row in rows]))

    @classmethod
    def unpack(cls, packed: Packed) -> Self:
        assert packed.array is not None  # noqa: S101 - the store keeps both halves in one row
        meta, rows = packed.meta, iter(packed.array)
        axis = next(rows)
        series = tuple(
            Series(one["name"], next(rows), one["unit"], *((next(rows), next(rows)) if one["band"] else ()))
            for one in meta["series"]
        )
        labels = meta["axis"].get("labels")
        names = None if labels is None else tuple(labels)
        strip = Strip.from_json(meta["strip"]) if meta.get("strip") else None
        return cls(axis, meta["axis"]["name"], meta["axis"]["unit"], series, meta["caption"], names, strip)

    def to_json(self) -> Json:
        series = [
            {
                "name": one.name,
                "unit": one.unit,
                "values": _numbers(one.values),
                "low": None if one.low is None else _numbers(one.low),
                "high": None if one.high is None else _numbers(one.high),
            }
            for one in self.series
        ]
        places = _numbers(self.axis)
        axis = {"name": self.axis_name, "unit": self.axis_unit, "values": places, "labels": self.labels}
        strip = self.strip and self.strip.to_json()
        return {"kind": self.kind, "axis": axis, "series": series, "caption": self.caption, "strip": strip}

    def to_csv(self) -> str:
        columns = [row for one in self.series for row in one.rows()]
        axis = self.labels or _numbers(self.axis)
        rows = zip(axis, *(_numbers(values) for _, values in columns), strict=True)
        return as_csv([self.axis_name, *(name for name, _ in columns)], rows)


def _numbers(values: np.ndarray) -> list[Any]:
    return [None if np.isnan(value) else float(value) for value in values]
