"""How the model responds to one family: curves, the numbers computed from them, and the augmentation to train with."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from occluscope.analyses.invariance import measures
from occluscope.analyses.invariance.families import FLIPS, Family, once_round
from occluscope.analyses.invariance.spec import ChosenFamily
from occluscope.models.heads import Head
from occluscope.results import Column, Curves, Metric, Series, Strip, Variant

DISTANCES: Final = ("Euclidean", "cosine")
AUGMENTATION_COLUMNS: Final = (
    Column("family", "text"), Column("from", "number"), Column("to", "number"), Column("unit", "text"),
    Column("kept", "number"), Column("tolerance_below", "number"), Column("tolerance_above", "number"),
    Column("augmentation", "text"),
)  # fmt: skip


@dataclass(frozen=True)
class Response:
    """The response to one family, for one picture or as the mean over several.

    head: the head of the score that is followed. probability: that score, float64 [strengths]. distances: between the
    layers' features of the changed and the unchanged picture, float64 [layers, Euclidean and cosine, strengths].
    """

    chosen: ChosenFamily
    layers: tuple[str, ...]
    head: Head
    probability: np.ndarray
    distances: np.ndarray

    @property
    def family(self) -> Family:
        """The family's description."""
        return self.chosen.about

    @cached_property
    def strengths(self) -> np.ndarray:
        """The family's strengths, ascending."""
        return self.chosen.strengths()

    @cached_property
    def identity(self) -> int:
        """Position of the unchanged picture among the strengths."""
        return self.chosen.identity()

    def curves(self, target: str, caption: str, strip: Strip | None = None, spread: "Response | None" = None) -> Curves:
        """Curves of the score and of every layer's distances. spread: half the height of the bands."""
        beside = spread or self

        def series(name: str, values: np.ndarray, unit: str, half: np.ndarray) -> Series:
            least, most = self.head.range if name == target else (0.0, np.inf)
            band = ((values - half).clip(min=least), (values + half).clip(max=most)) if spread else ()
            return Series(name, values, unit, *band)

        found = [series(target, self.probability, self.head.unit, beside.probability)]
        for number, measure in enumerate(DISTANCES):
            found += [
                series(
                    f"{layer} ({measure})",
                    self.distances[place, number],
                    f"{measure} distance",
                    beside.distances[place, number],
                )
                for place, layer in enumerate(self.layers)
            ]
        labels = FLIPS if self.family.name == "flip" else None
        return Curves(self.strengths, self.family.title, self.family.unit, tuple(found), caption, labels, strip)

    def metrics(self, image: str | None) -> list[Metric]:
        """Area and tolerances of every curve, and the order of symmetry for a full turn; nothing for flips."""
        if self.family.name == "flip":
            return []
        variant = Variant.of(family=self.family.name)
        found = [Metric("probability_area", self._mean_probability(), self.head.unit, image, variant)]
        found += [
            Metric(f"tolerance_{side}", value, self.family.unit, image, variant)
            for side, value in zip(("below", "above"), self._tolerance(), strict=True)
            if value is not None
        ]
        points = once_round(self.family, self.strengths)
        of = {variant: self.probability}
        of |= {
            Variant.of(family=self.family.name, layer=layer): self.distances[n, 0]
            for n, layer in enumerate(self.layers)
        }
        for of_what, values in of.items() if points else ():
            symmetry = measures.rotational_symmetry(values[:points])
            found.append(Metric("symmetry_order", float(symmetry.order), None, image, of_what))
            found.append(Metric("symmetry_strength", symmetry.strength, None, image, of_what))
        return found

    def kept_share(self) -> float:
        """Mean probability over the range, as a share of the unchanged picture's probability."""
        return self._mean_probability() / max(float(self.probability[self.identity]), np.finfo(float).tiny)

    def augmentation(self, input_size: tuple[int, int]) -> tuple[Any, ...]:
        """A row of `AUGMENTATION_COLUMNS`."""
        family, reach = self.family, self.chosen.reach
        code = family.augmentation(reach, input_size)
        return family.name, *reach, family.unit, self.kept_share(), *self._tolerance(), code

    def _mean_probability(self) -> float:
        if self.family.name == "flip":
            return float(self.probability.mean())
        return measures.area(self.strengths, self.probability)

    def _tolerance(self) -> tuple[float | None, float | None]:
        if self.family.name == "flip":
            return None, None
        return measures.tolerance(self.strengths, self.probability, self.identity)
