"""Finds models by name. The sources are asked in order, and the first that has the model gives its card. No torch.

To add a source, write a class with the methods of `Source` and enter it in `SOURCES`.
"""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Final, Protocol

from occluscope.models.card import ModelCard, close_names, shortened

_ROOT: Final = files("occluscope.models") / "cards"


class Source(Protocol):
    """Where models come from.

    module: name of the module that builds its networks and loads their weights (see `occluscope.models.sources`).
    """

    @property
    def module(self) -> str: ...

    def names(self, owner: str) -> Iterable[str]:
        """The models that this owner may use. The owner is empty for requests without a key."""

    def card(self, name: str, owner: str) -> ModelCard | None:
        """The card of a model; None if the source has no such model for this owner."""


class Shipped:
    """Models whose cards come with this package, for all owners. The files `cards/SOURCE/NAME.json` are read once.

    name: the source's name.
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
    """The card of one model. owner: of the request; some models are for certain owners only.

    Raises
    ------
    LookupError
        There is no such model for this owner; the message names similar ones.
    """
    for source in SOURCES.values():
        found = source.card(name, owner)
        if found is not None:
            return found
    known = [one for source in SOURCES.values() for one in source.names(owner)]
    raise LookupError(f"there is no model '{shortened(name)}'{close_names(name, known)}")


def cards(owner: str = "") -> dict[str, ModelCard]:
    """Every model that this owner may use, by name, in the order of the sources."""
    names = dict.fromkeys(name for source in SOURCES.values() for name in source.names(owner))
    return {name: card(name, owner) for name in names}
