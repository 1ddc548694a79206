"""Building a network, with or without its weights, by the source that its card names; needs torch."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from occluscope.models.card import Description, ModelCard
from occluscope.models.catalogue import SOURCES


class Builder(Protocol):
    """The half of a source that needs torch (see `occluscope.models.sources`)."""

    def descriptions(self) -> Iterator[Description]: ...

    def with_weights(self, card: ModelCard) -> nn.Module: ...

    def without_weights(self, architecture: str, weights: str) -> nn.Module: ...


def builder(source: str) -> Builder:
    """The module that builds a source's networks."""
    return cast("Builder", import_module(SOURCES[source].module))


def with_weights(card: ModelCard) -> nn.Module:
    """The trained network, on the CPU.

    Raises
    ------
    WeightsUnavailableError
        The weights are not on this machine and could not be downloaded; the message names the folder for them.
    """
    return builder(card.source).with_weights(card)


def without_weights(source: str, architecture: str, weights: str) -> nn.Module:
    """The untrained network on the meta device: it has shapes and names, but takes no memory."""
    with _ParametersOnMeta():
        model = builder(source).without_weights(architecture, weights)
    return model.to("meta")


class _ParametersOnMeta(TorchFunctionMode):
    """Puts parameters (made by ``torch.empty``) on the meta device; other tensors stay real, as RegNet reads them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
