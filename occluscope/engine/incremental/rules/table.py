"""The table of rules: from a traced call to an operation; users add their own with `rule`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from torch import fx, nn

from occluscope.engine.incremental.steps import Operation


@dataclass(frozen=True)
class Call:
    """One call of the traced network.

    target: the module, the function, or a method's name. args, kwargs: of the call, with tensors as nodes.
    constants: values of the parameters and buffers that the network reads, by node.
    users: the nodes that read the call's value.
    """

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    constants: dict[fx.Node, Any]
    users: tuple[fx.Node, ...] = ()

    def bind(self, *names: str, **defaults: Any) -> dict[str, Any]:
        """Arguments by name, in the order of a signature, with defaults for missing ones."""
        bound = {**defaults, **dict(zip(names, self.args, strict=False)), **self.kwargs}
        return {
            name: self.constants[value] if isinstance(value, fx.Node) and value in self.constants else value
            for name, value in bound.items()
        }


Translation = tuple[Operation, list[fx.Node]]
Builder = Callable[[Call], Translation | None]

RULES: Final[dict[Any, Builder]] = {}


def rule(*targets: Any) -> Callable[[Builder], Builder]:
    """Register a builder for module classes, functions or methods' names.

    A function of a package that is slow to import can be given by name: ``"package.module.function"``.
    The builder returns an operation and its input nodes, or None if it does not support this form of the call. The call
    then runs unchanged on whole values, which is exact but not faster.
    """

    def register(builder: Builder) -> Builder:
        for target in targets:
            RULES[target] = builder
        return builder

    return register


def translate(call: Call) -> Translation | None:
    """The operation for a call, if there is a rule."""
    key = type(call.target) if isinstance(call.target, nn.Module) else call.target
    try:
        builder = RULES.get(key) or RULES.get(full_name(key))
    except TypeError:  # a target that is not hashable
        return None
    return builder(call) if builder else None


def full_name(function: Any) -> str | None:
    """A function's module and name, as ``"package.module.function"``; None if it has none."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return f"{module}.{name}" if module and name else None


def without_in_place(module: nn.Module) -> nn.Module:
    """The module; if it works in place, a copy with the same parameters that does not."""
    if not getattr(module, "inplace", False):
        return module
    changed = copy.copy(module)
    changed.inplace = False  # type: ignore[assignment]
    return changed
