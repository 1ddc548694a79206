"""torchvision's models, with the weights that it downloads by name."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError

import torch
from torch import nn
from torchvision import models as torchvision_models

from occluscope.errors import WeightsUnavailableError
from occluscope.models.card import Description, ModelCard
from occluscope.pictures.preparation import Preparation

DOWNLOAD_TIMEOUT_S: Final = 30.0  # after so long without an answer a download fails


def descriptions() -> Iterator[Description]:
    """The description of each model, with the weights that torchvision recommends."""
    for name in torchvision_models.list_models(module=torchvision_models):
        weights = torchvision_models.get_model_weights(name).DEFAULT
        preparation = _preparation(weights.transforms())
        yield Description(
            name=name, source="torchvision", architecture=name, weights=weights.name, preparation=preparation
        )


def with_weights(card: ModelCard) -> nn.Module:
    """The trained network.

    Raises
    ------
    WeightsUnavailableError
        The weights are not on this machine and could not be downloaded; the message names the folder for them.
    """
    weights = torchvision_models.get_model_weights(card.architecture)[card.weights]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        with _timeout(DOWNLOAD_TIMEOUT_S):
            model: nn.Module = torchvision_models.get_model(card.architecture, weights=weights)
    except (URLError, TimeoutError, ConnectionError) as error:
        file = Path(weights.url).name
        raise WeightsUnavailableError(
            f"the weights of {card.name} are not on the worker's machine and could not be fetched; "
            f"put {file} into {folder}, or run the worker once where there is a network"
        ) from error
    return model


def without_weights(architecture: str, weights: str) -> nn.Module:
    """The untrained network."""
    entry = torchvision_models.get_model_weights(architecture)[weights]
    model: nn.Module = torchvision_models.get_model(architecture, weights=None, **_options(architecture, entry))
    return model


def _options(architecture: str, weights: Any) -> dict[str, Any]:
    """Options that torchvision's builders set when they are called with weights."""
    if architecture.startswith("vit_"):
        return {"image_size": weights.meta["min_size"][0]}
    if architecture in ("googlenet", "inception_v3"):
        return {"transform_input": True, "init_weights": False}
    return {}


def _preparation(transforms: Any) -> Preparation:
    (resize,), (crop,) = transforms.resize_size, transforms.crop_size
    return Preparation(
        resize=resize,
        crop=(crop, crop),
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Sets a time-out for torch.hub's downloads, which have none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
