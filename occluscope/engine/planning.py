"""Deciding, before any window is run, what each step computes and where it reads: once a grid of windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from occluscope.engine.fields import Field
from occluscope.engine.intervals import Spans
from occluscope.engine.steps import Changed, Constant, Native, Picture, Planned, Run, Steady, Step
from occluscope.windows import WindowGrid

_CHANNELS: Final = {"nchw": 1, "nhwc": 3}


@dataclass
class Buffer:
    """An unoccluded map as rows of channels, with room behind it for a batch's rectangles.

    One gather by index then reads both. low, high: pixels of fill around the map; fill: their value.
    rows: float [padded height · padded width + room, channels], made when the plan is complete.
    """

    step: int
    fill: float
    low: list[int] = field(default_factory=lambda: [0, 0])
    high: list[int] = field(default_factory=lambda: [0, 0])
    rows: Tensor | None = None
    padded: tuple[int, int] = (0, 0)
    written: int = -1  # the batch whose rectangles stand behind the map

    @property
    def map_rows(self) -> int:
        return self.padded[0] * self.padded[1]


@dataclass
class Reading:
    """Where to read a map's changed values, pixel by pixel; tables [positions, count] along each axis.

    places: coordinate on the map (outside it: fill). rectangle: place within the rectangle, −1 outside it.
    """

    buffer: Buffer
    places: tuple[np.ndarray, np.ndarray]
    rectangle: tuple[np.ndarray, np.ndarray]
    tables: tuple[Tensor, ...] = ()


class Planner:
    """States of all steps for one grid of windows over one picture."""

    def __init__(self, steps: Sequence[Step], values: Sequence[Any], grid: WindowGrid) -> None:
        self.steps = steps
        self.values = values  # unoccluded, batch of one
        self.grid = grid
        self.states: list[Field | Changed | Steady] = []
        self.runs: list[Run | None] = []
        self.readings: list[Reading] = []
        self.buffers: dict[tuple[int, float], Buffer] = {}
        self.work = self.whole_work = 0  # multiplications in convolutions: of one window, and of a whole pass
        for index, step in enumerate(steps):
            planned = self._plan(index, step)
            self.states.append(planned.state)
            self.runs.append(None if isinstance(planned.state, Steady) else planned.run)

    def read(self, source: int, y: np.ndarray, x: np.ndarray, fill: float = 0.0) -> Run:
        """Read a step's map at the given coordinates.

        y, x: int64 [positions along the axis, count], on the map; outside it stands `fill`.
        The run gives [batch, channels, counts…] in the map's own layout.
        """
        state = self.states[source]
        lengths = self.lengths(source)
        if isinstance(state, Field) and _covers(state.y.coordinates(), y) and _covers(state.x.coordinates(), x):
            return lambda batch: batch.values[source]
        buffer = self.buffers.setdefault((source, fill), Buffer(source, fill))
        for axis, (coordinates, length) in enumerate(zip((y, x), lengths, strict=True)):
            buffer.low[axis] = max(buffer.low[axis], -int(coordinates.min()))
            buffer.high[axis] = max(buffer.high[axis], int(coordinates.max()) + 1 - length)
        if isinstance(state, Field):
            rectangle = (_within(state.y.place, y), _within(state.x.place, x))
        else:
            rectangle = (np.full_like(y, -1), np.full_like(x, -1))
        reading = Reading(buffer, (y, x), rectangle)
        self.readings.append(reading)
        layout = state.layout if isinstance(state, Field) else "nchw"
        return lambda batch: batch.gather(reading, layout)

    def read_field(self, source: int, place: Field) -> Run:
        """Read a step's map where another map's rectangles lie."""
        return self.read(source, place.y.coordinates(), place.x.coordinates())

    def lengths(self, index: int) -> tuple[int, int]:
        """Height and width of a step's map."""
        state = self.states[index]
        if isinstance(state, Field):
            return state.lengths
        height, width = self.values[index].shape[-2:]
        return int(height), int(width)

    def complete(self, room: int) -> None:
        """Make the buffers, with room for a batch of so many windows, and put the tables onto the device."""
        for buffer in self.buffers.values():
            self._fill(buffer, room)
        for reading in self.readings:
            device = reading.buffer.rows.device if reading.buffer.rows is not None else None
            low_y, low_x = reading.buffer.low
            y, x = reading.places
            tables = (y + low_y, x + low_x, *reading.rectangle)
            reading.tables = tuple(torch.from_numpy(np.ascontiguousarray(table)).to(device) for table in tables)

    def _fill(self, buffer: Buffer, room: int) -> None:
        state, value = self.states[buffer.step], self.values[buffer.step]
        if isinstance(state, Field) and state.layout == "nhwc":
            value = value.permute(0, 3, 1, 2)
        padded = functional.pad(
            value, (buffer.low[1], buffer.high[1], buffer.low[0], buffer.high[0]), value=buffer.fill
        )
        _, channels, height, width = padded.shape
        buffer.padded = (height, width)
        behind = room * state.y.place.size * state.x.place.size if isinstance(state, Field) else 0
        buffer.rows = padded.new_empty((height * width + behind, channels))
        buffer.rows[: height * width] = padded.permute(0, 2, 3, 1).reshape(-1, channels)

    def _plan(self, index: int, step: Step) -> Planned:
        if isinstance(step.operation, Picture):
            return self._plan_picture()
        inputs = [self.states[source] for source in step.inputs]
        if isinstance(step.operation, Constant) or (inputs and all(isinstance(state, Steady) for state in inputs)):
            return Planned(Steady(), lambda batch: batch.values[index])
        planned = None if isinstance(step.operation, Native) else step.operation.plan(self, step.inputs)
        return planned or Planned(Changed(), self._run_whole(step))

    def _plan_picture(self) -> Planned:
        height, width = self.values[0].shape[-2:]
        y = Spans.of_windows(self.grid.origins_y, self.grid.window[0])
        x = Spans.of_windows(self.grid.origins_x, self.grid.window[1])
        return Planned(Field.of(y, x, (int(height), int(width))), lambda batch: batch.values[0])

    def _run_whole(self, step: Step) -> Run:
        reads = [self.whole(source) for source in step.inputs]
        operation = step.operation
        return lambda batch: operation.whole(*(read(batch) for read in reads))

    def whole(self, source: int) -> Run:
        """Read a step's whole value."""
        state = self.states[source]
        if isinstance(state, Field) and not state.is_whole:
            return self.read_field(source, state.widened())
        return lambda batch: batch.values[source]


def _covers(have: np.ndarray, wanted: np.ndarray) -> bool:
    return np.array_equal(have, wanted)


def _within(place: Any, coordinates: np.ndarray) -> np.ndarray:
    inside = coordinates - place.offsets[:, None]
    return np.where((inside >= 0) & (inside < place.size), inside, -1)
