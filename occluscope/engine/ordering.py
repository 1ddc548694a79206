"""Putting batches that came in any order back into the windows' own."""

from collections.abc import Iterable

import torch
from torch import Tensor


def in_order(batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """All outputs, [windows, …], from batches of places and outputs."""
    positions, outputs = zip(*batches, strict=True)
    joined = torch.cat(outputs)
    ordered = torch.empty_like(joined)
    ordered[torch.cat(positions).to(joined.device)] = joined
    return ordered
