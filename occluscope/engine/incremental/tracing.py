"""From a module to a list of steps: it is traced and translated by the rules."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from occluscope.engine.incremental.rules import builders  # noqa: F401 - registers the rules
from occluscope.engine.incremental.rules.pooling import GlobalMean
from occluscope.engine.incremental.rules.table import RULES, Call, translate, without_in_place
from occluscope.engine.incremental.steps import Constant, Input, Native, Operation, Step
from occluscope.engine.mutation import CLONES, UntraceableError, make_functional

__all__ = ["UntraceableError", "trace"]


class _Tracer(fx.Tracer):
    """Does not trace into modules that have a rule, nor into torch's own layers."""

    def __init__(self) -> None:
        shufflenet = sys.modules.get("torchvision.models.shufflenetv2")  # already imported if a model uses it
        super().__init__(autowrap_functions=(shufflenet.channel_shuffle,) if shufflenet else ())
        self.outputs: dict[str, fx.Node] = {}  # the last output of each module, by the module's name

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in RULES or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        output = super().call_module(m, forward, args, kwargs)
        if isinstance(output, fx.Proxy):
            self.outputs[self.path_of_module(m)] = output.node
        return output


def trace(module: nn.Module, layers: Sequence[str] = ()) -> list[Step]:
    """The module's steps. The first is its input, the last its output.

    Parameters are shared with the module.
    layers: names of modules that give maps; their channels' sums over space are appended to the output.

    Raises
    ------
    UntraceableError
        torch.fx cannot trace the module, it has several inputs, its output is not one tensor, or a layer does not run.
    """
    name = type(module).__name__
    tracer = _Tracer()
    try:
        graph = tracer.trace(module)
    except Exception as error:
        raise UntraceableError(f"{name} cannot be traced: {error}") from error
    modules = dict(module.named_modules())
    try:
        make_functional(graph, modules)
        translation = _Translation(module, graph, modules)
    except UntraceableError as error:
        raise UntraceableError(f"{name} cannot be followed: {error}") from error
    unknown = [layer for layer in layers if layer not in tracer.outputs]
    if unknown:
        raise UntraceableError(f"{name}, traced, does not run {', '.join(unknown)}")
    return translation.with_sums([tracer.outputs[layer] for layer in layers])


class _Translation:
    """The steps of a graph, in the graph's order."""

    def __init__(self, module: nn.Module, graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
        self.steps: list[Step] = []
        self._module = module
        self._modules = modules
        self._index: dict[fx.Node, int] = {}
        self._constants: dict[fx.Node, Any] = {}
        for node in graph.nodes:
            self._add(node)

    def with_sums(self, layers: Sequence[fx.Node]) -> list[Step]:
        """The steps, with the sums over space of these maps' channels appended to the output."""
        if not layers:
            return self.steps
        parts = [len(self.steps) - 1]
        for node in layers:
            parts.append(len(self.steps))
            self.steps.append(Step(f"{node.name}_sum", GlobalMean(keep=False, total=True), (self._index[node],)))
        self.steps.append(Step("output_and_sums", Native(lambda *values: torch.cat(values, dim=1)), tuple(parts)))
        return self.steps

    def _add(self, node: fx.Node) -> None:
        match node.op:
            case "placeholder":
                if self.steps:
                    if node.args:  # another argument, with a default
                        self._constants[node] = node.args[0]
                        self._append(node, Constant(node.args[0]), [])
                        return
                    raise UntraceableError("the model takes more than one input")
                self._append(node, Input(), [])
            case "get_attr":
                value = operator.attrgetter(str(node.target))(self._module)
                self._constants[node] = value
                self._append(node, Constant(value), [])
            case "output":
                (value,) = node.args
                if not isinstance(value, fx.Node):
                    raise UntraceableError("the model gives more than one tensor")
                if self._index[value] != len(self.steps) - 1:
                    self._append(node, Native(lambda x: x), [value])
            case _:
                self._add_call(node)

    def _add_call(self, node: fx.Node) -> None:
        target = self._modules[str(node.target)] if node.op == "call_module" else node.target
        translation = translate(Call(target, node.args, dict(node.kwargs), self._constants, tuple(node.users)))
        operation, inputs = translation or self._native(node, target)
        self._append(node, operation, inputs)

    def _append(self, node: fx.Node, operation: Operation, inputs: list[fx.Node]) -> None:
        self._index[node] = len(self.steps)
        self.steps.append(Step(node.name, operation, tuple(self._index[source] for source in inputs)))

    def _native(self, node: fx.Node, target: Any) -> tuple[Operation, list[fx.Node]]:
        """A function that runs the call unchanged, with its nodes as arguments in the order they appear."""
        nodes = list(node.all_input_nodes)
        function: Callable[..., Any]
        if node.op == "call_method":
            # Maps are channels last here, and some views of the model's own maps do not exist for them.
            sizes = not any(isinstance(value, torch.dtype) for value in node.args) and not node.kwargs
            method = "reshape" if target == "view" and sizes else str(target)

            def function(*args: Any, **kwargs: Any) -> Any:
                return getattr(args[0], method)(*args[1:], **kwargs)

        else:
            function = without_in_place(target) if isinstance(target, nn.Module) else target
        clones = bool(node.meta.get(CLONES))

        def call(*values: Any) -> Any:
            given = dict(zip(nodes, values, strict=True))
            args: Any = fx.map_arg(node.args, given.__getitem__)
            kwargs: Any = fx.map_arg(node.kwargs, given.__getitem__)
            return function(*([args[0].clone(), *args[1:]] if clones else args), **kwargs)

        return Native(call), nodes
