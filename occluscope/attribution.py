"""`Occlusion`: takes what Captum's ``Occlusion.attribute`` takes for pictures, gives its numbers, sooner."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn

from occluscope.engine.covers import Cover, crop_windows
from occluscope.engine.following import Followed
from occluscope.engine.preserving import fingerprint, preserved
from occluscope.windows import WindowGrid

Target = int | tuple[int, ...] | Tensor | Sequence[int] | Sequence[tuple[int, ...]] | None


class Occlusion:
    r"""Occlusion (Zeiler & Fergus 2013): at each pixel the mean drop of a score over the windows covering it.

    .. math:: A(p) = \frac{1}{|W_p|} \sum_{w \in W_p} \bigl(f(x) - f(x_w)\bigr)

    Windows stand at 0, s, 2s, … along every axis; the last ones may hang over the far edge and are cut there, as
    Captum's are. Only what a window changes is computed (see `occluscope.engine.incremental`).

    >>> import occluscope  # doctest: +SKIP
    >>> occluscope.Occlusion(model).attribute(x, sliding_window_shapes=(3, 32, 32), strides=(3, 16, 16), target=281)

    Parameters
    ----------
    model: a module in eval mode, [batch, channels, height, width] → [batch, classes] (or [batch] with target None).
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
        if model.training:
            raise ValueError("the model must be in eval mode: call model.eval()")
        self._model = model
        self._followed: Followed | None = None
        self._fingerprint: tuple[Any, ...] = ()

    def attribute(  # noqa: PLR0917 - Captum's arguments, in Captum's order
        self,
        inputs: Tensor,
        sliding_window_shapes: tuple[int, ...],
        strides: int | tuple[int, ...] | None = None,
        baselines: float | Tensor | None = None,
        target: Target = None,
        additional_forward_args: None = None,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
    ) -> Tensor:
        """Attribution of every input value, shaped as `inputs`.

        inputs: [pictures, channels, height, width]. sliding_window_shapes: (channels, height, width).
        strides: one number, or one for each of the window's axes; none is 1. baselines: a number, or a tensor
        shaped as `inputs` or as one picture of them; none is 0. target: a class for all pictures, or one for each.
        perturbations_per_eval: batch size where the model has to be run by whole passes; otherwise it changes nothing.

        Raises
        ------
        ValueError, TypeError
            An argument is of no form that is described here; the message names it.
        """
        _check_inputs(inputs, additional_forward_args)
        geometry = _Geometry.of(inputs.shape[1:], sliding_window_shapes, strides)
        baseline = _baseline(baselines, inputs)
        targets = _targets(target, len(inputs))
        with preserved(self._model), Progress(disable=not show_progress) as progress:
            task = progress.add_task("Occlusion", total=len(inputs) * geometry.windows)
            followed = self._prepared(inputs[0])
            attributions = torch.empty_like(inputs)
            for number, picture in enumerate(inputs):
                with torch.inference_mode():
                    base = _score(self._model(picture[None].clone()), targets[number])
                total, count = np.zeros(picture.shape), np.zeros(picture.shape)
                for channels in geometry.channel_windows():
                    cover = geometry.cover(picture, baseline[number], channels)
                    drop = np.zeros(len(geometry.grid))
                    windows = followed.occluded(picture, geometry.grid, cover, whole_batch=perturbations_per_eval)
                    for positions, outputs in windows:
                        drop[positions.numpy()] = (base - _score(outputs, targets[number])).double().cpu().numpy()
                        progress.advance(task, len(positions))
                    geometry.add(total[channels], count[channels], drop)
                with np.errstate(invalid="ignore"):
                    attributions[number] = torch.from_numpy(total / count)
        self._fingerprint = fingerprint(self._model)
        return attributions

    def _prepared(self, picture: Tensor) -> Followed:
        """The model prepared; anew where it has been changed since."""
        if self._followed is None or self._fingerprint != fingerprint(self._model):
            self._followed = Followed(self._model, picture)
        return self._followed


