"""From a model's outputs to the scores that an analysis follows: each with its name, unit and range.

This module does not import torch (it only calls methods of tensors), so that the control plane, which has no torch, can
read names, units and ranges.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from torch import Tensor

    from occluscope.models.card import ModelCard


class Head(ABC):
    """Turns outputs of a model into scores, with one column for each class or channel that can be followed.

    unit: of a score. range: the smallest and the largest possible score. symbol: the score's letter in formulas.
    """

    unit: ClassVar[str]
    range: ClassVar[tuple[float, float]]
    symbol: ClassVar[str]

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of scores, and of the outputs that they are computed from."""

    @abstractmethod
    def scores(self, outputs: Tensor) -> Tensor:
        """Outputs [batch, count] → float64 [batch, count], so that drops below float32's precision are not lost."""

    @abstractmethod
    def name(self, index: int) -> str:
        """The class or channel of a score, in words."""

    @abstractmethod
    def shown(self, index: int) -> str:
        """The score in mathematical notation."""

    @abstractmethod
    def index(self, asked: int | str) -> int:
        """The column of the class or channel that a request names, by index or by name.

        Raises
        ------
        LookupError
            There is none; the message says which there are.
        """

    def top(self, scores: Tensor) -> Tensor:
        """The column with the largest score, the first of equals: [..., count] → int64 [...]."""
        return scores.argmax(-1)

    @property
    def is_bounded(self) -> bool:
        """Whether scores lie in a finite range, so that the areas under two curves of them can be compared."""
        return all(map(math.isfinite, self.range))


@dataclass(frozen=True, eq=False)
class ClassHead(Head):
    """Probabilities of a classifier's classes: p = softmax(logits)."""

    card: ModelCard
    unit = "probability"
    range = (0.0, 1.0)
    symbol = "p"

    @property
    def count(self) -> int:
        return len(self.card.labels)

    def scores(self, outputs: Tensor) -> Tensor:
        return outputs.double().softmax(dim=1)

    def name(self, index: int) -> str:
        return self.card.labels[index]

    def shown(self, index: int) -> str:
        return f"p({self.name(index)})"

    def index(self, asked: int | str) -> int:
        return self.card.class_index(asked)


@dataclass(frozen=True, eq=False)
class ChannelHead(Head):
    """Activations of the channels of a layer that gives maps, each summed over space."""

    card: ModelCard
    layer: str
    unit = "activation"
    range = (-math.inf, math.inf)
    symbol = "activation"

    @property
    def count(self) -> int:
        return self.card.map_channels(self.layer)

    def scores(self, outputs: Tensor) -> Tensor:
        return outputs.double()

    def name(self, index: int) -> str:
        return f"channel {index} of {self.layer}"

    def shown(self, index: int) -> str:
        return f"activation of {self.name(index)}"

    def index(self, asked: int | str) -> int:
        if isinstance(asked, int) and 0 <= asked < self.count:
            return asked
        raise LookupError(f"layer '{self.layer}' of {self.card.name} has channels 0 to {self.count - 1}")


_OF_TASK: Final = {"classification": ClassHead}


def own_head(card: ModelCard) -> Head:
    """The head for the model's own outputs, chosen by the model's task."""
    return _OF_TASK[card.task](card)
