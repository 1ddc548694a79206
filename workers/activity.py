"""What a worker does just now, as its threads tell each other."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Activity:
    """Idle, or busy with a unit; and since when nothing has happened. Seconds of the steady clock."""

    def __init__(self) -> None:
        self._busy = threading.Event()
        self._stirred = time.monotonic()

    @property
    def is_busy(self) -> bool:
        """Whether a message is being worked on."""
        return self._busy.is_set()

    @property
    def still_seconds(self) -> float:
        """How long ago a message came, a unit reported progress, or one ended."""
        return time.monotonic() - self._stirred

    def stir(self) -> None:
        """Something happened."""
        self._stirred = time.monotonic()

    @contextmanager
    def working(self) -> Iterator[None]:
        """A message came, and is worked on meanwhile."""
        self.stir()
        self._busy.set()
        try:
            yield
        finally:
            self.stir()
            self._busy.clear()
