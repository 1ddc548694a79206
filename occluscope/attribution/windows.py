"""Captum's windows over one input of any rank: they start at 0, s, 2s, …, and the last may be cut at the far edge."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Box = tuple[slice, ...]


@dataclass(frozen=True)
class Windows:
    """shape, window, stride: along one sample's axes. A sample without axes has one window, which covers it."""

    shape: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def starts(self) -> tuple[range, ...]:
        """The starts of windows along each axis."""
        return tuple(
            range(0, math.ceil((length - extent) / step) * step + 1, step)
            for length, extent, step in zip(self.shape, self.window, self.stride, strict=True)
        )

    def __len__(self) -> int:
        return math.prod(len(along) for along in self.starts)

    def boxes(self) -> Iterator[Box]:
        """The box of each window, cut at the far edge, in Captum's order: the first axis runs fastest."""
        starts = self.starts
        for number in range(len(self)):
            rest, box = number, []
            for along, extent, length in zip(starts, self.window, self.shape, strict=True):
                rest, place = divmod(rest, len(along))
                box.append(slice(along[place], min(along[place] + extent, length)))
            yield tuple(box)

    def covering(self, like: Tensor) -> Tensor:
        """How many windows cover each value: [*shape]."""
        counts = torch.ones((), dtype=like.dtype, device=like.device)
        for along, extent, length in zip(self.starts, self.window, self.shape, strict=True):
            of_axis = torch.zeros(length, dtype=like.dtype, device=like.device)
            for start in along:
                of_axis[start : start + extent] += 1
            counts = counts[..., None] * of_axis
        return counts


class Drops:
    """Sums of drops over the windows that cover each value, by row of the attribution: [rows, *shape]."""

    def __init__(self, rows: int, windows: Windows, device: torch.device) -> None:
        exact = torch.float32 if device.type == "mps" else torch.float64  # the device has no float64
        self._windows = windows
        self._total = torch.zeros((rows, *windows.shape), dtype=exact, device=device)

    def add(self, box: Box, drops: Tensor, rows: slice = slice(None)) -> None:
        """Add the drops of the window that covers a box. drops: [rows]."""
        covered = self._total[(rows, *box)]
        covered += drops.to(self._total).reshape(-1, *(1 for _ in box))

    def mean(self) -> Tensor:
        """The mean of each value over its windows: float32."""
        return (self._total / self._windows.covering(self._total)).float()
