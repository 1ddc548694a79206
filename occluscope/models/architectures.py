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
    """What builds a source's networks."""
    return cast("Builder", import_module(SOURCES[source].module))


def with_weights(card: ModelCard) -> nn.Module:
    """The trained network, on the CPU.

    Raises
    ------
    WeightsUnavailableError
        They are not on this machine and could not be fetched; names the folder where they would be looked for.
    """
    return builder(card.source).with_weights(card)


def without_weights(source: str, architecture: str, weights: str) -> nn.Module:
    """The bare network on the meta device: shapes and names, no memory, no numbers."""
    with _ParametersOnMeta():
        model = builder(source).without_weights(architecture, weights)
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
