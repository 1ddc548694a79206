"""Where windows change a map, and the rectangles that are computed for it."""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from occluscope.engine.incremental.intervals import Placement, Spans

Layout = Literal["nchw", "nhwc"]
WHOLE_FROM: Final = 0.65  # share of a map from which on computing all of it is cheaper than a rectangle


@dataclass(frozen=True)
class Axis:
    """One axis of a map: the changed span for each window position, and the computed interval.

    length: of the map. place: the computed intervals, which contain the spans.
    """

    spans: Spans
    place: Placement
    length: int

    @property
    def is_whole(self) -> bool:
        return self.place.size == self.length

    def coordinates(self) -> np.ndarray:
        """Coordinates of the computed intervals: int64 [positions, size]."""
        return self.place.offsets[:, None] + np.arange(self.place.size)

    def widened(self) -> "Axis":
        """The same changes, with the whole axis computed."""
        return Axis(self.spans, Placement.whole(len(self.spans.start), self.length), self.length)


@dataclass(frozen=True)
class Field:
    """A map's changes along both axes. layout: order of the map's axes in the network."""

    y: Axis
    x: Axis
    layout: Layout = "nchw"

    @classmethod
    def of(
        cls, y: Spans, x: Spans, lengths: tuple[int, int], layout: Layout = "nchw", *, whole: bool = False
    ) -> "Field":
        """Choose the rectangles: one size for all windows, or the whole map if that is cheaper.

        whole: choose the whole map, because its inputs are whole.
        """
        field = cls(Axis(y, y.uniform(lengths[0]), lengths[0]), Axis(x, x.uniform(lengths[1]), lengths[1]), layout)
        share = field.y.place.size * field.x.place.size / (lengths[0] * lengths[1])
        return field.widened() if whole or share > WHOLE_FROM else field

    @property
    def is_whole(self) -> bool:
        """Whether each rectangle is the whole map."""
        return self.y.is_whole and self.x.is_whole

    @property
    def lengths(self) -> tuple[int, int]:
        """Height and width of the map."""
        return self.y.length, self.x.length

    def widened(self) -> "Field":
        """The same changes, with the whole map computed."""
        return Field(self.y.widened(), self.x.widened(), self.layout)
