"""Memory of large models, given back after each."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest


@pytest.fixture(autouse=True)
def _give_memory_back() -> Iterator[None]:
    """The largest models take gigabytes, and `make test` has glibc keep what is freed; another process runs beside."""
    yield
    gc.collect()
    with suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
