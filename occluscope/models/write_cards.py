"""Writes the cards of the models that come with Occluscope: ``python -m occluscope.models.write_cards``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from torchvision import models as torchvision_models

from occluscope.models.architectures import builder, without_weights
from occluscope.models.card import IMAGENET_LABELS, ModelCard
from occluscope.models.catalogue import SOURCES
from occluscope.models.inspecting import inspected

_HERE: Final = Path(__file__).parent


def made_cards() -> Iterator[ModelCard]:
    """Every card, made from the installed packages."""
    for source in SOURCES:
        for one in builder(source).descriptions():
            yield inspected(without_weights(source, one.architecture, one.weights).eval(), one)


def imagenet_labels() -> list[str]:
    """The names of ImageNet's 1,000 classes, from torchvision."""
    categories: list[str] = torchvision_models.AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    return categories


def card_text(card: ModelCard) -> str:
    """A card as it is written to its file: one line for each layer, so that changes are easy to read."""
    content = card.model_dump(mode="json")
    layers = ",\n".join(f"  {json.dumps(layer)}" for layer in content.pop("layers"))
    head = json.dumps(content, indent=1).removesuffix("\n}")
    return f'{head},\n "layers": [\n{layers}\n ]\n}}\n'


def main() -> None:
    """Write all files."""
    (_HERE / "labels" / f"{IMAGENET_LABELS}.json").write_text(json.dumps(imagenet_labels(), indent=0) + "\n")
    for stale in (_HERE / "cards").glob("*/*.json"):
        stale.unlink()
    for card in made_cards():
        (_HERE / "cards" / card.source / f"{card.name}.json").write_text(card_text(card))


if __name__ == "__main__":
    main()
