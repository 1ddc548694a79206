"""Models kept loaded between units."""

from collections import OrderedDict
from typing import Final

import structlog
import torch

from occluscope.engine.holding import held_bytes
from occluscope.models.catalogue import card
from occluscope.models.loading import LoadedModel, best_device, load
from workers.memory import machine_bytes, resident_bytes

_SHARE_OF_MEMORY: Final = 0.25
_SHARE_OF_GPU: Final = 0.5
_GROWTH: Final = 64 * 2**20  # bytes of growth before the models are measured again: measuring takes some 50 ms a model

_log = structlog.get_logger(__name__)


class ModelCache:
    """The models used last, as many as fit. limit_bytes: of all that they hold between units, by default a share of the
    memory there is: weights, prepared networks with their plans and folded weights, half-precision copies.

    The model asked for is loaded whatever its size; where its weights alone are over the limit, nothing else is kept.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.limit_bytes = share_of_memory() if limit_bytes is None else limit_bytes
        self._loaded: OrderedDict[tuple[str, ...], LoadedModel] = OrderedDict()  # by what identifies the weights
        self._memory_when_counted = 0

    @property
    def names(self) -> list[str]:
        """The names of the loaded models, the one used longest ago first."""
        return [model.card.name for model in self._loaded.values()]

    @property
    def held_bytes(self) -> int:
        """Bytes that all of them hold on their device."""
        return model_bytes(*self._loaded.values())

    def get(self, name: str, owner: str = "") -> LoadedModel:
        """The model that the catalogue has now for this owner; loaded if it is not in the cache.

        Raises
        ------
        LookupError
            There is no such model for this owner.
        occluscope.errors.WeightsUnavailableError
            Its weights are not on this machine and could not be downloaded.
        """
        wanted = card(name, owner)
        key = wanted.identity
        kept = self._loaded.get(key)
        if (
            kept is None or kept.card != wanted
        ):  # another model may have the same weights, with another name or other labels
            self._loaded[key] = load(wanted)
            _log.info("model loaded", model=name, bytes=model_bytes(self._loaded[key]))
            self._memory_when_counted = 0
        self._loaded.move_to_end(key)
        self._keep_to_limit()
        return self._loaded[key]

    def settle(self) -> None:
        """After a unit: drop what was prepared for its pictures, then models used longest ago, down to the limit."""
        for model in self._loaded.values():
            model.forget_pictures()
        self._keep_to_limit()

    def clear(self) -> None:
        """Drop all models, as after running out of memory."""
        self._loaded.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _keep_to_limit(self) -> None:
        if _memory() < self._memory_when_counted + _GROWTH:
            return
        while self._loaded and (held := self.held_bytes) > self.limit_bytes:
            if len(self._loaded) == 1:
                (model,) = self._loaded.values()
                model.forget_prepared()
                _log.info("prepared networks let go", model=model.card.name, held_bytes=held)
                break
            _, evicted = self._loaded.popitem(last=False)
            _log.info("model evicted", model=evicted.card.name, held_bytes=held)
        self._memory_when_counted = _memory()


def model_bytes(*models: LoadedModel) -> int:
    """Bytes that models hold on their device: weights, prepared networks, plans, copies. Shared memory counts once."""
    return held_bytes(*models).get(best_device().type, 0)


def share_of_memory() -> int:
    """The default limit in bytes: a quarter of the memory that this process may use, or half of the GPU's."""
    device = best_device()
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * _SHARE_OF_GPU)
    return int(machine_bytes() * _SHARE_OF_MEMORY)


def _memory() -> int:
    """Bytes that tensors on the device take, or somewhat more."""
    return torch.cuda.memory_allocated() if best_device().type == "cuda" else resident_bytes()
