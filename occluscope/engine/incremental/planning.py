"""Plans, once for each grid of windows, what each step computes and where it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from occluscope.engine.incremental.buffers import Buffer, PictureValues, Reading
from occluscope.engine.incremental.fields import Field, Layout
from occluscope.engine.incremental.intervals import Spans
from occluscope.engine.incremental.steps import Changed, Constant, Input, Native, Planned, Run, Steady, Step
from occluscope.windows import WindowGrid


class Planner:
    """States of all steps for one grid of windows over one picture.

    capacity: most windows in one batch. margin: how far outside its window a change is followed, pixels of the
    picture; None for all of it. Pixels farther away keep their unoccluded value, which is approximate.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        picture_values: PictureValues,
        grid: WindowGrid,
        capacity: int,
        margin: int | None = None,
    ) -> None:
        self.steps = steps
        self.picture_values = picture_values
        self.values = picture_values.values  # of the picture at planning: read for shapes and constants only
        self.grid = grid
        self._capacity = capacity
        self._margin = margin
        self.states: list[Field | Changed | Steady] = []
        self.runs: list[Run | None] = []
        self.readings: list[Reading] = []
        self.work = self.whole_work = 0  # multiplications on maps: for one window, and for a whole pass
        for index, step in enumerate(steps):
            planned = self._plan(index, step)
            self.states.append(planned.state)
            self.runs.append(None if isinstance(planned.state, Steady) else planned.run)

    def field(
        self, y: Spans, x: Spans, lengths: tuple[int, int], layout: Layout = "nchw", *, whole: bool = False
    ) -> Field:
        """Rectangles for a map's changes (see `Field.of`), clipped to the margin."""
        return Field.of(
            self._near(y, self.grid.origins_y, 0, lengths[0]),
            self._near(x, self.grid.origins_x, 1, lengths[1]),
            lengths,
            layout,
            whole=whole,
        )

    def _near(self, spans: Spans, origins: tuple[int, ...], axis: int, length: int) -> Spans:
        """The spans, on a map's axis of this length, clipped to the margin around the windows."""
        if self._margin is None:
            return spans
        scale = length / self.values[0].shape[2 + axis]
        start = np.asarray(origins)
        low = np.floor((start - self._margin) * scale).astype(np.int64)
        high = np.ceil((start + self.grid.window[axis] + self._margin) * scale).astype(np.int64)
        return Spans(np.maximum(spans.start, low), np.minimum(spans.stop, high))

    def read(self, source: int, y: np.ndarray, x: np.ndarray, fill: float = 0.0) -> Run:
        """Read a step's map at the given coordinates.

        y, x: int64 [positions along the axis, count], on the map; outside the map the value is `fill`.
        A batch then reads [batch, channels, counts…] in the map's own layout.
        """
        state = self.states[source]
        lengths = self.lengths(source)
        if isinstance(state, Field) and _covers(state.y.coordinates(), y) and _covers(state.x.coordinates(), x):
            return lambda batch: batch.values[source]
        layout = state.layout if isinstance(state, Field) else "nchw"
        buffer = self.picture_values.buffers.setdefault((source, fill), Buffer(source, fill, layout))
        for axis, (coordinates, length) in enumerate(zip((y, x), lengths, strict=True)):
            buffer.low[axis] = max(buffer.low[axis], -int(coordinates.min()))
            buffer.high[axis] = max(buffer.high[axis], int(coordinates.max()) + 1 - length)
        rectangle = None
        if isinstance(state, Field):
            rectangle = (_within(state.y.place, y), _within(state.x.place, x))
            buffer.room = max(buffer.room, self._capacity * state.y.place.size * state.x.place.size)
        reading = Reading(buffer, (y, x), rectangle)
        self.readings.append(reading)
        return lambda batch: batch.gather(reading)

    def read_field(self, source: int, place: Field) -> Run:
        """Read a step's map at another map's rectangles."""
        return self.read(source, place.y.coordinates(), place.x.coordinates())

    def lengths(self, index: int) -> tuple[int, int]:
        """Height and width of a step's map."""
        state = self.states[index]
        if isinstance(state, Field):
            return state.lengths
        height, width = self.values[index].shape[-2:]
        return int(height), int(width)

    def complete(self, device: torch.device) -> None:
        """Move the tables to the device, after all plans over the picture are made."""
        self.values = ()  # plans are used for later pictures, and must not keep the values of this one
        for reading in self.readings:
            low_y, low_x = reading.buffer.low
            y, x = reading.places
            tables = (y + low_y, x + low_x, *(reading.rectangle or ()))
            reading.tables = tuple(torch.from_numpy(np.ascontiguousarray(table)).to(device) for table in tables)

    def _plan(self, index: int, step: Step) -> Planned:
        if isinstance(step.operation, Input):
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
        return Planned(self.field(y, x, (int(height), int(width))), lambda batch: batch.values[0])

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
