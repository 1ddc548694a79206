"""Merges steps: batch norm is folded into convolutions; padding, sums and activations are fused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from occluscope.engine.incremental.kernels import fuses_sum_with, has_fused_kernels
from occluscope.engine.incremental.rules.affine import Affine
from occluscope.engine.incremental.rules.convolution import Convolution
from occluscope.engine.incremental.rules.pointwise import Pointwise
from occluscope.engine.incremental.rules.reshaping import Padding, Same
from occluscope.engine.incremental.steps import Operation, Step


def shorten(steps: Sequence[Step], device: torch.device) -> list[Step]:
    """Replace pairs of steps that can be merged by one.

    steps: with the shapes of their values (only maps of one shape are summed in a kernel).
    device: where it will run.
    """
    steps = _without_same(steps)
    steps = _merged(steps, _pad_into_convolution)
    steps = _merged(steps, _affine_into_convolution)
    if has_fused_kernels(device):
        steps = _merged(steps, _activation_into_convolution)
        steps = _sum_into_convolution(steps)
        steps = _merged(steps, _activation_into_convolution)
    return [_channels_last(step) for step in steps]


def _without_same(steps: Sequence[Step]) -> list[Step]:
    """Remove operations that change nothing, except the last step, which is the output."""
    steps_left: list[Step] = []
    place: dict[int, int] = {}
    for index, step in enumerate(steps):
        inputs = tuple(place[source] for source in step.inputs)
        if isinstance(step.operation, Same) and index != len(steps) - 1:
            place[index] = inputs[0]
        else:
            place[index] = len(steps_left)
            steps_left.append(replace(step, inputs=inputs))
    return steps_left


def _merged(steps: Sequence[Step], merge: Callable[[Operation, Operation], Operation | None]) -> list[Step]:
    """Replace a step and its only reader by one step, if `merge` can merge them."""
    readers = Counter(source for step in steps for source in step.inputs)
    steps_left: list[Step] = []
    place: dict[int, int] = {}
    for index, step in enumerate(steps):
        inputs = tuple(place[source] for source in step.inputs)
        if len(step.inputs) == 1 and readers[step.inputs[0]] == 1:
            before = steps_left[inputs[0]]
            both = merge(before.operation, step.operation)
            if both is not None:
                steps_left[inputs[0]] = Step(step.name, both, before.inputs, step.shape)
                place[index] = inputs[0]
                continue
        place[index] = len(steps_left)
        steps_left.append(replace(step, inputs=inputs))
    return steps_left


def _pad_into_convolution(before: Operation, after: Operation) -> Operation | None:
    if not isinstance(before, Padding) or not isinstance(after, Convolution):
        return None
    if before.value != 0 or after.mode != "zeros" or after.with_addend:
        return None
    top, bottom, left, right = (own + more for own, more in zip(after.padding, before.widths, strict=True))
    return replace(after, padding=(top, bottom, left, right))


def _affine_into_convolution(before: Operation, after: Operation) -> Operation | None:
    if not isinstance(before, Convolution) or not isinstance(after, Affine):
        return None
    if before.activation is not None or before.with_addend:
        return None
    weight = (before.weight.double() * after.scale[:, None, None, None]).to(before.weight.dtype)
    bias = after.shift if before.bias is None else before.bias.double() * after.scale + after.shift
    return replace(before, weight=weight, bias=bias.to(before.weight.dtype))


def _activation_into_convolution(before: Operation, after: Operation) -> Operation | None:
    if not isinstance(before, Convolution) or not isinstance(after, Pointwise):
        return None
    if before.activation is not None or after.activation is None:
        return None
    if before.with_addend and not fuses_sum_with(after.activation):
        return None
    return replace(before, activation=after.activation)


def _sum_into_convolution(steps: Sequence[Step]) -> list[Step]:
    """If the later branch of a sum ends in a convolution, let the convolution add the other branch."""
    steps = list(steps)
    readers = Counter(source for step in steps for source in step.inputs)
    dropped: dict[int, int] = {}
    for index, step in enumerate(steps):
        if not isinstance(step.operation, Pointwise) or not step.operation.is_sum:
            continue
        earlier, later = sorted(step.inputs)
        convolution = steps[later].operation
        if (
            earlier != later
            and isinstance(convolution, Convolution)
            and readers[later] == 1
            and convolution.activation is None
            and not convolution.with_addend
            and steps[earlier].shape == steps[later].shape  # kernels do not broadcast a sum
        ):
            both = replace(convolution, with_addend=True)
            steps[later] = Step(step.name, both, (*steps[later].inputs, earlier), step.shape)
            dropped[index] = later
    return _without(steps, dropped)


def _without(steps: Sequence[Step], dropped: dict[int, int]) -> list[Step]:
    steps_left: list[Step] = []
    place: dict[int, int] = {}
    for index, step in enumerate(steps):
        if index in dropped:
            place[index] = place[dropped[index]]
            continue
        place[index] = len(steps_left)
        steps_left.append(replace(step, inputs=tuple(place[source] for source in step.inputs)))
    return steps_left


def _channels_last(step: Step) -> Step:
    if not isinstance(step.operation, Convolution):
        return step
    weight: Tensor = step.operation.weight.detach().contiguous(memory_format=torch.channels_last)
    bias = None if step.operation.bias is None else step.operation.bias.detach()
    return replace(step, operation=replace(step.operation, weight=weight, bias=bias))
