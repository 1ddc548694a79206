"""What layers give for a batch, all from one whole pass.

Of a layer that runs several times the last counts. A layer's output is read as it gives it, before anything changes it
in place.
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

    As `IncrementalNetwork` gives them, for models that are run by whole passes.
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
    """The module's output, and by name what `read` makes of each layer's name and output."""
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
