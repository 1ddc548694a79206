"""Attribution by whole passes: any model, any inputs, in Captum's order."""

from collections.abc import Callable
from itertools import islice
from typing import Any

from torch import Tensor

from occluscope.attribution import scores
from occluscope.attribution.arguments import Call, WrongArgumentError
from occluscope.attribution.windows import Box, Drops


def attribute(
    model: Callable[..., Any], call: Call, base: Tensor, advance: Callable[[int], None]
) -> tuple[Tensor, ...]:
    """Attributions of each input: float32 [outputs, *shape], with one row for each output of the uncovered inputs.

    base: the target's outputs for the uncovered inputs. advance: called with the number of windows run. A pass covers
    all samples with `at_once` windows. The windows of one input come after those of the input before.

    Raises
    ------
    WrongArgumentError
        A pass has several windows, and the outputs do not grow with the copies.
    """
    drops = [Drops(base.numel(), windows, one.device) for windows, one in zip(call.windows, call.inputs, strict=True)]
    todo = (
        (number, box)
        for number, windows in enumerate(call.windows)
        if call.inputs[number].numel()
        for box in windows.boxes()
    )
    while batch := list(islice(todo, call.at_once)):
        outputs = scores.run(
            model,
            _covered(call, batch),
            scores.repeated_more(call.more, len(batch)),
            scores.repeated(call.target, len(batch)),
        )
        _check_growth(base, outputs, len(batch), call.at_once)
        for (number, box), of_window in zip(batch, base.reshape(1, -1) - outputs.reshape(len(batch), -1), strict=True):
            drops[number].add(box, of_window)
        advance(len(batch))
    return tuple(one.mean() for one in drops)


def _covered(call: Call, batch: list[tuple[int, Box]]) -> tuple[Tensor, ...]:
    """Copies of all inputs, grouped by window."""
    copies = []
    for number, (one, baseline) in enumerate(zip(call.inputs, call.baselines, strict=True)):
        kind = baseline.dtype if any(place == number for place, _ in batch) else one.dtype
        of_windows = one.to(kind).repeat(len(batch), *(1 for _ in one.shape))  # [windows, samples, …]
        for copy, (place, box) in zip(of_windows, batch, strict=True):
            if place == number:
                copy[(slice(None), *box)] = baseline[(slice(None), *box)]
        copies.append(of_windows.flatten(0, 1))
    return tuple(copies)


def _check_growth(base: Tensor, outputs: Tensor, times: int, at_once: int) -> None:
    grow = base.dim() and outputs.dim() and len(outputs) == times * len(base)
    if outputs.numel() == times * base.numel() and (grow or at_once == 1):
        return
    shapes = f"uncovered it gives {tuple(base.shape)}, for {times} covered copies {tuple(outputs.shape)}"
    if at_once == 1:
        raise WrongArgumentError(f"the model must give outputs of one shape for inputs of one shape: {shapes}")
    raise WrongArgumentError(
        f"perturbations_per_eval must be 1: the model's outputs do not grow with its inputs: {shapes}"
    )
