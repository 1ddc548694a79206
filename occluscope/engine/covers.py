"""Covers: for windows at origins [batch, 2], what replaces the picture in them, [batch, channels, height, width]."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from occluscope.windows import Size

Cover = Callable[[Tensor], Tensor]


def constant_cover(colour: Tensor, window: Size) -> Cover:
    """One colour everywhere. colour: broadcastable to [channels, height, width]."""
    return lambda origins: colour.expand(len(origins), -1, *window)


def picture_cover(replacement: Tensor, window: Size) -> Cover:
    """The same part of another picture, [channels, height, width]."""
    return lambda origins: crop_windows(replacement, origins, window)


def mean_cover(picture: Tensor, window: Size) -> Cover:
    """The mean colour of what the window covers."""

    def cover(origins: Tensor) -> Tensor:
        means = crop_windows(picture, origins, window).mean((2, 3), keepdim=True)
        return means.expand(-1, -1, *window)

    return cover


def gaussian_cover(picture: Tensor, window: Size) -> Cover:
    """The picture times 1 − a Gaussian around the window's centre, without a hard border.

    The Gaussian is 1 at the centre, and its standard deviation is a quarter of the window. MONAI's OcclusionSensitivity
    does this by default. On a normalised picture it fades to the normalisation mean.
    """
    y, x = (_bell(length, picture) for length in window)
    left = 1 - y[:, None] * x
    return lambda origins: crop_windows(picture, origins, window) * left


def crop_windows(picture: Tensor, origins: Tensor, window: Size) -> Tensor:
    """Parts of a picture: origins int64 [batch, 2] → [batch, channels, height, width]."""
    y = origins[:, :1] + torch.arange(window[0], device=origins.device)
    x = origins[:, 1:] + torch.arange(window[1], device=origins.device)
    return picture[:, y[:, :, None], x[:, None, :]].transpose(0, 1)


def covered(picture: Tensor, origins: Tensor, patches: Tensor) -> Tensor:
    """Copies of a picture [channels, height, width], each with one patch: [batch, channels, height, width].

    origins: int64 [batch, 2]; patches: [batch, channels, window height, window width].
    """
    copies = picture.expand(len(patches), -1, -1, -1).clone(memory_format=torch.channels_last)
    height, width = patches.shape[-2:]
    y = origins[:, :1] + torch.arange(height, device=picture.device)
    x = origins[:, 1:] + torch.arange(width, device=picture.device)
    numbers = torch.arange(len(patches), device=picture.device)[:, None, None]
    copies.permute(0, 2, 3, 1)[numbers, y[:, :, None], x[:, None, :]] = patches.permute(0, 2, 3, 1)
    return copies


def blurred(picture: Tensor, sigma: float) -> Tensor:
    """A picture [channels, height, width] with a Gaussian blur of `sigma` pixels; edge pixels are repeated outside."""
    reach = min(max(int(4 * sigma + 0.5), 1), *(length - 1 for length in picture.shape[1:]))
    places = torch.arange(-reach, reach + 1, device=picture.device, dtype=picture.dtype)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(picture[:, None], (reach, reach, reach, reach), mode="replicate")
    across = functional.conv2d(padded, kernel[None, None, None, :])
    return functional.conv2d(across, kernel[None, None, :, None])[:, 0]


def _bell(length: int, like: Tensor) -> Tensor:
    places = torch.arange(length, device=like.device, dtype=like.dtype) - (length - 1) / 2
    return torch.exp(-0.5 * (places / (length / 4)) ** 2)
