"""occlusion: the scores that are followed, and their columns in the network's outputs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from occluscope.analyses.occlusion.parameters import OcclusionParameters
from occluscope.analyses.target_choice import ChannelTarget, OneTarget, index_of
from occluscope.models.card import ModelCard
from occluscope.models.heads import ChannelHead, Head, own_head


@dataclass(frozen=True)
class Target:
    """A score that is followed. index: among the scores of its head. column: among the scores of all heads."""

    head: Head
    index: int
    column: int

    @property
    def name(self) -> str:
        """The class or channel of the score, in words."""
        return self.head.name(self.index)

    @property
    def unit(self) -> str:
        """The unit of the score."""
        return self.head.unit

    @property
    def shown(self) -> str:
        """The score in mathematical notation."""
        return self.head.shown(self.index)


@dataclass(frozen=True)
class Outputs:
    """How outputs [batch, the model's own + channels of the observed layers] are laid out.

    own: the head of the model's own outputs. layers: those of the observed layers, in the outputs' order.
    """

    own: Head
    layers: dict[str, ChannelHead]

    @classmethod
    def of(cls, params: OcclusionParameters, card: ModelCard) -> Self:
        """The outputs with every layer that the parameters name."""
        named = [target.layer for target in params.targets if isinstance(target, ChannelTarget)]
        layers = dict.fromkeys([*named, *([params.feature_layer] if params.feature_layer else [])])
        return cls(own_head(card), {layer: ChannelHead(card, layer) for layer in layers})

    def scores(self, outputs: Tensor) -> Tensor:
        """The scores of all heads, side by side: float64 [batch, columns]."""
        return torch.cat([head.scores(outputs[:, columns]) for head, columns in self._places()], dim=1)

    def predicted(self, scores: Tensor) -> Tensor:
        """The class with the largest score: [batch, columns] → int64 [batch]."""
        return self.own.top(scores[:, self._columns(self.own)])

    def most_active(self, scores: Tensor, layer: str) -> Target:
        """The channel of a layer with the largest sum. scores: of the picture without occlusion, [columns]."""
        return self._top(self.layers[layer], scores)

    def targets(self, params: OcclusionParameters, scores: Tensor) -> list[Target]:
        """The targets of the parameters, each once. scores: of the picture without occlusion, [columns]."""
        return list(dict.fromkeys(self.wanted(params, scores)))

    def wanted(self, params: OcclusionParameters, scores: Tensor) -> list[Target]:
        """A target for each of the parameters' targets, of which several may be equal ("top1" and its class)."""
        found = []
        for wanted in params.targets:
            head = self._head(wanted)
            index = index_of(wanted, head)
            found.append(self._top(head, scores) if index is None else self._target(head, index))
        return found

    def _head(self, wanted: OneTarget) -> Head:
        return self.layers[wanted.layer] if isinstance(wanted, ChannelTarget) else self.own

    def _top(self, head: Head, scores: Tensor) -> Target:
        return self._target(head, int(head.top(scores[self._columns(head)])))

    def _target(self, head: Head, index: int) -> Target:
        return Target(head, index, self._columns(head).start + index)

    def _columns(self, wanted: Head) -> slice:
        return next(columns for head, columns in self._places() if head is wanted)

    def _places(self) -> Iterator[tuple[Head, slice]]:
        """Every head with its columns."""
        start = 0
        for head in (self.own, *self.layers.values()):
            yield head, slice(start, start + head.count)
            start += head.count


def columns(targets: Sequence[Target]) -> list[int]:
    """The targets' columns of the scores."""
    return [target.column for target in targets]
