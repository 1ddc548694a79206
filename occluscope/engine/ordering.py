"""Sorts batches that come in any order by their windows."""

from collections.abc import Iterable

import torch
from torch import Tensor


def in_order(batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """All outputs in the windows' order, [windows, …], from batches of indices and outputs."""
    positions, outputs = zip(*batches, strict=True)
    joined = torch.cat(outputs)
    ordered = torch.empty_like(joined)
    ordered[torch.cat(positions).to(joined.device)] = joined
    return ordered
