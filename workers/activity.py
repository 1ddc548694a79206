"""What a worker is doing now, shared between its threads."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Activity:
    """Whether the worker is busy with a unit, and when it last made progress. Seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._busy = threading.Event()
        self._last_progress = time.monotonic()

    @property
    def is_busy(self) -> bool:
        """Whether a message is being handled."""
        return self._busy.is_set()

    @property
    def still_seconds(self) -> float:
        """Seconds since a message came, a unit reported progress, or a unit ended."""
        return time.monotonic() - self._last_progress

    def note_progress(self) -> None:
        """Note that something has progressed."""
        self._last_progress = time.monotonic()

    @contextmanager
    def working(self) -> Iterator[None]:
        """A message has come, and is handled in the block."""
        self.note_progress()
        self._busy.set()
        try:
            yield
        finally:
            self.note_progress()
            self._busy.clear()
