"""Checks the arguments of `Occlusion.attribute` and brings them into one form."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from occluscope.attribution.windows import Windows


class WrongArgumentError(AssertionError, ValueError):
    """An argument has a wrong form. It is an `AssertionError` as well, since Captum raises that."""


@dataclass(frozen=True)
class Call:
    """The arguments of one call.

    inputs: [samples, …] each. several: whether they were a tuple. baselines: with the inputs' shapes and the type of
    covered copies. windows: of each input. more: the model's further arguments. at_once: windows in one pass.
    """

    inputs: tuple[Tensor, ...]
    several: bool
    baselines: tuple[Tensor, ...]
    windows: tuple[Windows, ...]
    target: Any
    more: tuple[Any, ...]
    at_once: int

    @classmethod
    def of(  # noqa: PLR0917 - Captum's arguments, in Captum's order
        cls, inputs: Any, shapes: Any, strides: Any, baselines: Any, target: Any, more: Any, at_once: Any
    ) -> "Call":
        """Check the arguments.

        Raises
        ------
        WrongArgumentError
            An argument has a wrong form; the message names it.
        """
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        if not given or not all(isinstance(one, Tensor) and one.dim() for one in given):
            raise WrongArgumentError("inputs must be a tensor [samples, …] or a tuple of such tensors")
        if not isinstance(at_once, Integral) or int(at_once) < 1:
            raise WrongArgumentError(f"perturbations_per_eval must be a whole number from 1 on, not {at_once!r}")
        tensors = tuple(one.detach() for one in given)
        return cls(
            tensors,
            isinstance(inputs, tuple),
            _baselines(baselines, tensors),
            tuple(map(_windows, tensors, _shapes(shapes, tensors), _strides(strides, tensors), range(len(tensors)))),
            target,
            () if more is None else more if isinstance(more, tuple) else (more,),
            int(at_once),
        )

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.inputs[0])


def _shapes(given: Any, inputs: Sequence[Tensor]) -> Sequence[Any]:
    if not isinstance(given, tuple):
        raise WrongArgumentError(f"sliding_window_shapes must be a tuple, not {given!r}")
    of_one = len(inputs) == 1 and (not given or isinstance(given[0], Integral))
    shapes = (given,) if of_one else given
    if len(shapes) != len(inputs):
        raise WrongArgumentError(f"sliding_window_shapes has {len(shapes)} shapes for {len(inputs)} inputs")
    return shapes


def _strides(given: Any, inputs: Sequence[Tensor]) -> Sequence[Any]:
    if given is None:
        return (1,) * len(inputs)
    if len(inputs) == 1 and not (isinstance(given, tuple) and len(given) == 1):
        return (given,)
    if not isinstance(given, tuple) or len(given) != len(inputs):
        raise WrongArgumentError(f"strides must be one for each of the {len(inputs)} inputs, not {given!r}")
    return given


def _windows(one: Tensor, window: Any, stride: Any, number: int) -> Windows:
    """The windows of one input."""
    shape = tuple(one.shape[1:])
    extents = _lengths(window, len(shape), f"sliding_window_shapes, of input {number}", least=0)
    steps = _lengths(
        (stride,) * len(shape) if isinstance(stride, Integral) else stride, len(shape), f"strides, of input {number}"
    )
    for length, extent, step in zip(shape, extents, steps, strict=True):
        if extent > length:
            raise WrongArgumentError(
                f"sliding_window_shapes {extents} is larger than a sample {shape} of input {number}"
            )
        if extent < length and step > extent:
            raise WrongArgumentError(f"strides {steps} are larger than the window {extents}: values would be left out")
    return Windows(shape, extents, steps)


def _lengths(given: Any, axes: int, name: str, least: int = 1) -> tuple[int, ...]:
    if (
        not isinstance(given, tuple)
        or len(given) != axes
        or not all(isinstance(one, Integral) and int(one) >= least for one in given)
    ):
        raise WrongArgumentError(f"{name}, must be {axes} positive whole numbers, one an axis, not {given!r}")
    return tuple(int(one) for one in given)


def _baselines(given: Any, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    of_inputs = (0,) * len(inputs) if given is None else given if isinstance(given, tuple) else (given,)
    if len(of_inputs) != len(inputs):
        raise WrongArgumentError(f"baselines must be one for each of the {len(inputs)} inputs, not {len(of_inputs)}")
    return tuple(map(_baseline, of_inputs, inputs, range(len(inputs))))


def _baseline(given: Any, one: Tensor, number: int) -> Tensor:
    """The baseline in the input's shape; floating-point if it has fractions, also for an input of whole numbers."""
    if isinstance(given, Tensor):
        kind = one.dtype if one.is_floating_point() else torch.promote_types(one.dtype, given.dtype)
        try:
            return given.detach().to(one.device, kind).expand(one.shape)
        except RuntimeError:
            pass
    elif isinstance(given, int | float):
        return torch.tensor(given, dtype=torch.result_type(one, given), device=one.device).expand(one.shape)
    shown = f"one of shape {tuple(given.shape)}" if isinstance(given, Tensor) else repr(given)
    raise WrongArgumentError(
        f"baselines must be a number or a tensor that fits input {number}, {tuple(one.shape)}, not {shown}"
    )
