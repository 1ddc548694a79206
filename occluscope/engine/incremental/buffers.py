"""The unoccluded picture's values, laid out so that one gather reads them and a batch's rectangles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from occluscope.engine.incremental.fields import Layout
from occluscope.engine.incremental.sums import sums_outside


@dataclass
class Buffer:
    """An unoccluded map as rows of channels, followed by room for a batch's rectangles.

    One gather by index reads both. low, high: pixels of padding around the map. fill: their value.
    room: pixels after the map, for the largest batch. layout: order of the map's axes.
    rows: float [padded height · padded width + room, channels], made when all plans are complete.
    """

    step: int
    fill: float
    layout: Layout
    low: list[int] = field(default_factory=lambda: [0, 0])
    high: list[int] = field(default_factory=lambda: [0, 0])
    room: int = 0
    rows: Tensor | None = None
    padded: tuple[int, int] = (0, 0)
    written: bool = False  # whether the current batch's rectangles are written

    @property
    def map_rows(self) -> int:
        return self.padded[0] * self.padded[1]

    def make(self, value: Tensor) -> None:
        """Write the unoccluded map into the buffer."""
        if self.layout == "nhwc":
            value = value.permute(0, 3, 1, 2)
        padded = functional.pad(value, (self.low[1], self.high[1], self.low[0], self.high[0]), value=self.fill)
        _, channels, height, width = padded.shape
        self.padded = (height, width)
        self.rows = padded.new_empty((height * width + self.room, channels))
        self.rows[: height * width] = padded.permute(0, 2, 3, 1).reshape(-1, channels)


class PictureValues:
    """The unoccluded picture's values, and the buffers that all plans share. values: by step.

    Another picture of the same size can replace it; the plans stay valid.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values
        self.is_filled = False
        self.buffers: dict[tuple[int, float], Buffer] = {}
        self._sums: dict[tuple[int, tuple[int, int]], Tensor] = {}

    def fill(self, values: Sequence[Any]) -> None:
        """Set a picture's values, after all plans have reserved what they read."""
        self.values = values
        self.is_filled = True
        self._sums.clear()
        for buffer in self.buffers.values():
            buffer.make(values[buffer.step])

    def empty(self) -> None:
        """Free the picture's values. The plans stay, and the next picture can be set."""
        self.values = ()
        self.is_filled = False
        self._sums.clear()
        for buffer in self.buffers.values():
            buffer.rows = None

    def begin_batch(self) -> None:
        """Discard the rectangles of the previous batch."""
        for buffer in self.buffers.values():
            buffer.written = False

    def sums_outside(self, step: int, size: tuple[int, int]) -> Tensor:
        """Sums of a map outside a rectangle: float64 [top, left, channels], for each position of the rectangle."""
        if (step, size) not in self._sums:
            self._sums[step, size] = sums_outside(self.values[step][0].double(), size)
        return self._sums[step, size]


@dataclass
class Reading:
    """Where to read a map's changed values, as tables [positions, count] along each axis.

    places: coordinates on the map; outside the map is fill. rectangle: coordinates within the rectangle, −1 outside it;
    None for a map without changes.
    """

    buffer: Buffer
    places: tuple[np.ndarray, np.ndarray]
    rectangle: tuple[np.ndarray, np.ndarray] | None
    tables: tuple[Tensor, ...] = ()
