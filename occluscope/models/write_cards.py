"""Writes the cards of the bundled and the torchvision models: ``python -m occluscope.models.write_cards``."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torchvision import models as torchvision_models

from occluscope.models.architectures import without_weights
from occluscope.models.card import Layer, ModelCard
from occluscope.preparation import Preparation

_HERE: Final = Path(__file__).parent
_LABEL_SET: Final = "imagenet_1k"
_BUNDLED: Final = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}  # input sizes
_CROP_PADDING: Final = 32  # pixels that their authors' preparation cuts off
_PICTURES: Final = 3  # run at once; layers that work on parts of pictures, or on none, give another number of rows
_HALF: Final = (0.498, 0.498, 0.498)  # 127/255, per channel, as EfficientNet-Lite's authors normalise
_HALF_STD: Final = (0.502, 0.502, 0.502)  # 128/255


def made_cards() -> Iterator[ModelCard]:
    """Every card, made afresh from the installed packages."""
    for name, size in _BUNDLED.items():
        preparation = Preparation(
            resize=size + _CROP_PADDING, crop=(size, size), interpolation="bilinear", mean=_HALF, std=_HALF_STD
        )
        yield _card(name, "bundled", "IMAGENET1K", preparation)
    for name in torchvision_models.list_models(module=torchvision_models):
        weights = torchvision_models.get_model_weights(name).DEFAULT
        yield _card(name, "torchvision", weights.name, _preparation(weights.transforms()))


def imagenet_labels() -> list[str]:
    """The names of ImageNet's 1,000 classes as torchvision carries them."""
    categories: list[str] = torchvision_models.AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    return categories


def card_text(card: ModelCard) -> str:
    """A card as its file holds it: one line a layer, so that a change reads well."""
    content = card.model_dump(mode="json")
    layers = ",\n".join(f"  {json.dumps(layer)}" for layer in content.pop("layers"))
    head = json.dumps(content, indent=1).removesuffix("\n}")
    return f'{head},\n "layers": [\n{layers}\n ]\n}}\n'


def _card(name: str, source: Any, weights: str, preparation: Preparation) -> ModelCard:
    model = without_weights(source, name, weights)
    return ModelCard(
        name=name,
        source=source,
        architecture=name,
        weights=weights,
        task="classification",
        preparation=preparation,
        label_set=_LABEL_SET,
        layers=_layers(model, preparation.crop),
    )


def _preparation(transforms: Any) -> Preparation:
    (resize,), (crop,) = transforms.resize_size, transforms.crop_size
    return Preparation(
        resize=resize,
        crop=(crop, crop),
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def _layers(model: nn.Module, input_size: tuple[int, int]) -> tuple[Layer, ...]:
    """Run the network on the meta device and note each module that gives one tensor with a row for each picture."""
    found: dict[str, Layer] = {}

    def note(name: str, module: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor) and len(output) == _PICTURES:
            found[name] = Layer(name=name, type=type(module).__name__, shape=tuple(output.shape[1:]))

    for name, module in model.named_modules():
        if name:
            module.register_forward_hook(lambda module, _given, output, name=name: note(name, module, output))
    with torch.inference_mode():
        model.eval()(torch.empty(_PICTURES, 3, *input_size, device="meta"))
    return tuple(found.values())


def main() -> None:
    """Write the files anew."""
    (_HERE / "labels" / f"{_LABEL_SET}.json").write_text(json.dumps(imagenet_labels(), indent=0) + "\n")
    for stale in (_HERE / "cards").glob("*.json"):
        stale.unlink()
    for card in made_cards():
        (_HERE / "cards" / f"{card.name}.json").write_text(card_text(card))


if __name__ == "__main__":
    main()