@dataclass(frozen=True)
class _Geometry:
    """Captum's windows, laid on a grid of whole ones: one that hangs over the edge is moved inside and covers less.

    shape: of a picture; window, stride: channels, height, width. grid: where the whole windows stand.
    starts_y, starts_x: first covered row and column of each of the grid's rows and columns.
    """

    shape: tuple[int, int, int]
    window: tuple[int, int, int]
    stride: tuple[int, int, int]
    grid: WindowGrid
    starts_y: np.ndarray
    starts_x: np.ndarray

    @classmethod
    def of(cls, shape: Sequence[int], window: Any, strides: Any) -> "_Geometry":
        size = (int(shape[0]), int(shape[1]), int(shape[2]))
        wanted = _three(window, "sliding_window_shapes")
        stride = (
            (1, 1, 1) if strides is None else _three((strides,) * 3 if isinstance(strides, int) else strides, "strides")
        )
        for length, extent, step in zip(size, wanted, stride, strict=True):
            if extent > length:
                raise ValueError(f"sliding_window_shapes {wanted} is larger than a picture of {size}")
            if step > extent:
                raise ValueError(f"strides {stride} are larger than the window {wanted}: pixels would be left out")
        starts = [_starts(*axis) for axis in zip(size[1:], wanted[1:], stride[1:], strict=True)]
        y, x = (
            tuple(np.minimum(start, length - extent).tolist())
            for start, length, extent in zip(starts, size[1:], wanted[1:], strict=True)
        )
        grid = WindowGrid(wanted[1:], y, x)
        return cls(size, wanted, stride, grid, starts[0], starts[1])

    @property
    def windows(self) -> int:
        """How many windows there are over one picture."""
        return len(self.grid) * len(_starts(self.shape[0], self.window[0], self.stride[0]))

    def channel_windows(self) -> Iterator[slice]:
        """The channels that the windows span, one range after the other."""
        for start in _starts(self.shape[0], self.window[0], self.stride[0]).tolist():
            yield slice(start, min(start + self.window[0], self.shape[0]))

    def cover(self, picture: Tensor, baseline: Tensor, channels: slice) -> Cover:
        """The baseline where the window covers, the picture itself where the whole window reaches further."""
        height, width = self.grid.window
        first_y = dict(zip(self.grid.origins_y, self.starts_y.tolist(), strict=True))
        first_x = dict(zip(self.grid.origins_x, self.starts_x.tolist(), strict=True))
        covered = picture.clone()
        covered[channels] = baseline[channels]
        cut_y = torch.tensor([first_y.get(y, 0) - y for y in range(self.shape[1])], device=picture.device)
        cut_x = torch.tensor([first_x.get(x, 0) - x for x in range(self.shape[2])], device=picture.device)
        rows, columns = torch.arange(height, device=picture.device), torch.arange(width, device=picture.device)

        def cover(origins: Tensor) -> Tensor:
            in_y = rows >= cut_y[origins[:, 0]][:, None]
            in_x = columns >= cut_x[origins[:, 1]][:, None]
            inside = (in_y[:, :, None] & in_x[:, None, :])[:, None]
            replaced = crop_windows(covered, origins, (height, width))
            return torch.where(inside, replaced, crop_windows(picture, origins, (height, width)))

        return cover

    def add(self, total: np.ndarray, count: np.ndarray, drop: np.ndarray) -> None:
        """Add each window's drop, and one, to the values it covers."""
        columns = len(self.starts_x)
        for position, value in enumerate(drop.tolist()):
            y, x = int(self.starts_y[position // columns]), int(self.starts_x[position % columns])
            total[:, y : y + self.window[1], x : x + self.window[2]] += value
            count[:, y : y + self.window[1], x : x + self.window[2]] += 1


def _starts(length: int, window: int, stride: int) -> np.ndarray:
    return np.arange(math.ceil((length - window) / stride) + 1) * stride


def _three(value: Any, name: str) -> tuple[int, int, int]:
    if not isinstance(value, tuple) or len(value) != 3 or not all(isinstance(part, int) and part > 0 for part in value):
        raise ValueError(f"{name} must be three positive whole numbers (channels, height, width), not {value!r}")
    return value[0], value[1], value[2]


def _check_inputs(inputs: Any, additional_forward_args: Any) -> None:
    if not isinstance(inputs, Tensor) or inputs.dim() != 4:
        raise TypeError("inputs must be one tensor [pictures, channels, height, width]; tuples of inputs are not taken")
    if not inputs.is_floating_point():
        raise TypeError(f"inputs must be floating-point numbers, not {inputs.dtype}")
    if additional_forward_args is not None:
        raise TypeError("additional_forward_args are not taken; wrap the model in a module that holds them")


def _baseline(given: Any, inputs: Tensor) -> Tensor:
    if given is None or isinstance(given, int | float):
        return torch.full_like(inputs, given or 0)
    if not isinstance(given, Tensor) or given.shape[1:] != inputs.shape[1:] or len(given) not in (1, len(inputs)):
        shape = tuple(inputs.shape)
        raise ValueError(f"baselines must be a number, or a tensor shaped as inputs {shape} or as one picture")
    return given.to(inputs).expand_as(inputs)


def _targets(given: Any, pictures: int) -> list[Any]:
    """One target a picture."""
    if isinstance(given, Tensor):
        given = given.tolist()
    if given is None or isinstance(given, int | tuple):
        return [given] * pictures
    if not isinstance(given, list) or not all(isinstance(one, int | tuple) for one in given):
        raise TypeError(f"target must be a class, or one for each picture, not {given!r}")
    if len(given) == 1:
        return given * pictures
    if len(given) != pictures:
        raise ValueError(f"target has {len(given)} entries for {pictures} pictures")
    return given


def _score(outputs: Tensor, target: Any) -> Tensor:
    """The followed output of each copy: [batch]."""
    if target is None:
        if outputs.dim() != 1 and outputs[0].numel() != 1:
            raise ValueError(f"target is needed: the model gives {tuple(outputs.shape[1:])} numbers a picture")
        return outputs.reshape(len(outputs))
    index = target if isinstance(target, tuple) else (target,)
    if len(index) != outputs.dim() - 1:
        raise ValueError(f"target {target!r} does not fit outputs of shape {tuple(outputs.shape)}")
    return outputs[(slice(None), *index)]
