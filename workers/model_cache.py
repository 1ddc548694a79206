"""Models kept loaded between units."""

import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
import torch

from occluscope.models import card
from occluscope.models.loading import LoadedModel, best_device, load

_PREPARED: Final = 2  # weights as loaded, and once more as the exact engine lays them out
_SHARE_OF_MEMORY: Final = 0.25
_SHARE_OF_GPU: Final = 0.5
_CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")

_log = structlog.get_logger(__name__)


class ModelCache:
    """The models used last, as many as fit. limit_bytes: of their weights, by default a share of the memory there is.

    The model asked for is loaded whatever its size.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self._limit = share_of_memory() if limit_bytes is None else limit_bytes
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()

    @property
    def names(self) -> list[str]:
        """Which are loaded, the one used longest ago first."""
        return list(self._loaded)

    def get(self, name: str) -> LoadedModel:
        """A model, loaded now if it is not kept.

        Raises
        ------
        occluscope.errors.WeightsUnavailableError
            Its weights are not here and could not be fetched.
        """
        if name not in self._loaded:
            self._loaded[name] = load(card(name))
            _log.info("model loaded", model=name, bytes=weight_bytes(self._loaded[name]))
        self._loaded.move_to_end(name)
        while len(self._loaded) > 1 and sum(map(weight_bytes, self._loaded.values())) > self._limit:
            evicted, _ = self._loaded.popitem(last=False)
            _log.info("model evicted", model=evicted)
        return self._loaded[name]

    def clear(self) -> None:
        """Let all go, as after running out of memory."""
        self._loaded.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def weight_bytes(model: LoadedModel) -> int:
    """What a model's parameters and buffers take, prepared copies included."""
    tensors = [*model.module.parameters(), *model.module.buffers()]
    return _PREPARED * sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def share_of_memory() -> int:
    """A quarter of the memory that this process may have, or half of the GPU's; bytes."""
    device = best_device()
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * _SHARE_OF_GPU)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # where there is no such limit
        memory = min(memory, int(_CGROUP_LIMIT.read_text()))
    return int(memory * _SHARE_OF_MEMORY)
