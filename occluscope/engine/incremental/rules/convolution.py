"""Convolution: rectangles grow by the kernel's reach; batch norm, sum and activation may be folded in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from occluscope.engine.incremental.fields import Axis, Field
from occluscope.engine.incremental.intervals import Spans
from occluscope.engine.incremental.kernels import Activation, Pair, Sliding, convolve, pack_weight
from occluscope.engine.incremental.planning import Planner
from occluscope.engine.incremental.steps import Operation, Planned, Run

_MODES: Final = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # numpy.pad's names of the modes


@dataclass
class Convolution(Operation):
    """A 2-D convolution over a map [batch, channels, height, width].

    weight: [out, in / groups, kernel height, kernel width].
    padding: pixels (top, bottom, left, right). mode: as `torch.nn.Conv2d.padding_mode`.
    activation: applied to the outputs; with_addend: a second input is added to them before that.
    """

    weight: Tensor
    bias: Tensor | None
    stride: Pair
    padding: tuple[int, int, int, int]
    dilation: Pair
    groups: int
    mode: str = "zeros"
    activation: Activation | None = None
    with_addend: bool = False

    def __post_init__(self) -> None:
        self._packs: dict[Pair, Tensor] = {}

    def whole(self, *values: Any) -> Tensor:
        x, padding = self._pad_for_kernel(values[0])
        return self._convolve(x, self.stride, padding, values[1] if self.with_addend else None)

    def plan(self, planner: Planner, inputs: tuple[int, ...]) -> Planned | None:
        source = planner.states[inputs[0]]
        addend = planner.states[inputs[1]] if self.with_addend else None
        if not isinstance(source, Field) or source.layout != "nchw":
            return None
        if addend is not None and not isinstance(addend, Field):
            return None
        spans = [self._outputs(axis, which) for which, axis in enumerate((source.y, source.x))]
        lengths = self._lengths(source)
        if addend is not None:
            spans = [own.union(theirs.spans) for own, theirs in zip(spans, (addend.y, addend.x), strict=True)]
        whole = source.is_whole or (addend is not None and addend.is_whole)
        field = planner.field(spans[0], spans[1], lengths, whole=whole)
        each = self.weight.numel()  # multiplications for one pixel of the output
        planner.work += each * field.y.place.size * field.x.place.size
        planner.whole_work += each * lengths[0] * lengths[1]
        read_addend = planner.read_field(inputs[1], field) if self.with_addend else None
        run = self._run_whole(planner, inputs[0], read_addend) if field.is_whole else None
        return Planned(field, run or self._run_rectangles(planner, inputs[0], source, field, read_addend))

    def _run_whole(self, planner: Planner, source: int, read_addend: Run | None) -> Run:
        read = planner.whole(source)

        def run(batch: Any) -> Tensor:
            x, padding = self._pad_for_kernel(read(batch))
            return self._convolve(x, self.stride, padding, read_addend(batch) if read_addend else None)

        return run

    def _run_rectangles(
        self, planner: Planner, source: int, state: Field, field: Field, read_addend: Run | None
    ) -> Run:
        pointwise = self.weight.shape[2:] == (1, 1)  # reads only the pixels that are needed, for any stride
        y, x = (
            self._inputs(state_axis, axis, which, pointwise=pointwise)
            for which, (state_axis, axis) in enumerate(zip((state.y, state.x), (field.y, field.x), strict=True))
        )
        read = planner.read(source, y, x)
        stride = (1, 1) if pointwise else self.stride
        return lambda batch: self._convolve(read(batch), stride, (0, 0), read_addend(batch) if read_addend else None)

    def _outputs(self, axis: Axis, which: int) -> Spans:
        low, high = self.padding[2 * which : 2 * which + 2]
        kernel, stride, dilation = int(self.weight.shape[2 + which]), self.stride[which], self.dilation[which]
        length = _output_length(axis.length + low + high, kernel, stride, dilation)
        if self.mode == "zeros":
            return axis.spans.through_kernel(kernel, stride, low, dilation, length)
        padded = axis.spans.through_source(self._source(axis.length, which))
        return padded.through_kernel(kernel, stride, 0, dilation, length)

    def _lengths(self, source: Field) -> tuple[int, int]:
        sizes = []
        for which, axis in enumerate((source.y, source.x)):
            padded = axis.length + sum(self.padding[2 * which : 2 * which + 2])
            sizes.append(
                _output_length(padded, int(self.weight.shape[2 + which]), self.stride[which], self.dilation[which])
            )
        return sizes[0], sizes[1]

    def _inputs(self, source: Axis, axis: Axis, which: int, *, pointwise: bool) -> np.ndarray:
        """Coordinates on the input that the outputs of each rectangle read: [positions, count]."""
        low, stride, dilation = self.padding[2 * which], self.stride[which], self.dilation[which]
        reach = (int(self.weight.shape[2 + which]) - 1) * dilation
        if pointwise:
            places = axis.coordinates() * stride - low
        else:
            count = (axis.place.size - 1) * stride + reach + 1
            places = axis.place.offsets[:, None] * stride - low + np.arange(count)
        if self.mode == "zeros":
            return places
        copied: np.ndarray = self._source(source.length, which)[places + low]
        return copied

    def _source(self, length: int, which: int) -> np.ndarray:
        """The position that each position of the padded axis is copied from (modes other than zeros)."""
        low, high = self.padding[2 * which : 2 * which + 2]
        source: np.ndarray = np.pad(np.arange(length), (low, high), mode=_MODES[self.mode])  # type: ignore[call-overload]
        return source

    def _pad_for_kernel(self, x: Tensor) -> tuple[Tensor, Pair]:
        """Add the padding that the kernel cannot add itself."""
        top, bottom, left, right = self.padding
        reach = [(int(length) - 1) * step for length, step in zip(self.weight.shape[2:], self.dilation, strict=True)]
        # With more padding than the kernel's reach, oneDNN may read outside small maps and crash.
        if self.mode == "zeros" and top == bottom <= reach[0] and left == right <= reach[1]:
            return x, (top, left)
        mode = "constant" if self.mode == "zeros" else self.mode
        padded = functional.pad(x, (left, right, top, bottom), mode=mode)
        return padded.contiguous(memory_format=torch.channels_last), (0, 0)

    def _convolve(self, x: Tensor, stride: Pair, padding: Pair, addend: Tensor | None) -> Tensor:
        sliding = Sliding(stride, padding, self.dilation, self.groups)
        return convolve(x, self._packed(x, sliding), self.bias, sliding, self.activation, addend)

    def _packed(self, x: Tensor, sliding: Sliding) -> Tensor:
        """The weight, packed once: the order for one size of map is also fast for others."""
        key = sliding.stride
        if key not in self._packs:
            self._packs[key] = pack_weight(self.weight, sliding, tuple(x.shape))
        return self._packs[key]


def _output_length(padded: int, kernel: int, stride: int, dilation: int) -> int:
    return (padded - (kernel - 1) * dilation - 1) // stride + 1
