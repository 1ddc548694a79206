"""Large pictures are decoded and drawn one at a time, and their memory is given back afterwards.

A decoded picture of `occluscope.pictures.MAX_PIXELS` takes 4 bytes a pixel (256 MB) and as much again while it is
converted to RGB; an overlay of `occluscope.rendering.render.MAX_SIDE` takes some 200 MB more. So the peak is about
0.8 GB, for eight requests at once as for one.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LARGE_PIXELS: Final = 4_000_000  # width × height; smaller pictures need not wait
WAIT_SECONDS: Final = 60.0
_large: Final = threading.Lock()


class TooManyLargePicturesError(Exception):
    """Other large pictures took too long; the same request may be sent again."""


@contextmanager
def turn(pixels: int, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Wait until no other large picture is being decoded or drawn, and keep others waiting; a small one never waits.

    pixels: width × height of the larger of what is decoded and what is drawn.

    Raises
    ------
    TooManyLargePicturesError
        Other pictures took all of `wait_seconds`.
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
    """Make the C library return free memory; otherwise it would keep what large pictures took."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    if trim is not None:
        trim(0)
