"""A worker's memory: how much it has, how much it may have between two units, and how it gives memory back."""

import ctypes
import gc
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
import torch

_STATM: Final = Path("/proc/self/statm")
_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
BESIDE_MODELS: Final = 3 * 2**30  # bytes: the process itself, and 2 GiB of freed activations that glibc keeps

_log = structlog.get_logger(__name__)


def resident_bytes() -> int:
    """Memory of this process."""
    return int(_STATM.read_text().split()[1]) * resource.getpagesize()


def machine_bytes() -> int:
    """Memory that this process may have: the machine's, or its control group's."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # where there is no such limit
        memory = min(memory, int(_CGROUP_LIMIT.read_text()))
    return memory


def give_back() -> None:
    """Give what is free back to the system: unreachable objects, glibc's freed blocks, a GPU's cached ones."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory_bound(models_bytes: int) -> int:
    """Most bytes that a worker has between units, where its models may take so many; on a GPU they take none here."""
    return BESIDE_MODELS + (0 if torch.cuda.is_available() else models_bytes)


def end_in_order() -> None:
    """Ask this process to end as its supervisor would: what is held is finished or given back, and the status is 0."""
    os.kill(os.getpid(), signal.SIGTERM)


def is_within(bound: int) -> bool:
    """Whether the process has no more than so many bytes, after giving back what it can if it had more."""
    try:
        before = resident_bytes()
        if before <= bound:
            return True
        give_back()
        after = resident_bytes()
    except OSError:  # not to be measured
        return True
    _log.info("memory given back", before_bytes=before, after_bytes=after, bound_bytes=bound)
    return after <= bound
