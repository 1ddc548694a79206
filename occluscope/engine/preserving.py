"""Runs a user's model without changing it."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from occluscope.engine.mutation import UntraceableError

_SAMPLE: Final = 64  # values of a tensor that are compared too: a sum does not change if two values are exchanged
_OWN_DICTIONARIES: Final = frozenset(vars(nn.Module())) - {"training"}  # attributes that torch has in every module
_LONG: Final = 1000  # entries; a larger container is taken for data instead of a setting


@contextmanager
def preserved(module: nn.Module) -> Iterator[None]:
    """Restore at the end of the block, also after an error, what running a module may have changed.

    Restored are the attributes, flags, parameters and buffers of all modules, and the values of buffers (batch norm in
    training mode updates its statistics). The contents of attributes, such as a list that grows, are not restored.
    """
    parts = [part for part in module.modules() if not isinstance(part, torch.jit.ScriptModule)]
    before = [_contents(part) for part in parts]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers() if not is_lazy(buffer)]
    try:
        yield
    finally:
        for part, contents in zip(parts, before, strict=True):
            for now, then in zip(_dictionaries(part), contents, strict=True):
                if now.keys() != then.keys() or any(now[name] is not then[name] for name in then):
                    now.clear()
                    now.update(then)
        with torch.inference_mode():
            for buffer, value in buffers:
                if not _is_equal(buffer, value):
                    buffer.copy_(value)


def private_copy(module: nn.Module) -> nn.Module:
    """A copy of the module that shares its parameters, with its own buffers, attributes and flags.

    Raises
    ------
    UntraceableError
        The module is in training mode, has hooks (which may read or change values), or cannot be copied.
    """
    name = type(module).__name__
    if any(part.training for part in module.modules()):
        raise UntraceableError(f"{name} is in training mode")
    for part in module.modules():
        if part._forward_hooks or part._forward_pre_hooks:  # noqa: SLF001 - torch has no public way to ask
            raise UntraceableError(f"{name} has hooks, which may look at what it computes or change it")
    tensors = [value for part in module.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *tensors)}
    try:
        return copy.deepcopy(module, shared)
    except Exception as error:
        raise UntraceableError(f"{name} cannot be copied: {error}") from error


def fingerprint(module: nn.Module) -> tuple[Any, ...]:
    """A key that stays equal until a submodule, parameter, buffer, plain attribute or hook of the module changes.

    Values are compared instead of torch's version counters, which ignore changes through ``.data``.
    """
    values = [
        (value.device, value.dtype, tuple(value.shape), _checksum(value))
        for value in (*module.parameters(), *module.buffers())
        if not is_lazy(value)
    ]
    parts = [
        (
            id(part),
            len(part._forward_hooks),  # noqa: SLF001 - torch has no public way to ask
            len(part._forward_pre_hooks),  # noqa: SLF001
            *((name, _seen(value)) for name, value in vars(part).items() if name not in _OWN_DICTIONARIES),
        )
        for part in module.modules()
    ]
    return *values, *parts


def _seen(value: Any, depth: int = 4) -> Any:
    """The comparable form of an attribute: plain values, tensors, and containers of these."""
    if value is None or isinstance(value, bool | int | float | complex | str | torch.dtype | torch.device):
        return repr(value)
    if isinstance(value, Tensor):
        return None if is_lazy(value) else (value.device, value.dtype, tuple(value.shape), _checksum(value))
    if isinstance(value, dict | list | tuple) and len(value) > _LONG:
        return id(value), len(value)
    if depth and isinstance(value, dict):
        return tuple((repr(key), _seen(one, depth - 1)) for key, one in value.items())
    if depth and isinstance(value, list | tuple):
        return tuple(_seen(one, depth - 1) for one in value)
    return id(value)


def _checksum(value: Tensor) -> Any:
    """Checksum of a tensor's bits and a sample of its values; identity for tensors without values (meta, opaque)."""
    try:
        if value.layout != torch.strided:
            value = torch.cat([value._indices().flatten().double(), value._values().flatten().double()])  # noqa: SLF001
        if value.device.type == "meta":
            return id(value)
        octets = value.detach().contiguous().view(-1).view(torch.uint8)
        whole = len(octets) // 8 * 8
        words = octets[:whole].view(torch.int64)
        sample = words[:: max(len(words) // _SAMPLE, 1)].tolist()
        return int(words.sum()), *sample, *octets[whole:].tolist()
    except (RuntimeError, NotImplementedError):
        return id(value)


def _is_equal(buffer: Tensor, value: Tensor) -> bool:
    """Whether a buffer still has this value; True if it cannot be compared (meta tensors have no values)."""
    try:
        if buffer.layout == torch.sparse_coo:
            return torch.equal(buffer.to_dense(), value.to_dense())
        return torch.equal(buffer, value)
    except (RuntimeError, NotImplementedError):
        return True


def _dictionaries(part: nn.Module) -> tuple[dict[str, Any], ...]:
    return part.__dict__, part._parameters, part._buffers, part._modules  # noqa: SLF001 - torch has no public names


def _contents(part: nn.Module) -> tuple[dict[str, Any], ...]:
    return tuple(dict(one) for one in _dictionaries(part))
