"""Turns at large pictures: one is decoded or drawn at a time, and its memory is given back afterwards.

A picture at `occluscope.pictures.MAX_PIXELS` takes 4 bytes a pixel decoded (256 MB), as much again where it becomes
RGB, and an overlay of `occluscope.rendering.render.MAX_SIDE` some 200 MB beside: about 0.8 GB at its peak, and as
much for eight at once as for one.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LARGE_PIXELS: Final = 4_000_000  # width × height; smaller pictures take no turns
WAIT_SECONDS: Final = 60.0
_large: Final = threading.Lock()


class TooManyLargePicturesError(Exception):
    """No turn came in time; the same may be asked again."""


@contextmanager
def turn(pixels: int, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the process's one turn while a large picture is decoded or drawn; a small one goes on at once.

    pixels: width × height of the larger of what is decoded and what is drawn.

    Raises
    ------
    TooManyLargePicturesError
        Others' pictures took all of `wait_seconds`.
    """
    if pixels <= LARGE_PIXELS:
        yield
        return
    if not _large.acquire(timeout=wait_seconds):
        raise TooManyLargePicturesError
    try:
        yield
    finally:
        try:
            _give_back()
        finally:
            _large.release()


def _give_back() -> None:
    """Have the C library return what is free; without it, it keeps what large pictures took, for good."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
    if trim is not None:
        trim(0)
