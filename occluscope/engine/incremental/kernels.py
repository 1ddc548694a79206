"""Fast convolution: fused with the operations after it on a CPU, plain on other devices."""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

Pair = tuple[int, int]


@dataclass(frozen=True)
class Activation:
    """A pointwise function that oneDNN can apply while it writes a convolution's outputs.

    name, scalars, algorithm: arguments of PyTorch's interface to oneDNN's post-operations.
    """

    name: str
    scalars: tuple[float, ...] = ()
    algorithm: str = ""

    def __call__(self, x: Tensor) -> Tensor:
        """Apply the function in place; nothing else may read x."""
        match self.name:
            case "relu":
                return torch.relu_(x)
            case "hardtanh":
                return x.clamp_(*self.scalars)
            case "swish":
                return functional.silu(x, inplace=True)
            case "hardswish":
                return functional.hardswish(x, inplace=True)
            case "gelu":
                return functional.gelu(x, approximate=self.algorithm)
            case _:
                raise ValueError(f"no such activation: {self.name}")


_WITH_SUM: Final = frozenset({"relu"})  # activations that oneDNN can apply after a fused sum
_FUSED: Final = hasattr(torch.ops.mkldnn, "_convolution_pointwise") and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def has_fused_kernels(device: torch.device) -> bool:
    """Whether `convolve` fuses on this device."""
    return _FUSED and device.type == "cpu"


def fuses_sum_with(activation: Activation | None) -> bool:
    """Whether one kernel can compute a convolution, a sum and then this activation."""
    return activation is None or activation.name in _WITH_SUM


@dataclass(frozen=True)
class Sliding:
    """Stride, padding and dilation of a kernel. padding: zeros that the kernel adds, the same on both sides."""

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int


def pack_weight(weight: Tensor, sliding: Sliding, shape: tuple[int, ...]) -> Tensor:
    """The weight in the kernel's own order for inputs of this shape, so that not each call has to reorder it."""
    if not has_fused_kernels(weight.device) or weight.dtype != torch.float32:
        return weight
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(  # noqa: SLF001 - as torch's own compiler calls it
        weight, list(sliding.padding), list(sliding.stride), list(sliding.dilation), sliding.groups, list(shape)
    )
    return packed


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    sliding: Sliding,
    activation: Activation | None = None,
    addend: Tensor | None = None,
) -> Tensor:
    """activation(conv2d(x) + addend); x and the result are channels last. weight: packed or not."""
    stride, padding, dilation, groups = sliding.stride, sliding.padding, sliding.dilation, sliding.groups
    if has_fused_kernels(x.device) and x.dtype == torch.float32:
        geometry: tuple[Any, ...] = (list(padding), list(stride), list(dilation), groups)
        name = activation.name if activation else None
        if addend is not None:
            return torch.ops.mkldnn._convolution_pointwise.binary(  # type: ignore[no-any-return]  # noqa: SLF001
                x, addend, weight, bias, *geometry, "add", 1.0, name, [], ""
            )
        scalars, algorithm = (list(activation.scalars), activation.algorithm) if activation else ([], "")
        return torch.ops.mkldnn._convolution_pointwise(  # type: ignore[no-any-return]  # noqa: SLF001
            x, weight, bias, *geometry, name or "none", scalars, algorithm
        )
    y = functional.conv2d(x, weight, bias, stride, padding, dilation, groups)
    if addend is not None:
        y += addend
    return activation(y) if activation else y
