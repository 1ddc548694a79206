"""Pooling: rectangles grow by the window's reach; a mean over the whole map is updated from the rectangle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from occluscope.engine.incremental.fields import Axis, Field
from occluscope.engine.incremental.intervals import Spans
from occluscope.engine.incremental.kernels import Pair
from occluscope.engine.incremental.planning import Planner
from occluscope.engine.incremental.steps import Changed, Operation, Planned


@dataclass
class MaxPool(Operation):
    """Max pooling; pixels outside the map are −∞."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil: bool

    def whole(self, *values: Any) -> Tensor:
        return functional.max_pool2d(values[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil)

    def plan(self, planner: Planner, inputs: tuple[int, ...]) -> Planned | None:
        source = planner.states[inputs[0]]
        if not isinstance(source, Field) or source.layout != "nchw":
            return None
        output = self.whole(planner.values[inputs[0]].to("meta"))
        field = _sliding_field(
            planner, source, self.kernel, self.stride, self.padding, self.dilation, output.shape[-2:]
        )
        if field.is_whole:
            read = planner.whole(inputs[0])
            return Planned(field, lambda batch: self.whole(read(batch)))
        y, x = (
            _read_places(axis, *of)
            for axis, of in zip(
                (field.y, field.x), zip(self.kernel, self.stride, self.padding, self.dilation, strict=True), strict=True
            )
        )
        read = planner.read(inputs[0], y, x, fill=-torch.inf)
        return Planned(
            field, lambda batch: functional.max_pool2d(read(batch), self.kernel, self.stride, 0, self.dilation)
        )


@dataclass
class AveragePool(Operation):
    """Average pooling; pixels outside the map count as 0, or are not counted."""

    kernel: Pair
    stride: Pair
    padding: Pair
    ceil: bool
    count_include_pad: bool
    divisor: int | None

    def whole(self, *values: Any) -> Tensor:
        return functional.avg_pool2d(
            values[0], self.kernel, self.stride, self.padding, self.ceil, self.count_include_pad, self.divisor
        )

    def plan(self, planner: Planner, inputs: tuple[int, ...]) -> Planned | None:
        source = planner.states[inputs[0]]
        if not isinstance(source, Field) or source.layout != "nchw":
            return None
        shape = planner.values[inputs[0]].shape
        output = self.whole(torch.empty(1, 1, *shape[-2:], device="meta"))
        field = _sliding_field(planner, source, self.kernel, self.stride, self.padding, (1, 1), output.shape[-2:])
        if field.is_whole:
            read = planner.whole(inputs[0])
            return Planned(field, lambda batch: self.whole(read(batch)))
        y, x = (
            _read_places(axis, *of, 1)
            for axis, of in zip(
                (field.y, field.x), zip(self.kernel, self.stride, self.padding, strict=True), strict=True
            )
        )
        read = planner.read(inputs[0], y, x)
        scale = self._scale(planner.values[inputs[0]], field)

        def run(batch: Any) -> Tensor:
            means = functional.avg_pool2d(read(batch), self.kernel, self.stride)
            return means if scale is None else means * scale(batch)

        return Planned(field, run)

    def _scale(self, value: Tensor, field: Field) -> Callable[[Any], Tensor] | None:
        """Kernel area ÷ divisor of each output, if they differ: at padded edges, or with `divisor_override`."""
        area = self.kernel[0] * self.kernel[1]
        ones = value.new_ones(1, 1, *value.shape[-2:])
        plain = AveragePool(self.kernel, self.stride, self.padding, self.ceil, count_include_pad=True, divisor=area)
        ratio = (self.whole(ones) / plain.whole(ones))[0, 0]
        if bool((ratio == 1).all()):
            return None
        y = torch.from_numpy(field.y.coordinates()).to(value.device)
        x = torch.from_numpy(field.x.coordinates()).to(value.device)
        return lambda batch: ratio[y[batch.rows][:, :, None], x[batch.columns][:, None, :]][:, None]


@dataclass
class AdaptiveAverage(Operation):
    """Average pooling to a size of output (None keeps an axis). Sizes that divide the map's are plain pooling."""

    height: int | None
    width: int | None

    def whole(self, *values: Any) -> Tensor:
        return functional.adaptive_avg_pool2d(values[0], (self.height, self.width))

    def plan(self, planner: Planner, inputs: tuple[int, ...]) -> Planned | None:
        source = planner.states[inputs[0]]
        if not isinstance(source, Field) or source.layout != "nchw":
            return None
        height, width = self.height or source.y.length, self.width or source.x.length
        if (height, width) == source.lengths:
            return Planned(source, lambda batch: batch.values[inputs[0]])
        if source.y.length % height or source.x.length % width:
            return None
        kernel = (source.y.length // height, source.x.length // width)
        pool = AveragePool(kernel, kernel, (0, 0), ceil=False, count_include_pad=True, divisor=None)
        return pool.plan(planner, inputs)


@dataclass
class GlobalMean(Operation):
    """The mean over a map's height and width. keep: keep both as axes of length 1. total: the sum instead."""

    keep: bool
    total: bool = False

    def whole(self, *values: Any) -> Tensor:
        reduce = torch.sum if self.total else torch.mean
        return reduce(values[0], (2, 3), keepdim=self.keep)

    def plan(self, planner: Planner, inputs: tuple[int, ...]) -> Planned | None:
        """(Unoccluded sum outside the rectangle + sum of the rectangle) ÷ area, the sums in float64.

        Nothing is subtracted: if the rectangle has nearly all of the total, the total minus the rectangle would be
        rounding error only.
        """
        source = planner.states[inputs[0]]
        if not isinstance(source, Field) or source.layout != "nchw" or source.is_whole:
            return None
        value, picture_values = planner.values[inputs[0]], planner.picture_values
        area, dtype = 1 if self.total else value.shape[-2] * value.shape[-1], value.dtype
        top, left = (torch.from_numpy(axis.place.offsets).to(value.device) for axis in (source.y, source.x))
        size = (source.y.place.size, source.x.place.size)

        def run(batch: Any) -> Tensor:
            outside = picture_values.sums_outside(inputs[0], size)[top[batch.rows], left[batch.columns]]
            means: Tensor = ((outside + batch.values[inputs[0]].double().sum((2, 3))) / area).to(dtype)
            return means[:, :, None, None] if self.keep else means

        return Planned(Changed(), run)


def _sliding_field(  # noqa: PLR0917 - a kernel's geometry, as torch names it
    planner: Planner, source: Field, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, lengths: Any
) -> Field:
    spans: list[Spans] = [
        axis.spans.through_kernel(kernel[which], stride[which], padding[which], dilation[which], int(lengths[which]))
        for which, axis in enumerate((source.y, source.x))
    ]
    return planner.field(spans[0], spans[1], (int(lengths[0]), int(lengths[1])), whole=source.is_whole)


def _read_places(axis: Axis, kernel: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    count = (axis.place.size - 1) * stride + (kernel - 1) * dilation + 1
    return axis.place.offsets[:, None] * stride - padding + np.arange(count)
