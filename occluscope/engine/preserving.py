"""Running somebody's model without leaving a trace in it."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from occluscope.engine.mutation import UntraceableError


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
                if not torch.equal(buffer, value):
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
    """Equal as long as no part, parameter, buffer, plain attribute or hook of the module has been changed."""
    values = [
        (id(value), value.data_ptr(), 0 if value.is_inference() else value._version)  # noqa: SLF001 - no public name
        for value in (*module.parameters(), *module.buffers())
        if not is_lazy(value)
    ]
    parts = [
        (
            id(part),
            len(part._forward_hooks),  # noqa: SLF001 - torch has no public way to ask
            len(part._forward_pre_hooks),  # noqa: SLF001
            *((name, value) for name, value in vars(part).items() if isinstance(value, bool | int | float | str)),
        )
        for part in module.modules()
    ]
    return *values, *parts


def _dictionaries(part: nn.Module) -> tuple[dict[str, Any], ...]:
    return part.__dict__, part._parameters, part._buffers, part._modules  # noqa: SLF001 - torch has no public names


def _contents(part: nn.Module) -> tuple[dict[str, Any], ...]:
    return tuple(dict(one) for one in _dictionaries(part))
