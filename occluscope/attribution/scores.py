"""Selects the outputs that are followed, as Captum reads `target`."""

from collections.abc import Callable
from inspect import signature
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from occluscope.attribution.arguments import WrongArgumentError


def run(model: Callable[..., Any], inputs: tuple[Tensor, ...], more: tuple[Any, ...], target: Any) -> Tensor:
    """Run the model and select the outputs of the target. A function without parameters is called without arguments."""
    outputs = model(*inputs, *more) if _takes_arguments(model) else model()
    if isinstance(outputs, int | float) and target is None:
        return torch.tensor(outputs, dtype=torch.float64 if isinstance(outputs, float) else torch.int64)
    if not isinstance(outputs, Tensor):
        given = type(outputs).__name__
        raise WrongArgumentError(f"the model must give a tensor, or where there is no target a number, not {given}")
    return selected(outputs, target)


def selected(outputs: Tensor, target: Any) -> Tensor:
    """The outputs of the target: one index for all samples of [samples, …], or a list or tensor with one for each.

    An index is a whole number, or a tuple of them for the first axes after the samples'. Other axes stay.
    """
    if target is None:
        return outputs
    of_samples = one_each(target)
    if of_samples is None:
        return outputs[(slice(None), *_index(target, outputs))]
    if outputs.dim() == 0 or len(of_samples) != len(outputs):
        raise WrongArgumentError(f"target has {len(of_samples)} entries for outputs of shape {tuple(outputs.shape)}")
    whole = all(isinstance(one, Integral) for one in of_samples)
    if whole and outputs.dim() != 2:
        raise WrongArgumentError(
            f"target gives one number a sample, which takes outputs [samples, classes], not {tuple(outputs.shape)}"
        )
    return torch.stack([outputs[(number, *_index(one, outputs))] for number, one in enumerate(of_samples)])


def one_each(target: Any) -> list[Any] | None:
    """The targets of single samples; None if there is one for all."""
    if isinstance(target, list):
        return target
    if isinstance(target, Tensor) and target.numel() != 1:
        if target.dim() != 1:
            raise WrongArgumentError(f"target as a tensor has one axis, not the shape {tuple(target.shape)}")
        values: list[Any] = target.tolist()
        return values
    return None


def repeated(target: Any, times: int) -> Any:
    """The target for copies of all samples."""
    of_samples = one_each(target)
    return target if of_samples is None else of_samples * times


def repeated_more(more: tuple[Any, ...], times: int) -> tuple[Any, ...]:
    """Further arguments for copies of all samples: tensors with axes are repeated along the first, others are not."""
    return tuple(torch.cat([one] * times) if isinstance(one, Tensor) and one.dim() else one for one in more)


def _index(target: Any, outputs: Tensor) -> tuple[Any, ...]:
    one = target.item() if isinstance(target, Tensor) else target
    index = one if isinstance(one, tuple) else (one,)
    if not all(isinstance(part, Integral | slice) for part in index):
        raise WrongArgumentError(f"target must be a class, a tuple of indices, or one of them a sample, not {one!r}")
    if len(index) > outputs.dim() - 1:
        raise WrongArgumentError(f"target {one!r} does not fit outputs of shape {tuple(outputs.shape)}")
    return index


def _takes_arguments(model: Callable[..., Any]) -> bool:
    try:
        return bool(signature(model).parameters)
    except (TypeError, ValueError):  # a function written in C may have no signature
        return True
