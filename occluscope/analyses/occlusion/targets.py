"""occlusion: what is followed, and how it is read from the network's outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from occluscope.analyses.occlusion.parameters import ChannelTarget, OcclusionParameters
from occluscope.models.card import ModelCard


@dataclass(frozen=True)
class Target:
    """One number of the scores. name: in words; unit: ``probability`` or ``activation``; column: of the scores."""

    name: str
    unit: str
    column: int

    @property
    def shown(self) -> str:
        """As mathematics writes it."""
        return f"p({self.name})" if self.unit == "probability" else f"activation of {self.name}"


@dataclass(frozen=True)
class Outputs:
    """How outputs [batch, classes + channels of the observed layers] are laid out.

    layers: observed layers with their first column and number of channels.
    """

    classes: int
    layers: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, params: OcclusionParameters, card: ModelCard) -> Self:
        """With every layer that parameters name."""
        named = [target.layer for target in params.targets if isinstance(target, ChannelTarget)]
        layers, start = {}, len(card.labels)
        for layer in dict.fromkeys([*named, *([params.feature_layer] if params.feature_layer else [])]):
            channels = card.map_channels(layer)
            layers[layer] = (start, channels)
            start += channels
        return cls(len(card.labels), layers)

    def scores(self, outputs: Tensor) -> Tensor:
        """Probabilities of all classes, then activations: float64, so that drops far below float32's step are seen."""
        outputs = outputs.double()
        return torch.cat([outputs[:, : self.classes].softmax(dim=1), outputs[:, self.classes :]], dim=1)

    def most_active(self, scores: Tensor, layer: str) -> Target:
        """A layer's channel with the largest sum. scores: of the picture without occlusion, [columns]."""
        start, channels = self.layers[layer]
        return self._channel(layer, int(scores[start : start + channels].argmax()))

    def targets(self, params: OcclusionParameters, card: ModelCard, scores: Tensor) -> list[Target]:
        """What the parameters follow. scores: of the picture without occlusion, [columns]."""
        found = []
        for wanted in params.targets:
            if isinstance(wanted, ChannelTarget):
                found.append(self._channel(wanted.layer, wanted.channel))
            else:
                top = int(scores[: self.classes].argmax())
                index = top if wanted == "top1" else card.class_index(wanted)
                found.append(Target(card.labels[index], "probability", index))
        return list(dict.fromkeys(found))

    def _channel(self, layer: str, channel: int) -> Target:
        return Target(f"channel {channel} of {layer}", "activation", self.layers[layer][0] + channel)


def columns(targets: Sequence[Target]) -> list[int]:
    """The targets' columns of the scores."""
    return [target.column for target in targets]
