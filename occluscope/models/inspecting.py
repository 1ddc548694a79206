"""Writing a model's card by running it: its layers with their shapes; needs torch."""

from contextlib import ExitStack
from typing import Any, Final

import torch
from torch import Tensor, nn

from occluscope.models.card import Description, Layer, ModelCard

_PICTURES: Final = 3  # pictures in the batch; an output with another number of rows is not one row for each picture


def inspected(model: nn.Module, description: Description) -> ModelCard:
    """The card of a model: its description, and each module whose output is one tensor with a row for each picture.

    model: in eval mode, on any device, also the meta device. It is run once on black pictures and not changed.
    """
    layers: dict[str, Layer] = {}

    def note(name: str, module: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor) and len(output) == _PICTURES:
            layers[name] = Layer(name=name, type=type(module).__name__, shape=tuple(output.shape[1:]))

    like = next(model.parameters(), torch.empty(0))
    height, width = description.preparation.crop
    pictures = torch.zeros(_PICTURES, 3, height, width, device=like.device, dtype=like.dtype)
    with ExitStack() as hooks, torch.inference_mode():
        for name, module in model.named_modules():
            if name:
                hooks.enter_context(
                    module.register_forward_hook(lambda module, _given, output, name=name: note(name, module, output))
                )
        model(pictures)
    return ModelCard(**dict(description), layers=tuple(layers.values()))
