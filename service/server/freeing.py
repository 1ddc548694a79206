"""Freed memory goes back to the system instead of staying with each thread of the API."""

import ctypes
from typing import Final

# glibc's parameters, of malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = (
    2**20
)  # blocks of at least this size go back to the system when they are freed: pictures, arrays, figures
_ARENAS: Final = 2


def free_for_good() -> None:
    """Make glibc keep few free blocks. Call it before threads are started. No effect with another C library.

    By default glibc keeps freed blocks up to the size of the largest one freed so far (at most 32 MiB), separately for
    each thread: pictures drawn by eight threads in turn would stay in memory eight times.
    """
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        adjust(_M_ARENA_MAX, _ARENAS)
