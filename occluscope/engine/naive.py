"""The plain method: one whole forward pass a window, in batches. The reference for every faster one."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from occluscope.engine.covers import Cover, covered
from occluscope.engine.memory import in_batches, is_out_of_memory
from occluscope.windows import WindowGrid

CPU_BATCH: Final = 8  # windows; larger batches fall out of the processor's caches and run slower
GPU_BATCH: Final = 64  # windows; enough to keep a GPU busy at 224 × 224


def occluded_outputs(
    module: nn.Module,
    picture: Tensor,
    grid: WindowGrid,
    cover: Cover,
    batch_size: int | None = None,
    positions: np.ndarray | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run the model on the picture with each window covered.

    module: [batch, channels, height, width] → one tensor [batch, …], in eval mode.
    picture: [channels, height, width], prepared. grid: the windows. cover: what lies in them.
    batch_size: windows at once; where memory runs out it is halved.
    positions: int64 [windows], places in `WindowGrid.origins` of those to run; none: all.
    Yields for one batch of windows after the other their places, int64 [batch], and the model's outputs for them,
    [batch, …].
    """
    most = batch_size or (CPU_BATCH if picture.device.type == "cpu" else GPU_BATCH)
    all_origins = torch.from_numpy(grid.origins()).to(picture.device)
    places = torch.arange(len(grid)) if positions is None else torch.from_numpy(positions)

    layouts = [torch.channels_last, torch.contiguous_format]  # the first is faster, and some models do not take it

    def run(part: slice) -> Tensor:
        origins = all_origins[places[part]]
        with torch.inference_mode():
            copies = covered(picture, origins, cover(origins)).contiguous(memory_format=layouts[0])
            try:
                outputs: Tensor = module(copies)
            except RuntimeError as error:
                if is_out_of_memory(error) or len(layouts) == 1:
                    raise
                layouts.pop(0)
                outputs = run(part)
        return outputs

    for part, outputs in in_batches(len(places), most, run):
        yield places[part], outputs
