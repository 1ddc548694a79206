"""occlusion: from a scan to a map for each target."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from occluscope.analyses.occlusion.experiment import Experiment
from occluscope.analyses.occlusion.scanning import Scan
from occluscope.analyses.occlusion.targets import Target
from occluscope.results import Variant
from occluscope.windows import WindowGrid


@dataclass(frozen=True)
class TargetMap:
    """One target's scores over one grid.

    base: the score without occlusion. values: the scores with the window at each position, float64 [rows, columns].
    drop: base − values. variant: of all results that are made from the map.
    """

    grid: WindowGrid
    target: Target
    base: float
    values: np.ndarray
    drop: np.ndarray
    variant: Variant


def target_maps(experiment: Experiment, base: Tensor, number: int, grid: WindowGrid, scan: Scan) -> list[TargetMap]:
    """The maps of all targets, in the targets' order.

    base: all scores without occlusion. number: of the size of window. grid: the size's whole grid, or some rows of it;
    scan: of these windows.
    """
    targets = experiment.targets(base)
    maps = []
    for place, target in enumerate(targets):
        without, values = float(base[target.column]), scan.values[:, place].reshape(grid.shape)
        variant = experiment.variant(number, target.name if len(targets) > 1 else None)
        maps.append(TargetMap(grid, target, without, values, without - values, variant))
    return maps
