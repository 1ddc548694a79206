"""The plain method: one whole forward pass for each window, in batches. The reference for faster methods."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from occluscope.engine.covers import Cover, covered
from occluscope.engine.memory import in_batches, is_out_of_memory
from occluscope.windows import WindowGrid

CPU_BATCH: Final = 8  # windows; larger batches do not fit into the processor's caches and are slower
GPU_BATCH: Final = 64  # windows; enough to use a GPU fully at 224 × 224


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
    picture: [channels, height, width], normalised. grid: the windows. cover: what replaces the picture in them.
    batch_size: windows in a batch; it is halved if memory runs out.
    positions: int64 [windows], indices in `WindowGrid.origins` of the windows to run; None for all.
    Yields for each batch the windows' indices, int64 [batch], and the model's outputs for them, [batch, …].
    """
    most = batch_size or (CPU_BATCH if picture.device.type == "cpu" else GPU_BATCH)
    all_origins = torch.from_numpy(grid.origins()).to(picture.device)
    places = torch.arange(len(grid)) if positions is None else torch.from_numpy(positions)

    layouts = [
        torch.channels_last,
        torch.contiguous_format,
    ]  # channels last is faster, but some models do not accept it

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
