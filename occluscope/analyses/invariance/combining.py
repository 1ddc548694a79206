"""invariance: combines the results of all pictures; uses numpy only."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from occluscope.analyses.contract import FIRST, Outcome, Part, Report, Work
from occluscope.analyses.invariance import measures
from occluscope.analyses.invariance.responses import AUGMENTATION_COLUMNS, Response
from occluscope.analyses.invariance.spec import ChosenFamily, InvarianceParameters
from occluscope.analyses.layer_choice import layer_names
from occluscope.analyses.target_choice import head_of
from occluscope.models.heads import Head
from occluscope.results import Column, Matrix, Metric, NamedResult, Table, Variant

_LAYER_COLUMNS: Final = (
    Column("family", "text"), Column("layer", "text"), Column("euclidean", "number"), Column("cosine", "number"),
    Column("invariance_score", "number"), Column("normalised_variance", "number"), Column("local_firing", "number"),
)  # fmt: skip

_ACTIVATIONS: Final = 2**23  # activations that are measured at a time; takes about 300 MB


def means(work: Work, report: Report) -> Outcome:
    """Means over pictures with their bands; what the weakest family calls for; measures that take several pictures."""
    params: InvarianceParameters = work.params
    card, parts = work.card, list(work.before[FIRST])
    layers, head = tuple(layer_names(params.layers, card)), head_of(params.target, card)

    def tick() -> None:
        report(0)  # ends a cancelled job, and shows the watchdog that the unit is alive

    between = _between_pictures(parts, layers, tick)
    results: list[NamedResult] = []
    metrics: list[Metric] = []
    rows: list[tuple[Any, ...]] = []
    units: list[NamedResult] = []
    means = []
    for chosen in params.families:
        responses = []
        for part in parts:
            responses.append(_response(part, chosen, layers, head))
            tick()
        mean = _over_pictures(responses, np.mean)
        means.append(mean)
        if len(parts) > 1:
            caption = f"mean over {len(parts)} pictures ± standard deviation"
            curves = mean.curves(f"{head.symbol} of the target", caption, spread=_over_pictures(responses, np.std))
            results.append(NamedResult("mean_curves", curves, None, Variant.of(family=chosen.family)))
            metrics += mean.metrics(None)
        of_units = _UnitMeasures(parts, chosen, layers, tick)
        units += of_units.results()
        moved = np.delete(mean.distances, mean.identity, axis=2).mean(axis=2)
        for layer, (euclidean, cosine) in zip(layers, moved.tolist(), strict=True):
            score = 1 - euclidean / between[layer] if between else None
            rows.append((chosen.family, layer, euclidean, cosine, score, *of_units.typical(layer)))
            if score is not None:
                metrics.append(
                    Metric("invariance_score", score, None, None, Variant.of(family=chosen.family, layer=layer))
                )
    weakest_first = sorted(means, key=Response.kept_share)
    augmentations = tuple(mean.augmentation(card.input_size) for mean in weakest_first)
    results.append(NamedResult("augmentations", Table(AUGMENTATION_COLUMNS, augmentations, "the weakest family first")))
    results.append(NamedResult("layers", Table(_LAYER_COLUMNS, tuple(rows), "mean over pictures and strengths")))
    report(1)
    return Outcome([*results, *units], metrics)


def _response(part: Part, chosen: ChosenFamily, layers: tuple[str, ...], head: Head) -> Response:
    probability, distances = (part.kept[f"{chosen.family}/{what}"] for what in ("probability", "distances"))
    return Response(chosen, layers, head, probability, distances)


def _over_pictures(responses: list[Response], over: Any) -> Response:
    probability, distances = (
        over(np.stack([getattr(one, what) for one in responses]), axis=0) for what in ("probability", "distances")
    )
    first = responses[0]
    return Response(first.chosen, first.layers, first.head, probability, distances)


def _between_pictures(
    parts: Sequence[Part], layers: tuple[str, ...], tick: Callable[[], None]
) -> dict[str, float] | None:
    """The mean distance between different pictures, by layer; a layer is left out if fewer than two pictures differ."""
    compared = [part for part in parts if part.unit.payload["compared"]]
    if len(compared) < 2:
        return None
    found = {
        layer: measures.mean_distance([part.kept[f"{layer}/features"] for part in compared], tick) for layer in layers
    }
    return found if all(distance > 0 for distance in found.values()) else None


class _UnitMeasures:
    """The measures of each layer's units for one family; empty for a single picture."""

    def __init__(
        self, parts: Sequence[Part], chosen: ChosenFamily, layers: tuple[str, ...], tick: Callable[[], None]
    ) -> None:
        self._chosen = chosen
        self._variance: dict[str, np.ndarray] = {}
        self._firing: dict[str, np.ndarray] = {}
        for layer in layers if len(parts) > 1 else ():
            name, largest = f"{chosen.family}/{layer}/units", 0.0
            for part in parts:
                strengths, count = (read := part.kept[name]).shape
                largest = max(largest, float(np.abs(read).max()))
                tick()
            variance, firing = np.empty((2, count))
            some = max(_ACTIVATIONS // (len(parts) * strengths), 1)
            for start in range(0, count, some):
                units = slice(start, start + some)
                activations = np.empty((len(parts), *read[:, units].shape), dtype=read.dtype)
                for number, part in enumerate(parts):
                    activations[number] = part.kept[name][:, units]
                    tick()
                variance[units] = measures.normalised_variance(activations, largest)
                firing[units] = measures.local_firing(activations, chosen.identity())
            self._variance[layer], self._firing[layer] = variance, firing

    def typical(self, layer: str) -> tuple[float | None, float | None]:
        """The median normalised variance and the mean local firing of a layer's units."""
        return _over_units(np.nanmedian, self._variance.get(layer)), _over_units(np.nanmean, self._firing.get(layer))

    def results(self) -> list[NamedResult]:
        """The units of all layers, within a layer from the most invariant to the least."""
        if not self._variance:
            return []
        variance = self._matrix(
            self._variance, "normalised variance", "deviation over changes ÷ over pictures", falling=False
        )
        firing = self._matrix(self._firing, "copies on which a unit still fires", "share of copies", falling=True)
        return [
            NamedResult("unit_variance", variance, None, Variant.of(family=self._chosen.family)),
            NamedResult("unit_firing", firing, None, Variant.of(family=self._chosen.family)),
        ]

    def _matrix(self, of_layers: dict[str, np.ndarray], caption: str, unit: str, *, falling: bool) -> Matrix:
        """One row for each layer with its values in order, filled up with NaN."""
        rows = np.full((len(of_layers), max(map(len, of_layers.values()))), np.nan, dtype=np.float32)
        for row, values in zip(rows, of_layers.values(), strict=True):
            known = np.sort(values[np.isfinite(values)])
            row[: len(known)] = known[::-1] if falling else known
        columns = "units, the most invariant first"
        return Matrix(rows, tuple(of_layers), columns, unit, f"{self._chosen.about.title}: {caption}")


def _over_units(typical: Any, values: np.ndarray | None) -> float | None:
    return None if values is None or np.isnan(values).all() else float(typical(values))
