"""A model ready to run: weights on a device, pictures to tensors; needs torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from occluscope.engine.following import follow
from occluscope.engine.incremental import IncrementalNetwork
from occluscope.models.architectures import with_weights
from occluscope.models.card import ModelCard


@dataclass(frozen=True)
class LoadedModel:
    """A network in eval mode on its device, with its card.

    module: float32 [batch, 3, height, width], normalised → logits [batch, classes].
    """

    card: ModelCard
    module: nn.Module
    device: torch.device

    def tensor(self, rgb: np.ndarray) -> Tensor:
        """Normalise a prepared picture: uint8 [height, width, 3] → float32 [3, height, width] on the device."""
        scaled = torch.from_numpy(np.ascontiguousarray(rgb)).to(self.device).permute(2, 0, 1).float() / 255
        return (scaled - self._channels(self.card.preparation.mean)) / self._channels(self.card.preparation.std)

    def colour(self, rgb: Sequence[float]) -> Tensor:
        """Normalise one colour, RGB 0–255: float32 [3, 1, 1] on the device."""
        mean, std = self._channels(self.card.preparation.mean), self._channels(self.card.preparation.std)
        return (self._channels(rgb) / 255 - mean) / std

    @cached_property
    def incremental(self) -> IncrementalNetwork | None:
        """The network prepared for exact occlusion; none, with a warning, where it cannot be traced."""
        random = torch.Generator().manual_seed(0)
        return follow(self.module, torch.rand(3, *self.card.input_size, generator=random).to(self.device))

    def _channels(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device).view(3, 1, 1)


def best_device() -> torch.device:
    """The GPU that is there, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(card: ModelCard, device: torch.device | None = None) -> LoadedModel:
    """Load a model's weights and make it ready to run.

    Weights lie channels last: the layout that convolutions run fastest on, on CPU and GPU.

    Raises
    ------
    WeightsUnavailableError
        The weights are not here and could not be fetched.
    """
    device = device or best_device()
    module = with_weights(card).eval().requires_grad_(requires_grad=False)
    return LoadedModel(card, module.to(device).to(memory_format=torch.channels_last), device)
