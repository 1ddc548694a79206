"""Measures the memory of objects: every tensor and array that can be reached from them, counted once."""

import gc
from collections import defaultdict
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

_NO_WAY: Final = (str, bytes, int, float, complex, type, ModuleType, CodeType, FrameType, BuiltinFunctionType)


def held_bytes(*roots: Any) -> dict[str, int]:
    """Bytes of the tensors and NumPy arrays that can be reached from objects, by type of device (``cpu``, ``cuda``).

    Attributes, containers, closures and bound methods are followed; classes, modules and functions' globals are not.
    Tensors that share storage (views, shared parameters) are counted once, with their whole storage.
    """
    sizes: dict[tuple[str, int], int] = {}  # by device and address
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        one = waiting.pop()
        if isinstance(one, _NO_WAY) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            _note_tensor(one, sizes)
            waiting.append(one.grad if one.is_leaf else None)
        elif isinstance(one, np.ndarray):
            _note_array(one, sizes)
        else:
            waiting += _leads_to(one)
    found: dict[str, int] = defaultdict(int)
    for (device, _), size in sizes.items():
        found[device] += size
    return dict(found)


def _leads_to(one: Any) -> list[Any]:
    if isinstance(one, FunctionType):
        return [one.__closure__, one.__defaults__, one.__kwdefaults__]
    if isinstance(one, torch.jit.ScriptModule):
        return [*one.parameters(), *one.buffers()]
    return gc.get_referents(one)


def _note_tensor(tensor: Tensor, sizes: dict[tuple[str, int], int]) -> None:
    device = tensor.device.type
    if device == "meta":
        return
    try:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
    except (RuntimeError, NotImplementedError):  # sparse, or of an opaque layout
        place, size = id(tensor), tensor.numel() * tensor.element_size()
    sizes[device, place] = max(size, sizes.get((device, place), 0))


def _note_array(array: np.ndarray, sizes: dict[tuple[str, int], int]) -> None:
    base: Any = array
    while isinstance(base.base, np.ndarray):
        base = base.base
    place = base.__array_interface__["data"][0]
    sizes["cpu", place] = max(base.nbytes, sizes.get(("cpu", place), 0))
