"""Outputs of layers for a batch, from one whole pass.

If a layer runs several times, its last output counts. Outputs are read before a later operation can change them in
place.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


def layer_outputs(module: nn.Module, batch: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """The outputs of some layers, by name. batch: [batch, channels, height, width]."""
    with torch.inference_mode():
        _, found = observed(module, batch, layers, lambda _name, output: output.clone())
    return found


class WithSums(nn.Module):
    """A module's outputs [batch, outputs], with the sums over space of some layers' channels appended.

    The same outputs as those of `IncrementalNetwork`, for models that are run by whole passes.
    """

    def __init__(self, module: nn.Module, layers: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self._layers = tuple(layers)

    def forward(self, x: Tensor) -> Tensor:
        outputs, sums = observed(self.module, x, self._layers, lambda _name, output: output.sum((2, 3)))
        return torch.cat([outputs, *(sums[name] for name in self._layers)], dim=1)


def observed(
    module: nn.Module, batch: Tensor, layers: Sequence[str], read: Callable[[str, Tensor], T]
) -> tuple[Tensor, dict[str, T]]:
    """The module's output, and what `read` returns for each layer's name and output, by name."""
    found: dict[str, T] = {}

    def take(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            found[name] = read(name, output)

        return hook

    with ExitStack() as hooks:
        for name in layers:
            hooks.enter_context(module.get_submodule(name).register_forward_hook(take(name)))
        outputs: Tensor = module(batch)
    return outputs, found
