"""Attribution of pictures by the engine: only what each window changes is computed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from occluscope.attribution import scores
from occluscope.attribution.arguments import Call
from occluscope.attribution.windows import Drops, Windows
from occluscope.engine.covers import Cover, crop_windows
from occluscope.engine.following import Followed
from occluscope.windows import WindowGrid


class CannotFollowError(Exception):
    """The model, or this call of it, has to be run by whole passes; the message says why."""


def why_not(model: object, call: Call, outputs: Tensor) -> str | None:
    """Why a call cannot be followed, by its arguments; None if it can. outputs: of the target, uncovered."""
    if not isinstance(model, nn.Module):
        return "the layers of a function are not known"
    if any(part.training for part in model.modules()):
        return f"{type(model).__name__} is in training mode"
    if len(call.inputs) > 1 or call.more:
        return "there are several inputs, or additional_forward_args"
    (pictures,) = call.inputs
    if pictures.dim() != 4 or not pictures.is_floating_point():
        return f"inputs {pictures.dtype} {tuple(pictures.shape)} are no pictures [batch, channels, height, width]"
    if not pictures.numel() or outputs.dim() == 0 or len(outputs) != len(pictures):
        return "the model does not give outputs for each picture"
    return None


def attribute(followed: Followed, call: Call, base: Tensor, advance: Callable[[int], None]) -> Tensor:
    """As `whole.attribute`, for one input with pictures.

    Raises
    ------
    CannotFollowError
        Following gave wrong outputs.
    """
    (pictures,), (baselines,), (windows,) = call.inputs, call.baselines, call.windows
    of_samples = scores.one_each(call.target)
    grid, base = _Grid.of(windows), base.reshape(len(pictures), -1)
    drops = Drops(base.numel(), windows, pictures.device)
    for number, picture in enumerate(pictures):
        target = call.target if of_samples is None else of_samples[number]
        rows = slice(number * base.shape[1], (number + 1) * base.shape[1])
        for start, stop in grid.channels:
            cover = grid.cover(picture, baselines[number], slice(start, stop))
            for positions, outputs in followed.occluded(picture, grid.whole, cover, whole_batch=call.at_once):
                if followed.reason is not None:
                    raise CannotFollowError(followed.reason)
                of_windows = base[number] - scores.selected(outputs, target).reshape(len(positions), -1)
                for position, drop in zip(positions.tolist(), of_windows, strict=True):
                    y, x = grid.box(position)
                    drops.add((slice(start, stop), y, x), drop, rows)
                advance(len(positions))
    return drops.mean()


@dataclass(frozen=True)
class _Grid:
    """Captum's windows as a grid of whole windows. A window that is cut at the edge is moved inside and covers less.

    channels: the ranges that windows cover. whole: the grid of whole windows. top, left: the first covered row and
    column for each of the grid's rows and columns.
    """

    windows: Windows
    channels: tuple[tuple[int, int], ...]
    whole: WindowGrid
    top: tuple[int, ...]
    left: tuple[int, ...]

    @classmethod
    def of(cls, windows: Windows) -> "_Grid":
        (depth, height, width), (deep, high, wide) = windows.shape, windows.window
        channels, top, left = windows.starts
        y, x = tuple(min(one, height - high) for one in top), tuple(min(one, width - wide) for one in left)
        spans = tuple((start, min(start + deep, depth)) for start in channels)
        return cls(windows, spans, WindowGrid((high, wide), y, x), tuple(top), tuple(left))

    def box(self, position: int) -> tuple[slice, slice]:
        """Rows and columns that a window of the grid covers."""
        (_, height, width), (_, high, wide) = self.windows.shape, self.windows.window
        row, column = divmod(position, len(self.left))
        y, x = self.top[row], self.left[column]
        return slice(y, min(y + high, height)), slice(x, min(x + wide, width))

    def cover(self, picture: Tensor, baseline: Tensor, channels: slice) -> Cover:
        """The baseline where the window covers, and the picture itself in the rest of the whole window."""
        size = self.whole.window
        covered = picture.clone()
        covered[channels] = baseline[channels]
        rows, columns = (torch.arange(length, device=picture.device) for length in size)
        cut_y = _cut(self.whole.origins_y, self.top, rows)
        cut_x = _cut(self.whole.origins_x, self.left, columns)

        def cover(origins: Tensor) -> Tensor:
            in_y = rows >= cut_y[origins[:, 0]][:, None]
            in_x = columns >= cut_x[origins[:, 1]][:, None]
            inside = (in_y[:, :, None] & in_x[:, None, :])[:, None]
            return torch.where(inside, crop_windows(covered, origins, size), crop_windows(picture, origins, size))

        return cover


def _cut(origins: tuple[int, ...], starts: tuple[int, ...], like: Tensor) -> Tensor:
    """For each origin of a whole window, how far after it the covered part begins."""
    cut = torch.zeros(origins[-1] + 1, dtype=torch.int64, device=like.device)
    cut[list(origins)] = torch.tensor(starts, device=like.device) - torch.tensor(origins, device=like.device)
    return cut
