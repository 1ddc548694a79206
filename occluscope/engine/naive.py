"""The plain method: one whole forward pass a window, in batches. The reference for every faster one."""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

from occluscope.engine.covers import Cover
from occluscope.windows import WindowGrid

CPU_BATCH: Final = 8  # windows; larger batches fall out of the processor's caches and run slower
GPU_BATCH: Final = 64  # windows; enough to keep a GPU busy at 224 × 224


def occluded_outputs(
    module: nn.Module, picture: Tensor, grid: WindowGrid, cover: Cover, batch_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run the model on the picture with each window covered.

    module: [batch, channels, height, width] → one tensor [batch, …], in eval mode.
    picture: [channels, height, width], prepared. grid: the windows. cover: what lies in them.
    Yields for one batch of windows after the other their places in `WindowGrid.origins`, int64 [batch], and the
    model's outputs for them, [batch, …].
    """
    batch_size = batch_size or (CPU_BATCH if picture.device.type == "cpu" else GPU_BATCH)
    height, width = grid.window
    all_origins = torch.from_numpy(grid.origins()).to(picture.device)
    for positions in torch.split(torch.arange(len(grid)), batch_size):
        origins = all_origins[positions]
        with torch.inference_mode():
            covered = picture.expand(len(origins), -1, -1, -1).contiguous(memory_format=torch.channels_last)
            for copy, patch, (y, x) in zip(covered, cover(origins), origins.tolist(), strict=True):
                copy[:, y : y + height, x : x + width] = patch
            outputs = module(covered)
        yield positions, outputs
