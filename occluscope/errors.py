"""Every error that a user of Occluscope can mend, in one hierarchy."""

from collections.abc import Iterable
from dataclasses import dataclass


class OccluscopeError(Exception):
    """The base: its message is written for the user and safe to show to one."""


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with one field.

    path: the field's way from the request's root, joined by dots (``params.window.0``).
    message: what is wrong with which value, and what would be right.
    """

    path: str
    message: str


class InvalidInputError(OccluscopeError):
    """Fields of a request that break a rule; names each."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(f"{error.path}: {error.message}" for error in self.errors))


class InvalidPictureError(OccluscopeError):
    """Bytes that are no picture we read, or one over a limit."""


class WeightsUnavailableError(OccluscopeError):
    """A model's weights are neither on this machine nor to be fetched."""


class UnitAbortedError(OccluscopeError):
    """A unit's computation was told to end early (lease lost, worker stopping)."""
