"""Operations that move pixels without computing: padding, and reading a map's shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from occluscope.engine.incremental.fields import Axis, Field
from occluscope.engine.incremental.intervals import Spans
from occluscope.engine.incremental.planning import Planner
from occluscope.engine.incremental.steps import Changed, Operation, Planned


class Same(Operation):
    """Returns its input (dropout in eval mode). It is removed from the network before planning."""

    def whole(self, *values: Any) -> Any:
        return values[0]


@dataclass
class Padding(Operation):
    """A constant around a map. widths: pixels (top, bottom, left, right)."""

    widths: tuple[int, int, int, int]
    value: float

    def whole(self, *values: Any) -> Tensor:
        top, bottom, left, right = self.widths
        return functional.pad(values[0], (left, right, top, bottom), value=self.value)

    def plan(self, planner: Planner, inputs: tuple[int, ...]) -> Planned | None:
        source = planner.states[inputs[0]]
        if not isinstance(source, Field) or source.layout != "nchw":
            return None
        top, bottom, left, right = self.widths
        y, x = _moved(source.y.spans, top), _moved(source.x.spans, left)
        lengths = (source.y.length + top + bottom, source.x.length + left + right)
        field = planner.field(y, x, lengths, whole=source.is_whole)
        read = planner.read(inputs[0], _places(field.y, top), _places(field.x, left), fill=self.value)
        return Planned(field, read)


@dataclass
class Shape(Operation):
    """A tensor's size, or its length along one axis: of the whole map, also if only a rectangle is computed."""

    axis: int | None

    def whole(self, *values: Any) -> Any:
        return values[0].size() if self.axis is None else values[0].size(self.axis)

    def plan(self, planner: Planner, inputs: tuple[int, ...]) -> Planned | None:
        if not isinstance(planner.states[inputs[0]], Field):
            return None
        rest = planner.values[inputs[0]].shape[1:]

        def run(batch: Any) -> Any:
            shape = torch.Size((len(batch), *rest))
            return shape if self.axis is None else shape[self.axis]

        return Planned(Changed(), run)


def _moved(spans: Spans, by: int) -> Spans:
    return Spans(spans.start + by, spans.stop + by)


def _places(axis: Axis, low: int) -> np.ndarray:
    return axis.coordinates() - low
