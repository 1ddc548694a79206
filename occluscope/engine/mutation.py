"""Replaces operations that change an existing value by ones that make a new value.

The engine keeps every value of the unoccluded picture and reads it again for each window, so no value may be changed.
`x.add_(y)` becomes `x + y`, and later operations that read ``x`` read the sum.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import fx, nn
from torch.nn import functional

from occluscope.errors import OccluscopeError

CLONES: Final = "clones_first"  # key of a node's meta: its call changes its first argument and therefore gets a copy


class UntraceableError(OccluscopeError):
    """A module cannot be followed from layer to layer, though it can be run; the message says why."""


# Functions that `x += y` and the like are traced as, and the operator that makes a new value.
_OPERATORS: Final[dict[Any, Callable[..., Any]]] = {
    operator.iadd: operator.add, operator.isub: operator.sub, operator.imul: operator.mul,
    operator.itruediv: operator.truediv, operator.ifloordiv: operator.floordiv, operator.imod: operator.mod,
    operator.ipow: operator.pow, operator.imatmul: operator.matmul, operator.iand: operator.and_,
    operator.ior: operator.or_, operator.ixor: operator.xor,
}  # fmt: skip
# Methods and functions for which rules know the form that makes a new value. All others run on a copy.
_METHODS: Final[dict[str, Any]] = {
    "add_": operator.add, "sub_": operator.sub, "mul_": operator.mul, "div_": operator.truediv, "relu_": "relu",
    "sigmoid_": "sigmoid", "tanh_": "tanh", "clamp_": "clamp", "abs_": "abs", "sqrt_": "sqrt", "square_": "square",
}  # fmt: skip
_FUNCTIONS: Final[dict[Any, Any]] = {
    torch.relu_: torch.relu, torch.sigmoid_: torch.sigmoid, torch.tanh_: torch.tanh, torch.exp_: torch.exp,
    torch.sqrt_: torch.sqrt, torch.abs_: torch.abs, torch.neg_: torch.neg, torch.square_: torch.square,
}  # fmt: skip
_BINARY: Final = frozenset(_OPERATORS.values())
# Calls that make a new value. Any other call may return a view of its input.
_FRESH_MODULES: Final = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm,
    nn.GroupNorm, nn.InstanceNorm2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
    nn.Upsample, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid,
    nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.PReLU, nn.Softmax, nn.LocalResponseNorm,
)  # fmt: skip
_FRESH_FUNCTIONS: Final = frozenset({
    operator.add, operator.sub, operator.mul, operator.truediv, operator.neg, operator.matmul, operator.pow,
    torch.add, torch.sub, torch.mul, torch.div, torch.cat, torch.concat, torch.stack, torch.matmul, torch.bmm,
    torch.relu, torch.sigmoid, torch.tanh, torch.exp, torch.sqrt, torch.abs, torch.neg, torch.square, torch.clamp,
    torch.mean, torch.sum, torch.softmax, torch.clone, torch.zeros_like, torch.ones_like, torch.empty_like,
    torch.conv2d, functional.conv2d, functional.linear, functional.relu, functional.relu6, functional.gelu,
    functional.silu, functional.leaky_relu, functional.elu, functional.hardswish, functional.hardsigmoid,
    functional.sigmoid, functional.tanh, functional.softmax, functional.layer_norm, functional.group_norm,
    functional.batch_norm, functional.instance_norm, functional.max_pool2d, functional.avg_pool2d,
    functional.interpolate,
})  # fmt: skip
_FRESH_METHODS: Final = frozenset({
    "clone", "add", "sub", "mul", "div", "neg", "relu", "sigmoid", "tanh", "exp", "sqrt", "abs", "square", "clamp",
    "mean", "sum", "softmax", "matmul", "bmm", "size", "dim",
})  # fmt: skip


def make_functional(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    """Change a graph so that no operation changes a value that another one reads.

    modules: by name, as the graph calls them; they are not changed.

    Raises
    ------
    UntraceableError
        A value is changed that is later also read through a view (a part or another shape of it), or that is a
        parameter or buffer of the model. What is read then is only known by running the model itself.
    """
    for node in graph.nodes:
        _take_inplace_away(node)
    order = {node: number for number, node in enumerate(graph.nodes)}
    same_memory: dict[
        fx.Node, set[fx.Node]
    ] = {}  # sets of nodes that may share memory; all nodes of a set refer to the same set
    for node in graph.nodes:
        target = _written_into(node, modules)
        shown = list(node.all_input_nodes) if target is None and not _is_fresh(node, modules) else []
        together = {node}.union(*(same_memory[one] for one in (shown if target is None else [target])))
        for member in together:
            same_memory[member] = together
        if target is not None:
            _check_views(node, target, together, order)
            for user in [user for user in target.users if order[user] > order[node]]:
                user.replace_input_with(target, node)
            _make_new(node)


def _take_inplace_away(node: fx.Node) -> None:
    """Remove ``inplace=True`` from a call (by name or position), and mark the call."""
    if node.op != "call_function" or isinstance(node.target, str):
        return
    try:
        bound = inspect.signature(node.target).bind(*node.args, **node.kwargs)
    except (TypeError, ValueError):  # a builtin, which has no such argument
        return
    if bound.arguments.get("inplace") is True:
        bound.arguments["inplace"] = False
        node.args, node.kwargs = bound.args, bound.kwargs
        node.meta["worked_in_place"] = True


def _written_into(node: fx.Node, modules: dict[str, nn.Module]) -> fx.Node | None:
    """The value that a call changes, if it changes one."""
    name = str(getattr(node.target, "__name__", node.target))
    in_place = name.endswith("_") and not name.endswith("__")
    match node.op:
        case "call_module":
            in_place = bool(getattr(modules[str(node.target)], "inplace", False))
        case "call_function":
            if isinstance(out := node.kwargs.get("out"), fx.Node):
                return out
            in_place = in_place or node.target in _OPERATORS or "worked_in_place" in node.meta
        case "call_method":
            pass
        case _:
            return None
    first = node.args[0] if node.args else next(iter(node.kwargs.values()), None)
    return first if in_place and isinstance(first, fx.Node) else None


def _is_fresh(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    match node.op:
        case "call_module":
            return isinstance(modules[str(node.target)], _FRESH_MODULES)
        case "call_function":
            return node.target in _FRESH_FUNCTIONS
        case "call_method":
            return node.target in _FRESH_METHODS
    return False


def _check_views(node: fx.Node, target: fx.Node, together: set[fx.Node], order: dict[fx.Node, int]) -> None:
    """Check that a changed value is later read by this name only, not through a view."""
    for member in together:
        if member.op == "get_attr":
            raise UntraceableError(f"it writes into its own parameter or buffer {member.target}")
        read_later = any(order[user] > order[node] for user in member.users)
        if member not in (node, target) and order[member] < order[node] and read_later:
            raise UntraceableError(f"it writes into a value ({target}) of which a view ({member}) is read later")


def _make_new(node: fx.Node) -> None:
    """The same call in the form that makes a new value; if there is none, on a copy."""
    if isinstance(node.kwargs.get("out"), fx.Node):
        node.kwargs = {name: value for name, value in node.kwargs.items() if name != "out"}
        return
    if node.op == "call_module" or "worked_in_place" in node.meta:
        return  # modules are copied where they are called (see `without_in_place`)
    known: dict[Any, Any] = _METHODS if node.op == "call_method" else {**_FUNCTIONS, **_OPERATORS}
    new = known.get(node.target)
    if new is not None and not node.kwargs and (new not in _BINARY or len(node.args) == 2):
        node.target = new
        node.op = "call_method" if isinstance(node.target, str) else "call_function"
        return
    node.meta[CLONES] = True
