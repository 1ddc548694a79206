"""The errors that a user of Occluscope can correct, in one hierarchy."""

from collections.abc import Iterable
from dataclasses import dataclass


class OccluscopeError(Exception):
    """The base. Its message is written for the user and has no internal details."""


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with one field.

    path: from the request's root to the field, joined by dots (``params.window.0``).
    message: the value, what is wrong with it, and what would be right.
    """

    path: str
    message: str


class InvalidInputError(OccluscopeError):
    """Fields of a request break a rule; the message names each."""

    def __init__(self, errors: Iterable[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(f"{error.path}: {error.message}" for error in self.errors))


class InvalidPictureError(OccluscopeError):
    """Bytes are not a picture in a format that is read, or the picture is over a limit."""


class WeightsUnavailableError(OccluscopeError):
    """A model's weights are not on this machine and cannot be downloaded."""


class UnitAbortedError(OccluscopeError):
    """A unit's computation has to end early: the lease is lost, or the worker stops."""
