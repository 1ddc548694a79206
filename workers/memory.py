"""A worker's memory: how much it uses, how much it may keep between two units, and how it frees memory."""

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
BESIDE_MODELS: Final = 3 * 2**30  # bytes: the process itself, and 2 GiB of freed activations that glibc may keep

_log = structlog.get_logger(__name__)


def resident_bytes() -> int:
    """Bytes of memory that this process uses."""
    return int(_STATM.read_text().split()[1]) * resource.getpagesize()


def machine_bytes() -> int:
    """Bytes of memory that this process may use: the machine's, or its control group's."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no such limit
        memory = min(memory, int(_CGROUP_LIMIT.read_text()))
    return memory


def give_back() -> None:
    """Free unreachable objects, and give free blocks of glibc and of the GPU's cache back to the system."""
    gc.collect()
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory_bound(models_bytes: int) -> int:
    """The most bytes that a worker may use between units. models_bytes: of its models, which count only on a CPU."""
    return BESIDE_MODELS + (0 if torch.cuda.is_available() else models_bytes)


def end_in_order() -> None:
    """Ask this process to end as its supervisor would: its unit is finished or given back, and its exit status is 0."""
    os.kill(os.getpid(), signal.SIGTERM)


def is_within(bound: int) -> bool:
    """Whether the process uses at most this many bytes; if not, it frees what it can first."""
    try:
        before = resident_bytes()
        if before <= bound:
            return True
        give_back()
        after = resident_bytes()
    except OSError:  # it cannot be measured
        return True
    _log.info("memory given back", before_bytes=before, after_bytes=after, bound_bytes=bound)
    return after <= bound
