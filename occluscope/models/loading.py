"""A model that is ready to run: its weights on a device, and pictures as its tensors; needs torch."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from occluscope.engine.following import Followed
from occluscope.models.architectures import with_weights
from occluscope.models.card import ModelCard

_NETWORKS: Final = 4  # prepared networks that are kept, one for each set of observed layers


@dataclass(frozen=True)
class LoadedModel:
    """A network in eval mode on its device, with its card.

    module: [batch, 3, height, width] of `dtype`, normalised → logits [batch, classes].
    """

    card: ModelCard
    module: nn.Module
    device: torch.device
    dtype: torch.dtype = torch.float32
    _networks: dict[tuple[str, ...], Followed] = field(default_factory=dict, repr=False, compare=False)

    def tensor(self, rgb: np.ndarray) -> Tensor:
        """Normalise prepared pictures: uint8 [..., height, width, 3] → [..., 3, height, width] on the device."""
        scaled = torch.from_numpy(np.ascontiguousarray(rgb)).to(self.device).movedim(-1, -3).float() / 255
        normal = (scaled - self._channels(self.card.preparation.mean)) / self._channels(self.card.preparation.std)
        return normal.to(self.dtype)

    def colour(self, rgb: Sequence[float]) -> Tensor:
        """Normalise one colour, RGB 0–255: [3, 1, 1] on the device."""
        mean, std = self._channels(self.card.preparation.mean), self._channels(self.card.preparation.std)
        return ((self._channels(rgb) / 255 - mean) / std).to(self.dtype)

    def followed(self, layers: tuple[str, ...] = ()) -> Followed:
        """The network prepared for exact occlusion.

        layers: their channels' sums are appended to the outputs (see `Followed`).
        """
        if layers not in self._networks:
            if len(self._networks) == _NETWORKS:
                self._networks.pop(next(iter(self._networks)))
            random = torch.Generator().manual_seed(0)
            example = torch.rand(3, *self.card.input_size, generator=random)
            self._networks[layers] = Followed(self.module, example.to(self.device, self.dtype), layers)
        return self._networks[layers]

    @cached_property
    def half(self) -> "LoadedModel":
        """The same model in 16 bits: float16 on a GPU, bfloat16 on a CPU (more processors support it)."""
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return LoadedModel(self.card, copy.deepcopy(self.module).to(dtype), self.device, dtype)

    def forget_pictures(self) -> None:
        """Free what prepared networks keep of their last pictures. The next picture takes no longer."""
        for network in self._networks.values():
            network.forget_picture()
        if "half" in self.__dict__:  # `cached_property` stores it there
            self.half.forget_pictures()

    def forget_prepared(self) -> None:
        """Free prepared networks and the half-precision copy; they are made again when they are needed."""
        self._networks.clear()
        self.__dict__.pop("half", None)

    def _channels(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device).view(3, 1, 1)


def best_device() -> torch.device:
    """A GPU if there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load(card: ModelCard, device: torch.device | None = None) -> LoadedModel:
    """Load a model's weights and make it ready to run.

    Weights are stored channels last: convolutions are fastest in this layout, on CPU and GPU.

    Raises
    ------
    WeightsUnavailableError
        The weights are not on this machine and could not be downloaded.
    """
    device = device or best_device()
    module = with_weights(card).eval().requires_grad_(requires_grad=False)
    return LoadedModel(card, module.to(device).to(memory_format=torch.channels_last), device)
