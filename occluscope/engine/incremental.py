"""Exact occlusion by computing anew only what a window changes (incremental view maintenance of a network).

After Nakandala, Kumar & Papakonstantinou (2019), 'Incremental and Approximate Inference for Faster Occlusion-based
Deep CNN Explanations', SIGMOD: the unoccluded value of every layer is kept; of each occluded copy only the rectangle
that can differ is computed, read together with what lies around it in the kept value.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from occluscope.engine.batch import Batch
from occluscope.engine.covers import Cover
from occluscope.engine.fields import Field
from occluscope.engine.planning import Kept, Planner
from occluscope.engine.shortening import shorten
from occluscope.engine.steps import Constant, Picture, Steady, Step
from occluscope.engine.tracing import UntraceableError, trace
from occluscope.windows import WindowGrid

CPU_BATCH: Final = 48  # windows; fewer share less of each step's fixed cost, more fall out of the caches
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
        self._plans: tuple[Any, Kept, list[_Plan]] | None = None
        self.computed_share = 1.0  # of a whole pass's multiplications in convolutions, for the windows run last

    def occluded(
        self, picture: Tensor, grid: WindowGrid, cover: Cover, batch_size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Run the network with each window covered.

        picture: [channels, height, width], prepared. grid: the windows. cover: what lies in them.
        One picture at a time: buffers and plans are shared by all that this network is asked.
        Yields for one batch of neighbouring windows after the other their places in `WindowGrid.origins`,
        int64 [batch], and the network's outputs for them, [batch, …].
        """
        batch_size = batch_size or (CPU_BATCH if picture.device.type == "cpu" else GPU_BATCH)
        with torch.inference_mode():
            clear = picture[None].contiguous(memory_format=torch.channels_last)
            steps = self._prepared(clear)
            plans = self._planned(_unoccluded(steps, clear), grid, batch_size)
        for plan in plans:
            with torch.inference_mode():
                outputs = plan.run(clear, cover)
            yield plan.positions, outputs

    def prepare(self, picture: Tensor) -> None:
        """Shorten the steps and hold them against the module, on a picture [channels, height, width].

        Raises
        ------
        UntraceableError
            Tracing has misread the module. (`occluded` prepares by itself, and raises it as well.)
        """
        with torch.inference_mode():
            self._prepared(picture[None].contiguous(memory_format=torch.channels_last))

    def _planned(self, values: list[Any], grid: WindowGrid, batch_size: int) -> list["_Plan"]:
        """Plans for every tile, filled with a picture's values; made anew only for another grid or size of picture."""
        key = (tuple(values[0].shape), values[0].dtype, values[0].device, grid, batch_size)
        if self._plans is None or self._plans[0] != key:
            steps, kept = self._steps or [], Kept(values)
            plans = [_Plan(steps, kept, tile, positions) for tile, positions in grid.tiles(batch_size)]
            for plan in plans:
                plan.planner.complete(values[0].device)
            work = sum(plan.planner.work * len(plan.positions) for plan in plans)
            whole_work = sum(plan.planner.whole_work * len(plan.positions) for plan in plans)
            self.computed_share = work / whole_work if whole_work else 1.0
            self._plans = (key, kept, plans)
        _, kept, plans = self._plans
        kept.fill(values)
        return plans

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


class _Plan:
    """How one tile of windows is run. positions: the windows' places in the whole grid, int64 [windows]."""

    def __init__(self, steps: Sequence[Step], kept: Kept, tile: WindowGrid, positions: np.ndarray) -> None:
        self.positions = torch.from_numpy(positions)
        self.planner = Planner(steps, kept, tile)
        self._output = self.planner.whole(len(steps) - 1)
        self._last_uses = _last_uses(steps)

    def run(self, clear: Tensor, cover: Cover) -> Tensor:
        """Run all windows of the tile as one batch: the network's outputs [batch, …]."""
        planner = self.planner
        planner.kept.begin_batch()
        steady = [
            value if isinstance(state, Steady) else None
            for value, state in zip(planner.kept.values, planner.states, strict=True)
        ]
        origins = torch.from_numpy(planner.grid.origins()).to(clear.device)
        numbers = torch.arange(len(origins), device=clear.device)
        columns = len(planner.grid.origins_x)
        batch = Batch(numbers // columns, numbers % columns, list(steady))
        batch.values[0] = _covered(planner, clear, origins, cover(origins))
        for index, run in enumerate(planner.runs):
            if index and run is not None:
                batch.values[index] = run(batch)
                for source in self._last_uses[index]:
                    batch.values[source] = steady[source]
        outputs: Tensor = self._output(batch)
        return outputs


def _covered(planner: Planner, clear: Tensor, origins: Tensor, patches: Tensor) -> Tensor:
    """The changed rectangles of the picture itself: the patches, or whole pictures with them in place."""
    state = planner.states[0]
    if not isinstance(state, Field) or not state.is_whole or patches.shape[-2:] == clear.shape[-2:]:
        return patches.contiguous(memory_format=torch.channels_last)
    height, width = planner.grid.window
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
