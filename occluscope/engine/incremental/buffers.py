"""The unoccluded picture's values, laid out so that one gather reads them together with a batch's rectangles."""

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
    """An unoccluded map as rows of channels, with room behind it for a batch's rectangles.

    One gather by index then reads both. low, high: pixels of fill around the map; fill: their value.
    room: pixels behind it, for the batch that needs most. layout: order of the map's axes.
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
    written: bool = False  # whether the running batch's rectangles stand behind the map already

    @property
    def map_rows(self) -> int:
        return self.padded[0] * self.padded[1]

    def make(self, value: Tensor) -> None:
        """Lay out the unoccluded map."""
        if self.layout == "nhwc":
            value = value.permute(0, 3, 1, 2)
        padded = functional.pad(value, (self.low[1], self.high[1], self.low[0], self.high[0]), value=self.fill)
        _, channels, height, width = padded.shape
        self.padded = (height, width)
        self.rows = padded.new_empty((height * width + self.room, channels))
        self.rows[: height * width] = padded.permute(0, 2, 3, 1).reshape(-1, channels)


class Kept:
    """The unoccluded picture's values, and the buffers that every plan over it shares. values: by step.

    A further picture of the same size may be filled in; plans made for the first hold for it too.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values
        self.is_filled = False
        self.buffers: dict[tuple[int, float], Buffer] = {}
        self._sums: dict[tuple[int, tuple[int, int]], Tensor] = {}

    def fill(self, values: Sequence[Any]) -> None:
        """Take over a picture's values, once all plans have said what they will read."""
        self.values = values
        self.is_filled = True
        self._sums.clear()
        for buffer in self.buffers.values():
            buffer.make(values[buffer.step])

    def empty(self) -> None:
        """Let the picture's values go; plans stay, and the next picture is filled in as any further one."""
        self.values = ()
        self.is_filled = False
        self._sums.clear()
        for buffer in self.buffers.values():
            buffer.rows = None

    def begin_batch(self) -> None:
        """Forget the rectangles of the batch before."""
        for buffer in self.buffers.values():
            buffer.written = False

    def sums_outside(self, step: int, size: tuple[int, int]) -> Tensor:
        """What a map adds up to outside a rectangle: float64 [top, left, channels], for each place where one can be."""
        if (step, size) not in self._sums:
            self._sums[step, size] = sums_outside(self.values[step][0].double(), size)
        return self._sums[step, size]


@dataclass
class Reading:
    """Where to read a map's changed values, pixel by pixel; tables [positions, count] along each axis.

    places: coordinate on the map (outside it: fill). rectangle: place within the rectangle, −1 outside it; none
    for a map without changes.
    """

    buffer: Buffer
    places: tuple[np.ndarray, np.ndarray]
    rectangle: tuple[np.ndarray, np.ndarray] | None
    tables: tuple[Tensor, ...] = ()
