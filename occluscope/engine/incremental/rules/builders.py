"""The rules that come with Occluscope: PyTorch's layers and functions, and torchvision's own."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.utils import _pair

from occluscope.engine.incremental.kernels import Activation
from occluscope.engine.incremental.rules.affine import Affine
from occluscope.engine.incremental.rules.convolution import Convolution
from occluscope.engine.incremental.rules.pointwise import Pointwise
from occluscope.engine.incremental.rules.pooling import AdaptiveAverage, AveragePool, GlobalMean, MaxPool
from occluscope.engine.incremental.rules.reshaping import Padding, Same, Shape
from occluscope.engine.incremental.rules.table import Call, Translation, full_name, rule, without_in_place

_NCHW_TO_NHWC: Final = (0, 2, 3, 1)
_NHWC_TO_NCHW: Final = (0, 3, 1, 2)
# By name: importing them would add a second to the start of every worker.
_CHANNEL_SHUFFLE: Final = "torchvision.models.shufflenetv2.channel_shuffle"
_STOCHASTIC_DEPTH: Final = "torchvision.ops.stochastic_depth.stochastic_depth"

# Functions of single numbers. They never work in place, since a map may be read again.
_ACTIVATION_MODULES: Final = (
    nn.Sigmoid, nn.Tanh, nn.ELU, nn.SELU, nn.CELU, nn.Softplus, nn.Mish, nn.LeakyReLU, nn.Hardsigmoid,
    nn.LogSigmoid, nn.Softsign, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Threshold,
)  # fmt: skip
_ACTIVATION_FUNCTIONS: Final = (
    functional.sigmoid, functional.tanh, functional.elu, functional.selu, functional.celu, functional.softplus,
    functional.mish, functional.leaky_relu, functional.hardsigmoid, torch.sigmoid, torch.tanh, torch.exp,
    torch.sqrt, torch.abs, torch.neg, torch.square, torch.clamp,
)  # fmt: skip


@rule(nn.Conv2d)
def _conv_module(call: Call) -> Translation | None:
    module: nn.Conv2d = call.target
    padding = _symmetric(module)
    operation = Convolution(
        module.weight, module.bias, _two(module.stride), padding, _two(module.dilation), module.groups,
        module.padding_mode,
    )  # fmt: skip
    return operation, [call.args[0]]


@rule(functional.conv2d, torch.conv2d)
def _conv_function(call: Call) -> Translation | None:
    given = call.bind(
        "input", "weight", "bias", "stride", "padding", "dilation", "groups",
        bias=None, stride=1, padding=0, dilation=1, groups=1,
    )  # fmt: skip
    weight, bias = given["weight"], given["bias"]
    if not isinstance(weight, Tensor) or not isinstance(bias, Tensor | None) or isinstance(given["padding"], str):
        return None
    top, left = _two(given["padding"])
    operation = Convolution(
        weight, bias, _two(given["stride"]), (top, top, left, left), _two(given["dilation"]), given["groups"]
    )
    return operation, [given["input"]]


@rule(nn.BatchNorm2d)
def _batch_norm(call: Call) -> Translation | None:
    module: nn.BatchNorm2d = call.target
    if module.running_mean is None or module.running_var is None:
        return None
    scale = (module.running_var.double() + module.eps).rsqrt()
    if module.weight is not None:
        scale = scale * module.weight.double()
    shift = -module.running_mean.double() * scale
    if module.bias is not None:
        shift = shift + module.bias.double()
    return Affine(scale, shift, module.running_mean.dtype), [call.args[0]]


@rule(nn.ReLU, functional.relu, torch.relu, "relu")
def _relu(call: Call) -> Translation | None:
    return Pointwise(torch.relu, activation=Activation("relu")), [call.args[0]]


@rule(nn.ReLU6, functional.relu6)
def _relu6(call: Call) -> Translation | None:
    return _clamp(call, 0.0, 6.0)


@rule(nn.Hardtanh)
def _hardtanh(call: Call) -> Translation | None:
    return _clamp(call, float(call.target.min_val), float(call.target.max_val))


@rule(nn.SiLU, functional.silu)
def _silu(call: Call) -> Translation | None:
    return Pointwise(functional.silu, activation=Activation("swish")), [call.args[0]]


@rule(nn.Hardswish, functional.hardswish)
def _hardswish(call: Call) -> Translation | None:
    return Pointwise(functional.hardswish, activation=Activation("hardswish")), [call.args[0]]


@rule(nn.GELU, functional.gelu)
def _gelu(call: Call) -> Translation | None:
    kind = call.target.approximate if isinstance(call.target, nn.GELU) else call.kwargs.get("approximate", "none")
    return Pointwise(partial(functional.gelu, approximate=kind), activation=Activation("gelu", (), kind)), [
        call.args[0]
    ]


@rule(*_ACTIVATION_MODULES)
def _activation_module(call: Call) -> Translation | None:
    return Pointwise(without_in_place(call.target)), [call.args[0]]


@rule(nn.PReLU)
def _prelu(call: Call) -> Translation | None:
    return Pointwise(call.target, layouts=("nchw",)), [call.args[0]]


@rule(*_ACTIVATION_FUNCTIONS, "sigmoid", "tanh", "clamp", "abs", "sqrt", "square")
def _activation_function(call: Call) -> Translation | None:
    rest, settings = call.args[1:], {name: value for name, value in call.kwargs.items() if name != "inplace"}
    if any(isinstance(value, fx.Node) for value in (*rest, *settings.values())):
        return None
    target = call.target
    if isinstance(target, str):
        return Pointwise(lambda x: getattr(x, target)(*rest, **settings)), [call.args[0]]
    return Pointwise(lambda x: target(x, *rest, **settings)), [call.args[0]]


@rule(nn.Identity, nn.Dropout, nn.Dropout2d, functional.dropout, functional.dropout2d, _STOCHASTIC_DEPTH, "contiguous")
def _same(call: Call) -> Translation | None:
    drops_paths = full_name(call.target) == _STOCHASTIC_DEPTH
    if drops_paths or call.target in (functional.dropout, functional.dropout2d):
        names = ("input", "p", "mode", "training") if drops_paths else ("input", "p", "training")
        if call.bind(*names, training=True)["training"]:
            return None
    return Same(), [call.args[0]]


@rule(operator.add, operator.iadd, torch.add, operator.mul, operator.imul, torch.mul, operator.sub, operator.truediv)
def _arithmetic(call: Call) -> Translation | None:
    if len(call.args) != 2 or call.kwargs:
        return None
    target = {operator.iadd: operator.add, operator.imul: operator.mul}.get(call.target, call.target)
    first, second = call.args
    if isinstance(first, fx.Node) and isinstance(second, fx.Node):
        return Pointwise(target, is_sum=target in (operator.add, torch.add)), [first, second]
    if isinstance(first, fx.Node) and isinstance(second, int | float):
        return Pointwise(lambda x: target(x, second)), [first]
    if isinstance(second, fx.Node) and isinstance(first, int | float):
        return Pointwise(lambda x: target(first, x)), [second]
    return None


@rule(torch.cat, torch.concat)
def _join(call: Call) -> Translation | None:
    given = call.bind("tensors", "dim", dim=0)
    nodes = given["tensors"]
    if given["dim"] not in (1, -3) or not all(isinstance(node, fx.Node) for node in nodes):
        return None
    return Pointwise(lambda *maps: torch.cat(maps, dim=1), layouts=("nchw",)), list(nodes)


@rule("chunk", "split", torch.chunk, torch.split)
def _part(call: Call) -> Translation | None:
    given = call.bind("input", "size", "dim", dim=0)
    if given["dim"] not in (1, -3) or not isinstance(given.get("size"), int | list):
        return None
    part = torch.chunk if call.target in ("chunk", torch.chunk) else torch.split
    return Pointwise(lambda x: part(x, given["size"], dim=1), layouts=("nchw",)), [given["input"]]


@rule(operator.getitem)
def _pick(call: Call) -> Translation | None:
    """Indexing: one of several maps, or one channel as a map of one channel (x[:, c].unsqueeze(1))."""
    source, index = call.args
    if isinstance(index, int):
        return Pointwise(lambda parts: parts[index], layouts=("nchw",)), [source]
    if _is_channel(index) and call.users and all(_restores_channel(user) for user in call.users):
        channel = index[1]
        return Pointwise(lambda x: x[:, channel : channel + 1], layouts=("nchw",)), [source]
    return None


@rule(torch.unsqueeze, "unsqueeze")
def _restore_channel(call: Call) -> Translation | None:
    source = call.args[0]
    one_channel = source.target is operator.getitem and _is_channel(source.args[1])
    restores = one_channel and all(_restores_channel(user) for user in source.users)
    return (Same(), [source]) if restores else None


@rule(_CHANNEL_SHUFFLE)
def _shuffle(call: Call) -> Translation | None:
    groups = call.args[1]
    return Pointwise(lambda x: functional.channel_shuffle(x, groups), layouts=("nchw",)), [call.args[0]]


@rule(torch.permute, "permute")
def _permute(call: Call) -> Translation | None:
    order = call.args[1:] if isinstance(call.args[1], int) else tuple(call.args[1])
    if order == _NCHW_TO_NHWC:
        return Pointwise(lambda x: x.permute(order), ("nchw",), "nhwc"), [call.args[0]]
    if order == _NHWC_TO_NCHW:
        return Pointwise(lambda x: x.permute(order), ("nhwc",), "nchw"), [call.args[0]]
    return None


@rule(nn.LayerNorm)
def _layer_norm_module(call: Call) -> Translation | None:
    one_axis = len(call.target.normalized_shape) == 1
    return (Pointwise(call.target, layouts=("nhwc",)), [call.args[0]]) if one_axis else None


@rule(functional.layer_norm)
def _layer_norm_function(call: Call) -> Translation | None:
    given = call.bind("input", "shape", "weight", "bias", "eps", weight=None, bias=None, eps=1e-5)
    if len(given["shape"]) != 1 or any(isinstance(given[name], fx.Node) for name in ("weight", "bias")):
        return None
    rest = [given[name] for name in ("shape", "weight", "bias", "eps")]
    return Pointwise(lambda x: functional.layer_norm(x, *rest), layouts=("nhwc",)), [given["input"]]


@rule(nn.Linear)
def _linear(call: Call) -> Translation | None:
    work = call.target.in_features * call.target.out_features
    return Pointwise(call.target, layouts=("nhwc",), work=work), [call.args[0]]


@rule(nn.MaxPool2d, functional.max_pool2d, torch.max_pool2d)
def _max_pool(call: Call) -> Translation | None:
    given = _settings(call, "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    if given.get("return_indices"):
        return None
    kernel = _two(given["kernel_size"])
    operation = MaxPool(
        kernel, _two(given.get("stride") or kernel), _two(given.get("padding") or 0), _two(given.get("dilation") or 1),
        bool(given.get("ceil_mode")),
    )  # fmt: skip
    return operation, [call.args[0]]


@rule(nn.AvgPool2d, functional.avg_pool2d)
def _average_pool(call: Call) -> Translation | None:
    given = _settings(call, "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    kernel = _two(given["kernel_size"])
    operation = AveragePool(
        kernel, _two(given.get("stride") or kernel), _two(given.get("padding") or 0), bool(given.get("ceil_mode")),
        bool(given.get("count_include_pad", True)), given.get("divisor_override"),
    )  # fmt: skip
    return operation, [call.args[0]]


@rule(nn.AdaptiveAvgPool2d, functional.adaptive_avg_pool2d)
def _adaptive_average(call: Call) -> Translation | None:
    height, width = _pair(_settings(call, "output_size")["output_size"])
    if (height, width) == (1, 1):
        return GlobalMean(keep=True), [call.args[0]]
    return AdaptiveAverage(height, width), [call.args[0]]


@rule("mean", torch.mean)
def _mean(call: Call) -> Translation | None:
    given = call.bind("input", "dim", "keepdim", dim=None, keepdim=False)
    dims = given["dim"]
    if not isinstance(dims, list | tuple) or sorted(dim % 4 for dim in dims) != [2, 3]:
        return None
    return GlobalMean(keep=bool(given["keepdim"])), [given["input"]]


@rule(nn.ZeroPad2d, nn.ConstantPad2d, functional.pad)
def _pad(call: Call) -> Translation | None:
    widths: tuple[int, ...]
    if isinstance(call.target, nn.ConstantPad2d):
        widths, value = call.target.padding, float(call.target.value)
    else:
        given = call.bind("input", "pad", "mode", "value", mode="constant", value=0.0)
        if given["mode"] != "constant":
            return None
        if any(not isinstance(width, int) for width in given["pad"]):
            return None
        widths, value = tuple(given["pad"]), float(given["value"] or 0.0)
    if len(widths) != 4 or min(widths) < 0:
        return None
    left, right, top, bottom = widths
    return Padding((top, bottom, left, right), value), [call.args[0]]


@rule("size", getattr)
def _shape(call: Call) -> Translation | None:
    if call.target is getattr and call.args[1] != "shape":
        return None
    axis = call.args[1] if call.target == "size" and len(call.args) > 1 else None
    return Shape(axis), [call.args[0]]


def _is_channel(index: Any) -> bool:
    return isinstance(index, tuple) and len(index) == 2 and index[0] == slice(None) and isinstance(index[1], int)


def _restores_channel(node: fx.Node) -> bool:
    return node.target in (torch.unsqueeze, "unsqueeze") and node.args[1:] == (1,)


def _clamp(call: Call, low: float, high: float) -> Translation:
    def clamp(x: Tensor) -> Tensor:
        return x.clamp(low, high)

    return Pointwise(clamp, activation=Activation("hardtanh", (low, high))), [call.args[0]]


def _settings(call: Call, *names: str) -> dict[str, Any]:
    """A layer's settings, from the module or from a function's arguments after the first."""
    if isinstance(call.target, nn.Module):
        return {name: getattr(call.target, name) for name in names if hasattr(call.target, name)}
    return {**dict(zip(names, call.args[1:], strict=False)), **call.kwargs}


def _symmetric(module: nn.Conv2d) -> tuple[int, int, int, int]:
    """Padding (top, bottom, left, right): ``same`` may need one more pixel at the far side."""
    left, right, top, bottom = module._reversed_padding_repeated_twice  # noqa: SLF001 - the one place that has it
    return top, bottom, left, right


def _two(value: Any) -> tuple[int, int]:
    first, second = _pair(value)
    return int(first), int(second)
