"""How much the tests try: ``make test`` tries some examples of many, ``make test-long`` tries them all."""

import os
from collections.abc import Iterable
from typing import Any, Final

import pytest

LONG: Final = os.environ.get("OCCLUSCOPE_TESTS") == "long"


def examples(some: int, many: int) -> int:
    """How many examples a property test draws."""
    return many if LONG else some


def some_of(every: Iterable[Any], some: Iterable[Any]) -> list[Any]:
    """Values for `pytest.mark.parametrize`: all of them, those that are not among `some` for the long run alone.

    Raises
    ------
    ValueError
        One of `some` is none of them.
    """
    every, some = list(every), list(some)
    if unknown := [value for value in some if value not in every]:
        raise ValueError(f"no such example: {unknown}")
    return [value if value in some else pytest.param(value, marks=pytest.mark.long) for value in every]
