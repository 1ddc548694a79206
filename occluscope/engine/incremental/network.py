"""A network that runs windows by computing only what each of them changes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from occluscope.engine.covers import Cover
from occluscope.engine.incremental.buffers import PictureValues
from occluscope.engine.incremental.plan import Plan, unoccluded
from occluscope.engine.incremental.shortening import shorten
from occluscope.engine.incremental.steps import Step
from occluscope.engine.incremental.tracing import UntraceableError, trace
from occluscope.engine.memory import unless_out_of_memory
from occluscope.windows import WindowGrid

CPU_BATCH: Final = 48  # windows; fewer share the fixed costs less, more do not fit into the caches
CPU_BATCH_WORK: Final = 1.5e12  # floating-point operations of a batch's whole passes: some seconds, to show progress
GPU_BATCH: Final = 128  # windows
_TRACING_ERROR: Final = 1e-4  # relative; far above rounding in float32, far below the error of a misread operation
_ROUNDING: Final = 10  # rounding errors of the precision by which equal operations may differ

_Layout = tuple[WindowGrid, int | None]  # windows of the grid, and the margin


class IncrementalNetwork:
    """A network prepared for occlusion.

    module: [batch, channels, height, width] → one tensor [batch, …], in eval mode; it is not changed.
    layers: names of modules that give maps; their channels' sums over space are appended to the outputs, which
    then are [batch, outputs + channels of all these layers]. If a module runs several times, its last output counts.
    passes: multiplications since it was last set to zero, in whole passes.

    Raises
    ------
    UntraceableError
        torch.fx cannot follow the module.
    """

    def __init__(self, module: nn.Module, layers: Sequence[str] = ()) -> None:
        if module.training:
            raise ValueError("the model must be in eval mode: call model.eval()")
        self._module = module
        self._traced = trace(module, layers)
        self._steps: list[Step] | None = None
        self._plans: tuple[Any, PictureValues, list[Plan]] | None = None
        self._multiplications = 0  # of a whole pass
        self._most = GPU_BATCH  # windows in a batch, limited by memory and by the time between two reports
        self.passes = 0.0

    def occluded(
        self, picture: Tensor, grid: WindowGrid, cover: Cover, batch_size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Run the network with each window covered.

        picture: [channels, height, width], normalised. grid: the windows. cover: what replaces the picture in them.
        batch_size: most windows in a batch; it is halved if memory runs out.
        Run one picture at a time: buffers and plans are shared by all calls.
        Yields for each batch the windows' indices in `WindowGrid.origins`, int64 [batch], and the network's outputs for
        them, [batch, …].
        """
        clear, values = self._unoccluded(picture)
        most = self._at_most(batch_size)
        pending = list(grid.tiles(most))
        while pending:
            layouts: list[_Layout] = [(tile, None) for tile, _ in pending]
            plans = unless_out_of_memory(most, self._planned, values, layouts, most) or []
            for plan in plans:
                outputs = unless_out_of_memory(most, self._run, plan, clear, cover)
                if outputs is None:
                    break
                _, positions = pending.pop(0)
                yield torch.from_numpy(positions), outputs
            if pending:
                most = self._halve(most)
                pending = [
                    (part, positions[places]) for tile, positions in pending for part, places in tile.tiles(most)
                ]

    def sampler(
        self, picture: Tensor, grid: WindowGrid, cover: Cover, margin: int | None, batch_size: int | None = None
    ) -> Callable[..., Tensor]:
        """A function that runs any of the grid's windows: `run(positions, exact=False)`.

        positions: int64 [windows], indices in `WindowGrid.origins`; the function returns outputs [windows, …].
        margin: how far outside its window a change is followed, pixels of the picture. Pixels farther away keep their
        unoccluded value, which is approximate and faster. With `exact`, or without a margin, all changes are followed.
        """
        clear, values = self._unoccluded(picture)
        most = self._at_most(batch_size)

        def run(positions: np.ndarray, *, exact: bool = False) -> Tensor:
            nonlocal most
            found: list[Tensor] = []
            left = torch.from_numpy(positions)
            while len(left):
                plans = unless_out_of_memory(most, self._planned, values, [(grid, margin), (grid, None)], most)
                part = left[:most].to(clear.device)
                outputs = unless_out_of_memory(most, self._run, plans[exact], clear, cover, part) if plans else None
                if outputs is None:
                    most = self._halve(most)
                    continue
                found.append(outputs)
                left = left[most:]
            return torch.cat(found)

        return run

    def prepare(self, picture: Tensor) -> None:
        """Shorten the steps and compare them with the module, on a picture [channels, height, width].

        Raises
        ------
        UntraceableError
            Tracing has misread the module. (`occluded` calls this, and can raise it too.)
        """
        with torch.inference_mode():
            self._prepared(picture[None].contiguous(memory_format=torch.channels_last))

    def forget_picture(self) -> None:
        """Free what is kept of the last picture: most of the memory of a prepared network."""
        if self._plans is not None:
            self._plans[1].empty()

    def _unoccluded(self, picture: Tensor) -> tuple[Tensor, list[Any]]:
        """The picture as a batch of one, and the unoccluded values of all steps."""
        with torch.inference_mode():
            clear = picture[None].contiguous(memory_format=torch.channels_last)
            return clear, unoccluded(self._prepared(clear), clear)

    def _planned(self, values: list[Any], layouts: list[_Layout], capacity: int) -> list[Plan]:
        """Plans for all grids, with a picture's values. They are reused for the same grids and size of picture."""
        key = (tuple(values[0].shape), values[0].dtype, values[0].device, tuple(layouts), capacity)
        if self._plans is None or self._plans[0] != key:
            self._plans = None
            picture_values = PictureValues(values)
            plans = [
                Plan(self._steps or [], picture_values, grid, capacity, margin, self._multiplications)
                for grid, margin in layouts
            ]
            for plan in plans:
                plan.complete(values[0].device)
            self._plans = (key, picture_values, plans)
        _, picture_values, plans = self._plans
        if picture_values.values is not values or not picture_values.is_filled:
            with torch.inference_mode():
                picture_values.fill(values)
        return plans

    def _run(self, plan: Plan, clear: Tensor, cover: Cover, windows: Tensor | None = None) -> Tensor:
        with torch.inference_mode():
            outputs = plan.run(clear, cover, windows)
        self.passes += plan.work * len(outputs)
        return outputs

    def _at_most(self, batch_size: int | None) -> int:
        return min(batch_size, self._most) if batch_size else self._most

    def _halve(self, most: int) -> int:
        """Use smaller batches, also for later pictures."""
        self._plans = None
        self._most = max(most // 2, 1)
        return self._most

    def _prepared(self, clear: Tensor) -> list[Step]:
        """The steps, shortened when their shapes are known."""
        if self._steps is None:
            values = unoccluded(self._traced, clear, guarded=True)
            self._check_traced(values[-1], clear)
            shaped = [
                replace(step, shape=tuple(value.shape) if isinstance(value, Tensor) else None)
                for step, value in zip(self._traced, values, strict=True)
            ]
            operations = _operations(self._module, clear)
            self._multiplications = operations // 2  # multiplication and addition
            if clear.device.type == "cpu":
                self._most = int(min(max(CPU_BATCH_WORK / operations, 1), CPU_BATCH))
            self._steps = shorten(shaped, clear.device)
            self._traced = []  # its convolutions have another copy of their weights, in the kernels' order
        return self._steps

    def _check_traced(self, traced: Tensor, clear: Tensor) -> None:
        """Raise if tracing misread the module, as it can if tensors are changed in place through several names."""
        own = self._module(clear.clone(memory_format=torch.contiguous_format))
        traced = traced[:, : own.shape[1]] if own.ndim == traced.ndim == 2 else traced  # without the layers' sums
        limit = max(_TRACING_ERROR, _ROUNDING * torch.finfo(own.dtype).eps)
        if traced.shape != own.shape or (traced - own).abs().max() > limit * own.abs().max():
            raise UntraceableError(f"{type(self._module).__name__}, traced, gives other numbers than the model")


def _operations(module: nn.Module, clear: Tensor) -> int:
    """Floating-point operations of one whole pass; at least 1."""
    with torch.inference_mode(mode=False), torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(clear.clone(memory_format=torch.contiguous_format))
    return max(int(counter.get_total_flops()), 1)
