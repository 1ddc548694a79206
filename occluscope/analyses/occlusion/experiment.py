"""occlusion: what is asked of one picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from torch import Tensor

from occluscope.analyses.occlusion.parameters import OcclusionParameters
from occluscope.analyses.occlusion.targets import Outputs, Target
from occluscope.models.card import ModelCard
from occluscope.pictures.preparation import Picture
from occluscope.results import GridGeometry, Variant
from occluscope.windows import Size, WindowGrid

_HALF: Final = 128  # of 255: a mask's grey from which on it is the object


@dataclass(frozen=True, eq=False)
class Experiment:
    """Which windows cover a picture, and which scores of the model are followed.

    pictures: the picture itself, then the mask if the parameters name one. image: the picture's id.
    The sizes of window are numbered in the parameters' order.
    """

    params: OcclusionParameters
    card: ModelCard
    pictures: Sequence[Picture]
    image: str

    @cached_property
    def picture(self) -> Picture:
        """The picture whose parts are covered."""
        return self.pictures[0]

    @cached_property
    def outputs(self) -> Outputs:
        """How the model's outputs are laid out, with those of every layer that the parameters name."""
        return Outputs.of(self.params, self.card)

    @property
    def input_size(self) -> Size:
        """Of the model's input, pixels."""
        return self.card.input_size

    @cached_property
    def region(self) -> np.ndarray | None:
        """The object's pixels of the model's input, bool [height, width]; None if the parameters give no region."""
        region = self.params.region
        if region is None:
            return None
        if isinstance(region, str):
            return np.asarray(self.pictures[1].rgb.mean(axis=2) >= _HALF)
        top, left, bottom, right = region
        pixels = np.zeros(self.input_size, dtype=bool)
        pixels[top:bottom, left:right] = True
        return pixels

    def grid(self, number: int) -> WindowGrid:
        """All positions of a window. number: of the size."""
        return WindowGrid.within(self.params.box(self.input_size), self.params.window[number], self.params.stride)

    def geometry(self, grid: WindowGrid) -> GridGeometry:
        """Where a grid's windows lie on the original picture."""
        return GridGeometry(grid, self.input_size, self.picture.frame)

    def targets(self, base: Tensor) -> list[Target]:
        """The scores that have maps. base: all scores without occlusion, [columns]."""
        return self.outputs.targets(self.params, base)

    def map_places(self, base: Tensor) -> list[int]:
        """For each of the parameters' targets the place of its map: equal targets share one."""
        targets = self.targets(base)
        return [targets.index(target) for target in self.outputs.wanted(self.params, base)]

    def feature(self, base: Tensor) -> Target | None:
        """The channel of the feature layer that is most active without occlusion; None if no layer is asked for."""
        layer = self.params.feature_layer
        return self.outputs.most_active(base, layer) if layer else None

    def followed(self, base: Tensor) -> list[Target]:
        """The columns of a scan: the targets, then the feature if there is one."""
        feature = self.feature(base)
        return [*self.targets(base), *([feature] if feature else [])]

    def variant(self, number: int, target: str | None = None) -> Variant:
        """The variant of results for a size; the size is named only if there are several. target: its name."""
        height, width = self.params.window[number]
        return Variant.of(window=f"{height}×{width}" if len(self.params.window) > 1 else None, target=target)
