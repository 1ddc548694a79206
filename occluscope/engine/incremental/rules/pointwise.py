"""Operations that compute each pixel independently: activations, batch norm, sums of branches, joined channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from occluscope.engine.incremental.fields import Axis, Field, Layout
from occluscope.engine.incremental.kernels import Activation
from occluscope.engine.incremental.planning import Planner
from occluscope.engine.incremental.steps import Changed, Operation, Planned, Steady


@dataclass
class Pointwise(Operation):
    """A function of maps of one height and width whose value at a pixel depends on that pixel alone.

    function: takes the inputs in order. layouts: orders of the axes for which this is true.
    gives: the layout of its value, if it differs (a permutation of axes). activation: the same function in a form that
    a convolution before it can apply. is_sum: whether it adds its two inputs. work: multiplications for each pixel, if
    there are many.
    """

    function: Callable[..., Any]
    layouts: tuple[Layout, ...] = ("nchw", "nhwc")
    gives: Layout | None = None
    activation: Activation | None = None
    is_sum: bool = False
    work: int = 0

    def whole(self, *values: Any) -> Any:
        return self.function(*values)

    def plan(self, planner: Planner, inputs: tuple[int, ...]) -> Planned | None:
        fields = [state for state in (planner.states[source] for source in inputs) if isinstance(state, Field)]
        if not fields or any(isinstance(planner.states[source], Changed) for source in inputs):
            return None
        first = fields[0]
        if first.layout not in self.layouts:
            return None
        if any(field.layout != first.layout or field.lengths != first.lengths for field in fields):
            return None
        if not all(_broadcasts(planner.values[source], first) for source in _steady(planner, inputs)):
            return None
        y, x = _union([field.y for field in fields]), _union([field.x for field in fields])
        place = planner.field(
            y.spans, x.spans, first.lengths, first.layout, whole=any(field.is_whole for field in fields)
        )
        if len(fields) == 1:
            place = first  # the positions read are those written
        reads = [
            planner.read_field(source, place)
            if isinstance(planner.states[source], Field)
            else (lambda batch, source=source: batch.values[source])
            for source in inputs
        ]
        planner.work += self.work * place.y.place.size * place.x.place.size
        planner.whole_work += self.work * place.y.length * place.x.length
        function = self.function
        field = Field(place.y, place.x, self.gives or place.layout)
        return Planned(field, lambda batch: function(*(read(batch) for read in reads)))


def _steady(planner: Planner, inputs: tuple[int, ...]) -> list[int]:
    return [source for source in inputs if isinstance(planner.states[source], Steady)]


def _broadcasts(value: Any, field: Field) -> bool:
    """Whether a constant is the same for every pixel: a number, or a tensor without height and width."""
    if not isinstance(value, Tensor):
        return isinstance(value, int | float)
    height_and_width = value.shape[-2:] if field.layout == "nchw" else value.shape[-3:-1]
    return all(length == 1 for length in height_and_width)


def _union(axes: list[Axis]) -> Axis:
    spans = axes[0].spans
    for axis in axes[1:]:
        spans = spans.union(axis.spans)
    return Axis(spans, spans.uniform(axes[0].length), axes[0].length)
