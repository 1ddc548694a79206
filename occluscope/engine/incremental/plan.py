"""The plan of one grid of windows, made once and run for any of its windows and any number of pictures."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from occluscope.engine.covers import Cover, covered
from occluscope.engine.incremental.batch import Batch
from occluscope.engine.incremental.buffers import PictureValues
from occluscope.engine.incremental.fields import Field
from occluscope.engine.incremental.planning import Planner
from occluscope.engine.incremental.steps import Constant, Native, Steady, Step
from occluscope.engine.mutation import UntraceableError
from occluscope.windows import WindowGrid


class Plan:
    """How a grid's windows are run, in batches of at most `capacity`.

    margin: as for `Planner`. multiplications: of a whole pass. work: the share of it for one window.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        picture_values: PictureValues,
        grid: WindowGrid,
        capacity: int,
        margin: int | None = None,
        multiplications: int = 0,
    ) -> None:
        self._grid = grid
        self._planner = Planner(steps, picture_values, grid, capacity, margin)
        self._output = self._planner.whole(len(steps) - 1)
        self._last_uses = _last_uses(steps)
        self._origins = torch.empty(0)
        elsewhere = max(multiplications - self._planner.whole_work, 0)  # multiplications in steps that always run whole
        whole = self._planner.whole_work + elsewhere
        self.work = (self._planner.work + elsewhere) / whole if whole else 1.0

    def complete(self, device: torch.device) -> None:
        """Move constant tables to the device, after all plans over the same values are made."""
        self._planner.complete(device)
        self._origins = torch.from_numpy(self._grid.origins()).to(device)

    def run(self, clear: Tensor, cover: Cover, windows: Tensor | None = None) -> Tensor:
        """Run some windows as one batch: the network's outputs [batch, …].

        windows: int64 [batch], indices in the grid; None for all.
        """
        planner = self._planner
        planner.picture_values.begin_batch()
        steady = [
            value if isinstance(state, Steady) else None
            for value, state in zip(planner.picture_values.values, planner.states, strict=True)
        ]
        if windows is None:
            windows = torch.arange(len(self._origins), device=clear.device)
        origins = self._origins[windows]
        columns = len(self._grid.origins_x)
        batch = Batch(windows // columns, windows % columns, list(steady))
        batch.values[0] = self._covered(clear, origins, cover(origins))
        for index, run in enumerate(planner.runs):
            if index and run is not None:
                batch.values[index] = run(batch)
                for source in self._last_uses[index]:
                    batch.values[source] = steady[source]
        outputs: Tensor = self._output(batch)
        return outputs

    def _covered(self, clear: Tensor, origins: Tensor, patches: Tensor) -> Tensor:
        """The changed rectangles of the picture itself: the patches, or whole pictures with their patches."""
        state = self._planner.states[0]
        if not isinstance(state, Field) or not state.is_whole or patches.shape[-2:] == clear.shape[-2:]:
            return patches.contiguous(memory_format=torch.channels_last)
        return covered(clear[0], origins, patches)


def _last_uses(steps: Sequence[Step]) -> list[list[int]]:
    """For each step the earlier steps whose values are not read after it."""
    last = {source: index for index, step in enumerate(steps) for source in step.inputs}
    uses: list[list[int]] = [[] for _ in steps]
    for source, index in last.items():
        if not isinstance(steps[source].operation, Constant):
            uses[index].append(source)
    return uses


def unoccluded(steps: Sequence[Step], clear: Tensor, *, guarded: bool = False) -> list[Any]:
    """Values of all steps for the picture as it is, [1, channels, height, width].

    guarded: check whether a call without a rule changes its inputs.

    Raises
    ------
    UntraceableError
        A call changes its inputs, so the kept values would change with every window.
    """
    values: list[Any] = [clear]
    for step in steps[1:]:
        inputs = [values[source] for source in step.inputs]
        unknown = guarded and isinstance(step.operation, Native)
        before = [value.clone() if isinstance(value, Tensor) else None for value in inputs] if unknown else []
        values.append(step.operation.whole(*inputs))
        for value, then in zip(inputs, before, strict=False):
            if then is not None and not torch.equal(value.nan_to_num(), then.nan_to_num()):
                raise UntraceableError(f"its operation {step.name} changes its inputs")
    return values
