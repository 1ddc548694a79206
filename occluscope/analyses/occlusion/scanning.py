"""occlusion: runs all windows of one size over one picture, by the method that the parameters ask for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from occluscope.analyses.occlusion.parameters import OcclusionParameters
from occluscope.analyses.occlusion.targets import Outputs, Target, columns
from occluscope.engine import naive
from occluscope.engine.adaptive import approximate
from occluscope.engine.covers import Cover
from occluscope.engine.following import Followed
from occluscope.windows import WindowGrid

_WAITING: Final = 8  # batches that wait on a GPU before their outputs are copied, because each copy waits for the GPU
_PORTION: Final = 128  # windows of an approximate map between two reports
_PRECISION_WINDOWS: Final = 8  # windows over which the error of half precision is measured


@dataclass
class Scan:
    """The scores of the windows that were run so far.

    values: float64 [positions, targets], NaN for windows that were not run. predicted: most probable class, int32
    [positions]. error: of an approximate map, float64 [targets]; None for an exact one. followed: whether only what
    each window changes was computed; otherwise windows were run by whole passes.
    """

    values: np.ndarray
    predicted: np.ndarray
    windows_run: int = 0
    error: np.ndarray | None = None
    forward_equivalents: float = 0.0
    followed: bool = False


@dataclass
class Scanner:
    """Runs windows over one picture.

    module: the model for whole passes. network: the same model, followed; None for method 'naive'. tick: called with
    the number of windows run so far, after each batch and while the next windows are chosen.
    """

    module: nn.Module
    network: Followed | None
    outputs: Outputs
    targets: list[Target]
    clear: Tensor
    tick: Callable[[int], None] = lambda _windows: None

    def scan(self, params: OcclusionParameters, grid: WindowGrid, cover: Cover) -> Iterator[Scan]:
        """Run the windows. Yields the same scan again after each batch."""
        if self.network:
            self.network.passes = 0.0  # from zero for each scan: adding to an earlier sum would round differently
        found = Scan(np.full((len(grid), len(self.targets)), np.nan), np.zeros(len(grid), dtype=np.int32))
        adaptive = params.method == "adaptive"
        for _ in self._adaptive(params, grid, cover, found) if adaptive else self._all(grid, cover, found):
            found.forward_equivalents = self.network.passes if self.network else found.windows_run
            found.followed = self.network is not None and self.network.reason is None
            yield found

    def _all(self, grid: WindowGrid, cover: Cover, found: Scan) -> Iterator[None]:
        run = self.network.occluded if self.network else partial(naive.occluded_outputs, self.module)
        waiting: list[tuple[Tensor, Tensor]] = []
        seen = np.zeros(len(grid), dtype=bool)  # a window may be yielded twice (see `Followed.occluded`)
        for positions, outputs in run(self.clear, grid, cover):
            waiting.append((positions, outputs))
            seen[positions.numpy()] = True
            found.windows_run = int(seen.sum())
            if outputs.device.type == "cpu" or len(waiting) == _WAITING or found.windows_run == len(grid):
                places = torch.cat([places for places, _ in waiting]).numpy()
                values, found.predicted[places] = self._read(torch.cat([outputs for _, outputs in waiting]))
                found.values[places] = values
                waiting.clear()
            yield

    def _adaptive(self, params: OcclusionParameters, grid: WindowGrid, cover: Cover, found: Scan) -> Iterator[None]:
        assert self.network is not None  # noqa: S101 - only method 'naive' has none
        run_windows = self.network.sampler(self.clear, grid, cover, params.margin)
        seen = np.zeros(len(grid), dtype=bool)

        def run(positions: np.ndarray, exact: bool) -> np.ndarray:
            values = []
            for part in np.split(positions, range(_PORTION, len(positions), _PORTION)):
                read, found.predicted[part] = self._read(run_windows(part, exact=exact))
                values.append(read)
                seen[part] = True
                self.tick(int(seen.sum()))
            return np.concatenate(values)

        for approximation in approximate(run, grid.shape, params.tolerance, lambda: self.tick(int(seen.sum()))):
            done = approximation.was_run
            found.values = approximation.values.copy()
            for number, target in enumerate(self.targets):
                found.values[:, number] = found.values[:, number].clip(*target.head.range)
            found.error, found.windows_run = approximation.error, int(done.sum())
            places = np.stack(np.divmod(np.arange(len(grid)), grid.shape[1]), axis=1)
            _, nearest = cKDTree(places[done]).query(places)
            found.predicted = found.predicted[np.flatnonzero(done)[nearest]]
            yield

    def _read(self, outputs: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """A batch's scores of the targets, float64 [batch, targets], and its most probable classes, [batch]."""
        with torch.inference_mode():
            scores = self.outputs.scores(outputs)
            predicted = self.outputs.predicted(scores)
            return scores[:, columns(self.targets)].cpu().numpy(), predicted.cpu().numpy()


def precision_windows(windows: int) -> np.ndarray:
    """Windows over which the error of half precision is measured: int64, spread over the grid."""
    return np.unique(np.linspace(0, windows - 1, _PRECISION_WINDOWS).astype(np.int64))
