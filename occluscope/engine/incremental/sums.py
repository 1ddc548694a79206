"""Sums of a map outside a rectangle, by additions only.

Total minus rectangle would be shorter. But if the rectangle has nearly all of the total, as with the peak of an
exponential, the difference is rounding error only.
"""

import torch
from torch import Tensor


def sums_outside(value: Tensor, size: tuple[int, int]) -> Tensor:
    """Sums of a map [channels, height, width] outside a rectangle, for each of its positions: [top, left, channels]."""
    height, width = size
    above, below = _around(value.sum(2), height)
    left, right = _around(_sliding(value, height), width)
    return ((above + below)[:, :, None] + (left + right)).permute(1, 2, 0).contiguous()


def _around(value: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Sums before and after an interval of this length, for each of its positions along the last axis."""
    before, behind = (torch.zeros_like(value[..., : value.shape[-1] - length + 1]) for _ in range(2))
    before[..., 1:] = value[..., : value.shape[-1] - length].cumsum(-1)
    behind[..., :-1] = value[..., length:].flip(-1).cumsum(-1).flip(-1)
    return before, behind


def _sliding(value: Tensor, length: int) -> Tensor:
    """Sums of each interval of this length along axis 1, composed of intervals of 1, 2, 4, …."""
    places = value.shape[1] - length + 1
    total, start, reach = torch.zeros_like(value[:, :places]), 0, 1
    while True:
        if length & reach:
            total += value[:, start : start + places]
            start += reach
        if 2 * reach > length:
            return total
        value = value[:, :-reach] + value[:, reach:]  # value[:, i]: the sum of 2 · reach from i on
        reach *= 2
