"""Running somebody's model without leaving a trace in it."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from occluscope.engine.mutation import UntraceableError

_SAMPLE: Final = 64  # of a tensor's values: what its sum cannot see, two values that change places
_OWN_DICTIONARIES: Final = frozenset(vars(nn.Module())) - {"training"}  # what torch itself keeps in every module
_LONG: Final = 1000  # entries: a container of more holds data rather than a setting


@contextmanager
def preserved(module: nn.Module) -> Iterator[None]:
    """Put back, whatever happens meanwhile, what running a module may change of it.

    Its modules' attributes, flags, parameters and buffers by name, and its buffers' values (batch norm in training mode
    counts what it sees). Not what an attribute holds inside, such as a list that the model appends to.
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
    """The module again, with the same parameters but buffers, attributes and flags of its own.

    Raises
    ------
    UntraceableError
        It is in training mode, it has hooks (which may look at what runs or change it), or it cannot be copied.
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
    """Equal as long as no part, parameter, buffer, plain attribute or hook of the module has been changed.

    Values are compared, not how often torch has noted a change: it notes none that goes through ``.data``.
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
    """What of an attribute can be compared later: plain values, tensors, and containers of them."""
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
    """Of all a tensor's bits, and a sample of them in order; of what has none to show (meta, opaque), what it is."""
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
    """Whether a buffer still has that value; of what cannot be compared it is believed (meta tensors have none)."""
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
