"""Which outputs of a layer a changed interval of its input can affect: interval arithmetic along one axis, no tensors.

A `Spans` holds one half-open interval [start, stop) for each window position along one axis. Rules follow
Nakandala et al. (2019), 'Incremental and approximate inference for faster occlusion-based deep CNN explanations'.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spans:
    """The changed interval along one axis, for each window position.

    start, stop: int64 [positions]; the interval is empty if stop ≤ start.
    """

    start: np.ndarray
    stop: np.ndarray

    @classmethod
    def of_windows(cls, origins: tuple[int, ...], window: int) -> "Spans":
        """The intervals of the windows themselves, on the picture."""
        start = np.asarray(origins, dtype=np.int64)
        return cls(start, start + window)

    @classmethod
    def whole(cls, positions: int, length: int) -> "Spans":
        """The whole axis, for every position."""
        return cls(np.zeros(positions, dtype=np.int64), np.full(positions, length, dtype=np.int64))

    def through_kernel(self, kernel: int, stride: int, padding: int, dilation: int, length: int) -> "Spans":
        """Outputs of a sliding kernel that read any of the interval.

        Output o reads inputs o·stride − padding + i·dilation for i in 0 … kernel − 1. length: number of outputs.
        A dilated kernel may skip a short change; the interval then still contains all outputs between.
        """
        reach = (kernel - 1) * dilation
        first = -((reach - self.start - padding) // stride)  # ceil((start + padding − reach) / stride)
        last = (self.stop - 1 + padding) // stride
        return Spans(first.clip(0, length), (last + 1).clip(0, length))

    def through_source(self, source: np.ndarray) -> "Spans":
        """The shortest interval of a padded axis with all positions that copy any of the interval.

        source: int64 [padded length], the position that each is copied from, −1 for a constant.
        """
        read = (source >= self.start[:, None]) & (source < self.stop[:, None])
        any_read = read.any(axis=1)
        first = np.where(any_read, read.argmax(axis=1), 0)
        last = np.where(any_read, read.shape[1] - read[:, ::-1].argmax(axis=1), 0)
        return Spans(first, last)

    def union(self, other: "Spans") -> "Spans":
        """The shortest interval that contains both; an empty one is ignored."""
        self_empty, other_empty = self.stop <= self.start, other.stop <= other.start
        start = np.where(
            self_empty, other.start, np.where(other_empty, self.start, np.minimum(self.start, other.start))
        )
        stop = np.where(self_empty, other.stop, np.where(other_empty, self.stop, np.maximum(self.stop, other.stop)))
        return Spans(start, stop)

    def uniform(self, length: int) -> "Placement":
        """Intervals of one size, that of the largest, moved inside [0, length)."""
        size = max(int((self.stop - self.start).max(initial=0)), 1)
        return Placement(self.start.clip(0, length - size), min(size, length))


@dataclass(frozen=True)
class Placement:
    """The position of rectangles of one size along one axis. offsets: int64 [positions]."""

    offsets: np.ndarray
    size: int

    @classmethod
    def whole(cls, positions: int, length: int) -> "Placement":
        """The whole axis, for every position."""
        return cls(np.zeros(positions, dtype=np.int64), length)
