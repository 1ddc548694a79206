"""What to do when memory runs out: go on with half as many windows at once."""

import warnings
from collections.abc import Callable, Iterator
from typing import Final, ParamSpec, TypeVar

import torch

_HOST_MEMORY: Final = ("DefaultCPUAllocator", "could not create a memory", "could not create a primitive", "bad_alloc")
P = ParamSpec("P")
T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no memory left (torch reports the host's as a plain RuntimeError)."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _HOST_MEMORY)
    )


def unless_out_of_memory(batch: int, run: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Run it; none, with a warning, where memory ran out and a smaller batch may do.

    batch: windows at once. With a single one the error goes to the caller.
    """
    try:
        return run(*args, **kwargs)
    except (RuntimeError, MemoryError) as error:
        if batch <= 1 or not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    warnings.warn(f"out of memory with {batch} windows at once; going on with {batch // 2}", stacklevel=3)
    return None


def in_batches(count: int, most: int, run: Callable[[slice], T]) -> Iterator[tuple[slice, T]]:
    """Run all of `count` things, `most` at once; where memory runs out half as many.

    Yields each batch's place and what `run` gave for it.
    """
    start = 0
    while start < count:
        part = slice(start, min(start + most, count))
        result = unless_out_of_memory(part.stop - part.start, run, part)
        if result is None:
            most = (part.stop - part.start) // 2
            continue
        start = part.stop
        yield part, result
