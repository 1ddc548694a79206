"""A module that also tells what its layers did, for models that are run by whole passes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class WithSums(nn.Module):
    """A module's outputs [batch, outputs], with the sums over space of some layers' channels appended.

    As `IncrementalNetwork` gives them. Of a layer that runs several times the last counts. The sums are taken as a
    layer gives its map, before anything changes that map in place.
    """

    def __init__(self, module: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self._layers = tuple(layers)

    def forward(self, x: Tensor) -> Tensor:
        sums: dict[str, Tensor] = {}

        def take(name: str) -> Any:
            def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
                sums[name] = output.sum((2, 3))

            return hook

        handles = [self.module.get_submodule(name).register_forward_hook(take(name)) for name in self._layers]
        try:
            outputs: Tensor = self.module(x)
        finally:
            for handle in handles:
                handle.remove()
        return torch.cat([outputs, *(sums[name] for name in self._layers)], dim=1)
