"""What a map adds up to outside a rectangle, by additions alone.

Taking the rectangle from the total would be shorter. But where one holds nearly all of the total, as the peak of an
exponential does, the difference is rounding.
"""

import torch
from torch import Tensor


def sums_outside(value: Tensor, size: tuple[int, int]) -> Tensor:
    """Of a map [channels, height, width] for each place of a rectangle of that size: [top, left, channels]."""
    height, width = size
    above, below = _around(value.sum(2), height)
    left, right = _around(_sliding(value, height), width)
    return ((above + below)[:, :, None] + (left + right)).permute(1, 2, 0).contiguous()


def _around(value: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Along the last axis for each place of a run of that length: the sums before it, and behind it."""
    before, behind = (torch.zeros_like(value[..., : value.shape[-1] - length + 1]) for _ in range(2))
    before[..., 1:] = value[..., : value.shape[-1] - length].cumsum(-1)
    behind[..., :-1] = value[..., length:].flip(-1).cumsum(-1).flip(-1)
    return before, behind


def _sliding(value: Tensor, length: int) -> Tensor:
    """Sums of each run of that length along axis 1: of runs of 1, 2, 4, … put together."""
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
