"""Signals that ask a process to end, so that none is lost.

Python drops a `KeyboardInterrupt` that it raises while an object's finaliser or a weak reference's callback runs: it
prints 'Exception ignored in' and goes on. Imports run many of those.
"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def ctrl_c_ends_at_once() -> Iterator[None]:
    """Ctrl-C ends the process without an exception in the block: for imports, before there is anything to stop."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # it is ignored, or another handler is set
        return
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def signals_as_interrupts() -> Iterator[Callable[[], None]]:
    """Ctrl-C, SIGTERM and SIGHUP raise `KeyboardInterrupt` in the block.

    Yields a function that raises it again if Python dropped it; code that waits in the block calls it now and then.
    """
    asked = False

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        raise KeyboardInterrupt

    def raise_if_asked() -> None:
        if asked:
            raise KeyboardInterrupt

    numbers = [signal.SIGTERM, signal.SIGHUP]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield raise_if_asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
