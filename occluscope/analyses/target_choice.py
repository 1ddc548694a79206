"""Targets as requests name them: a class by index or label, the most probable class, or a channel of a layer."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from occluscope.analyses.contract import Parameters
from occluscope.errors import FieldError
from occluscope.models.card import ModelCard
from occluscope.models.heads import ChannelHead, Head, own_head

MAX_TARGETS: Final = 16
TOP: Final = "top1"  # the class with the largest score for the unchanged picture


class ChannelTarget(Parameters):
    """A channel of a layer that gives maps: its activation, summed over space, is followed."""

    layer: str = Field(description="Name of the layer, as the model's card has it")
    channel: int = Field(ge=0, description="Index of the channel")


OneTarget = int | str | ChannelTarget


def _one_target(given: Any) -> OneTarget:
    if isinstance(given, dict) and given.keys() == {"layer", "channel"}:
        layer, channel = given["layer"], given["channel"]
        if isinstance(layer, str) and _is_whole(channel) and channel >= 0:
            return ChannelTarget(layer=layer, channel=channel)
    if _is_whole(given) or isinstance(given, str | ChannelTarget):
        return given  # type: ignore[no-any-return]
    raise ValueError('a target is a class index, a label, "top1", or {"layer": name, "channel": index}')


def _targets(given: Any) -> Any:
    if not isinstance(given, list | tuple):
        return _one_target(given)
    if not 1 <= len(given) <= MAX_TARGETS:
        raise ValueError(f"a list of targets has 1 to {MAX_TARGETS} of them, not {len(given)}")
    targets = tuple(_one_target(one) for one in given)
    if len(set(targets)) < len(targets):
        raise ValueError("a list of targets has each of them once")
    return targets


def _is_whole(given: Any) -> bool:
    return isinstance(given, int) and not isinstance(given, bool)


Targets = Annotated[
    OneTarget | Annotated[tuple[OneTarget, ...], Field(min_length=1, max_length=MAX_TARGETS)], BeforeValidator(_targets)
]


def head_of(target: OneTarget, card: ModelCard) -> Head:
    """The head that has the target's score."""
    return ChannelHead(card, target.layer) if isinstance(target, ChannelTarget) else own_head(card)


def index_of(target: OneTarget, head: Head) -> int | None:
    """The index of the target's score; None for the largest score, which depends on the picture.

    Raises
    ------
    LookupError
        The model has no such class, layer or channel.
    """
    if target == TOP:
        return None
    return head.index(target.channel if isinstance(target, ChannelTarget) else target)


def target_errors(target: OneTarget | Sequence[OneTarget], card: ModelCard) -> Iterator[FieldError]:
    """The errors of ``params.target``: classes, layers and channels that the model does not have."""
    several = isinstance(target, tuple)
    for position, one in enumerate(target if isinstance(target, tuple) else (target,)):
        try:
            index_of(one, head_of(one, card))
        except LookupError as error:
            yield FieldError(f"params.target.{position}" if several else "params.target", str(error.args[0]))
