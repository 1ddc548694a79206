"""Distinguishes several results of one name by named parts, from the general to the particular."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self


@dataclass(frozen=True)
class Variant:
    """Parts as (name, value): ``(("window", "48×48"), ("target", "tripod"))``; empty for the only result of its name.

    Values may be any text, since labels are: two variants are equal if all their parts are, not if they read the same.
    """

    parts: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, **parts: str | None) -> Self:
        """The variant of the parts that have a value, in this order."""
        return cls(tuple((name, value) for name, value in parts.items() if value))

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild from `to_json`."""
        return cls(tuple((str(name), str(value)) for name, value in content.items()))

    def to_json(self) -> dict[str, str]:
        """An object with a field for each part, in order."""
        return dict(self.parts)

    def within(self, **parts: str | None) -> Self:
        """The variant with more general parts before its own."""
        return type(self)((*type(self).of(**parts).parts, *self.parts))

    def among(self, **parts: str | None) -> Self:
        """The variant with more particular parts after its own."""
        return type(self)((*self.parts, *type(self).of(**parts).parts))

    def __bool__(self) -> bool:
        return bool(self.parts)

    def __str__(self) -> str:
        """The values only, for people."""
        return " · ".join(str(value) for _, value in self.parts)


ONLY: Final = Variant()  # the variant of a name with one result
