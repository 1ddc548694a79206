"""The plain method: one whole forward pass a window, in batches. The reference for every faster one."""

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn

from occluscope.windows import WindowGrid

CPU_BATCH: Final = 8  # windows; larger batches fall out of the processor's caches and run slower
GPU_BATCH: Final = 64  # windows; enough to keep a GPU busy at 224 × 224


def occluded_logits(module: nn.Module, picture: Tensor, grid: WindowGrid, baseline: Tensor) -> Iterator[Tensor]:
    """Run the model on the picture with each window covered.

    module: [batch, 3, height, width] → logits [batch, classes], in eval mode.
    picture: float32 [3, height, width], normalised.
    baseline: what covers a window, broadcastable to [3, window height, window width], normalised.
    Yields logits [batch, classes] for one batch of windows after the other, in the order of `WindowGrid.origins`.
    """
    batch_size = CPU_BATCH if picture.device.type == "cpu" else GPU_BATCH
    height, width = grid.window
    with torch.inference_mode():
        for origins in torch.split(torch.from_numpy(grid.origins()), batch_size):
            covered = picture.expand(len(origins), -1, -1, -1).contiguous(memory_format=torch.channels_last)
            for copy, (y, x) in zip(covered, origins.tolist(), strict=True):
                copy[:, y : y + height, x : x + width] = baseline
            yield module(covered)
