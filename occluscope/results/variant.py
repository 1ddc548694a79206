"""Which of several results of one name: named parts, from the general to the particular."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self


@dataclass(frozen=True)
class Variant:
    """Parts as (name, value): ``(("window", "48×48"), ("target", "tripod"))``; none for the only one of its name.

    Values may be any text that people give: parts are compared whole, and never by how they read together.
    """

    parts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, **parts: str | None) -> Self:
        """Those parts that are there, in the order given."""
        return cls(tuple((name, value) for name, value in parts.items() if value))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild from `to_json`."""
        return cls(tuple((str(name), str(value)) for name, value in content.items()))

    def to_json(self) -> dict[str, str]:
        """An object with a field for each part, in their order."""
        return dict(self.parts)

    def within(self, **parts: str | None) -> Self:
        """With these parts before its own, as they are more general."""
        return type(self)((*type(self).of(**parts).parts, *self.parts))

    def among(self, **parts: str | None) -> Self:
        """With these parts after its own, as they are more particular."""
        return type(self)((*self.parts, *type(self).of(**parts).parts))

    def __bool__(self) -> bool:
        return bool(self.parts)

    def __str__(self) -> str:
        """For people: the values alone."""
        return " · ".join(str(value) for _, value in self.parts)


ONLY: Final = Variant()  # of a name that stands for one result
