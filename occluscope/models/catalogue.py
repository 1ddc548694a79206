"""Every model that can be asked for, by name: the sources in order, and the card that the first of them has. No torch.

A further source is a class with the methods of `Source`, entered in `SOURCES`.
"""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Final, Protocol

from occluscope.models.card import ModelCard, close_names, shortened

_ROOT: Final = files("occluscope.models") / "cards"


class Source(Protocol):
    """Where models come from.

    module: what builds its networks and loads their weights, with torch (see `occluscope.models.sources`).
    """

    @property
    def module(self) -> str: ...

    def names(self, owner: str) -> Iterable[str]:
        """The models that this owner may use; an empty owner is whoever asks without a key."""

    def card(self, name: str, owner: str) -> ModelCard | None:
        """The card of one of them; none where it has no such model for this owner."""


class Shipped:
    """Models whose cards come with this package, for everybody: `cards/SOURCE/NAME.json`. Read once: they never change.

    name: of the source, in its models' cards.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.module = f"occluscope.models.sources.{name}"
        self._names = cache(self._listed)
        self._read = cache(self._parsed)

    def names(self, _owner: str) -> Iterable[str]:
        return self._names()

    def card(self, name: str, _owner: str) -> ModelCard | None:
        return self._read(name) if name in self._names() else None

    def _listed(self) -> dict[str, None]:
        entries = (entry.name for entry in (_ROOT / self._name).iterdir())
        return dict.fromkeys(sorted(entry.removesuffix(".json") for entry in entries if entry.endswith(".json")))

    def _parsed(self, name: str) -> ModelCard:
        return ModelCard.model_validate_json((_ROOT / self._name / f"{name}.json").read_text(encoding="utf-8"))


SOURCES: Final[dict[str, Source]] = {name: Shipped(name) for name in ("bundled", "torchvision")}


def card(name: str, owner: str = "") -> ModelCard:
    """The card of one model. owner: who asks, for models that not everybody may use.

    Raises
    ------
    LookupError
        There is no such model for this owner; the message offers close names.
    """
    for source in SOURCES.values():
        found = source.card(name, owner)
        if found is not None:
            return found
    known = [one for source in SOURCES.values() for one in source.names(owner)]
    raise LookupError(f"there is no model '{shortened(name)}'{close_names(name, known)}")


def cards(owner: str = "") -> dict[str, ModelCard]:
    """Every model that this owner may use, by name: source by source."""
    names = dict.fromkeys(name for source in SOURCES.values() for name in source.names(owner))
    return {name: card(name, owner) for name in names}
