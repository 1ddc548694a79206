"""If memory runs out, go on with half as many windows in a batch."""

import warnings
from collections.abc import Callable, Iterator
from typing import Final, ParamSpec, TypeVar

import torch

_HOST_MEMORY: Final = ("DefaultCPUAllocator", "could not create a memory", "could not create a primitive", "bad_alloc")
P = ParamSpec("P")
T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no memory left. For the host torch raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _HOST_MEMORY)
    )


def unless_out_of_memory(batch: int, run: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call `run`. If memory runs out, warn and return None, so that the caller can try a smaller batch.

    batch: windows in the batch. With a single one the error is raised.
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
    """Run `count` items in batches of `most`. If memory runs out, the batch is halved.

    Yields the slice of each batch and what `run` returns for it.
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
