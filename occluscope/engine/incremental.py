"""Exact occlusion by computing anew only what a window changes (incremental view maintenance of a network).

After Nakandala, Kumar & Papakonstantinou (2019), 'Incremental and Approximate Inference for Faster Occlusion-based
Deep CNN Explanations', SIGMOD: the unoccluded value of every layer is kept; of each occluded copy only the rectangle
that can differ is computed, read together with what lies around it in the kept value.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from occluscope.engine.batch import Batch
from occluscope.engine.covers import Cover
from occluscope.engine.fields import Field
from occluscope.engine.planning import Planner
from occluscope.engine.shortening import shorten
from occluscope.engine.steps import Constant, Picture, Steady, Step
from occluscope.engine.tracing import UntraceableError, trace
from occluscope.windows import WindowGrid

CPU_BATCH: Final = 16  # windows
GPU_BATCH: Final = 128  # windows
_TRACING_ERROR: Final = 1e-4  # relative; far over rounding, far under a misread operation


class IncrementalNetwork:
    """A network prepared for occlusion.

    module: [batch, channels, height, width] → one tensor [batch, …], in eval mode; it is left as it is.

    Raises
    ------
    UntraceableError
        torch.fx cannot follow the module.
    """

    def __init__(self, module: nn.Module) -> None:
        if module.training:
            raise ValueError("the model must be in eval mode: call model.eval()")
        self._module = module
        self._traced = trace(module)
        self._steps: list[Step] | None = None
        self.computed_share = 1.0  # of a whole pass's multiplications in convolutions, for the windows run last

    def occluded(
        self, picture: Tensor, grid: WindowGrid, cover: Cover, batch_size: int | None = None
    ) -> Iterator[Tensor]:
        """Run the network with each window covered.

        picture: [channels, height, width], prepared. grid: the windows.
        cover: what lies in the windows whose origins [batch, 2] it is given, [batch, channels, window].
        Yields the network's output for one batch of windows after the other, in the order of `WindowGrid.origins`.
        """
        batch_size = batch_size or (CPU_BATCH if picture.device.type == "cpu" else GPU_BATCH)
        batch_size = min(batch_size, len(grid))
        with torch.inference_mode():
            clear = picture[None].contiguous(memory_format=torch.channels_last)
            steps = self._prepared(clear)
            planner = Planner(steps, _unoccluded(steps, clear), grid)
            self.computed_share = planner.work / planner.whole_work if planner.whole_work else 1.0
            output = planner.whole(len(steps) - 1)
            planner.complete(batch_size)
            steady = [
                value if isinstance(state, Steady) else None
                for value, state in zip(planner.values, planner.states, strict=True)
            ]
            planner.values = ()
            last_use = _last_uses(steps)
            origins = torch.from_numpy(grid.origins()).to(picture.device)
            positions = torch.arange(len(grid), device=picture.device)
            columns = len(grid.origins_x)
        for number, chosen in enumerate(torch.split(positions, batch_size)):
            with torch.inference_mode():
                batch = Batch(number, chosen // columns, chosen % columns, list(steady))
                batch.values[0] = self._covered(planner, clear, origins[chosen], cover(origins[chosen]), grid)
                for index, run in enumerate(planner.runs):
                    if index and run is not None:
                        batch.values[index] = run(batch)
                        for source in last_use[index]:
                            batch.values[source] = steady[source]
                yield output(batch)

    def _prepared(self, clear: Tensor) -> list[Step]:
        """The steps, shortened once their shapes are known."""
        if self._steps is None:
            values = _unoccluded(self._traced, clear)
            self._check_traced(values[-1], clear)
            shaped = [
                replace(step, shape=tuple(value.shape) if isinstance(value, Tensor) else None)
                for step, value in zip(self._traced, values, strict=True)
            ]
            self._steps = shorten(shaped, clear.device)
        return self._steps

    def _check_traced(self, traced: Tensor, clear: Tensor) -> None:
        """Tracing can misread a model that changes tensors in place under several names; then it is not followed."""
        own = self._module(clear)
        if traced.shape != own.shape or (traced - own).abs().max() > _TRACING_ERROR * own.abs().max():
            raise UntraceableError(f"{type(self._module).__name__}, traced, gives other numbers than the model")

    @staticmethod
    def _covered(planner: Planner, clear: Tensor, origins: Tensor, patches: Tensor, grid: WindowGrid) -> Tensor:
        """The changed rectangles of the picture itself: the patches, or whole pictures with them in place."""
        state = planner.states[0]
        if not isinstance(state, Field) or not state.is_whole or patches.shape[-2:] == clear.shape[-2:]:
            return patches.contiguous(memory_format=torch.channels_last)
        height, width = grid.window
        pictures = clear.expand(len(patches), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        y = origins[:, :1] + torch.arange(height, device=clear.device)
        x = origins[:, 1:] + torch.arange(width, device=clear.device)
        copies = torch.arange(len(patches), device=clear.device)[:, None, None]
        pictures.permute(0, 2, 3, 1)[copies, y[:, :, None], x[:, None, :]] = patches.permute(0, 2, 3, 1)
        return pictures


def _unoccluded(steps: Sequence[Step], clear: Tensor) -> list[Any]:
    values: list[Any] = []
    for step in steps:
        if isinstance(step.operation, Picture):
            values.append(clear)
        else:
            values.append(step.operation.whole(*(values[source] for source in step.inputs)))
    return values


def _last_uses(steps: Sequence[Step]) -> list[list[int]]:
    """For each step the earlier ones whose values nobody reads after it."""
    last = {source: index for index, step in enumerate(steps) for source in step.inputs}
    uses: list[list[int]] = [[] for _ in steps]
    for source, index in last.items():
        if not isinstance(steps[source].operation, Constant):
            uses[index].append(source)
    return uses
