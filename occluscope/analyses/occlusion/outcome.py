"""occlusion: from what was asked and what the model answered to results; runs no model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from torch import Tensor

from occluscope.analyses.contract import Outcome
from occluscope.analyses.occlusion import quality
from occluscope.analyses.occlusion.experiment import Experiment
from occluscope.analyses.occlusion.responses import CurveScores, Response, Responses
from occluscope.analyses.occlusion.spec import CURVE_STEPS, Share
from occluscope.analyses.occlusion.target_maps import TargetMap, target_maps
from occluscope.results import (
    ONLY,
    ClassMap,
    Column,
    Curves,
    GridGeometry,
    Heatmap,
    Metric,
    NamedResult,
    Result,
    Series,
    Table,
    Variant,
)
from occluscope.windows import WindowGrid

_TOP: Final = 5  # rows of the table of most probable classes
_ORDER: Final = (
    "pixel_map", "drop_map", "probability_map", "predicted_class_map", "feature_activity_map", "insertion_deletion",
    "top_classes",
)  # fmt: skip


def outcome(experiment: Experiment, responses: Responses) -> Outcome:
    """All maps, curves, tables and numbers of one picture."""
    found = _Collected(experiment.image)
    for number, response in enumerate(responses.sizes):
        _add_size(found, experiment, responses.base, number, response)
    found.add("top_classes", _top_classes(experiment, responses.base), ONLY)
    order = {name: place for place, name in enumerate(_ORDER)}
    return Outcome(sorted(found.results, key=lambda named: order[named.name]), found.metrics)


def preview(experiment: Experiment, maps: Sequence[TargetMap], share: Share | None) -> list[NamedResult]:
    """The drop maps of a scan that is running. share: the share of the rows, if the picture is split."""
    part = f"part {share.number + 1} of {share.count}" if share else None
    return [
        NamedResult("drop_map", _drop_map(experiment, one), experiment.image, one.variant.among(share=part))
        for one in maps
    ]


@dataclass
class _Collected:
    """Results and numbers of one picture. image: its id."""

    image: str
    results: list[NamedResult] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)

    def add(self, name: str, result: Result, variant: Variant) -> None:
        self.results.append(NamedResult(name, result, self.image, variant))

    def measure(self, name: str, value: float, unit: str | None, variant: Variant) -> None:
        self.metrics.append(Metric(name, value, unit, self.image, variant))


def _add_size(found: _Collected, experiment: Experiment, base: Tensor, number: int, response: Response) -> None:
    """All of one size of window. number: of the size."""
    grid, variant, scan = experiment.grid(number), experiment.variant(number), response.scan
    for place, one in enumerate(target_maps(experiment, base, number, grid, scan)):
        _add_map(found, experiment, one)
        if place in response.curves:
            _add_curves(found, one, response.curves[place])
        if scan.error is not None:
            found.measure("estimated_error", float(scan.error[place]), one.target.unit, one.variant)
        if response.precision_error is not None:
            found.measure("precision_error", float(response.precision_error[place]), one.target.unit, one.variant)
    found.add("predicted_class_map", _class_map(experiment, grid, scan.predicted), variant)
    if feature := experiment.feature(base):
        values, caption = scan.values[:, -1].reshape(grid.shape), f"summed activity of {feature.name}"
        found.add("feature_activity_map", _heatmap(values, experiment.geometry(grid), "activation", caption), variant)
    found.measure("windows", float(len(grid)), None, variant)
    if experiment.params.method == "adaptive":
        found.measure("windows_run", float(scan.windows_run), None, variant)
    found.measure("forward_equivalents", scan.forward_equivalents, None, variant)
    found.measure("followed", float(scan.followed), None, variant)
    found.measure("seconds", response.seconds, "s", variant)


def _add_map(found: _Collected, experiment: Experiment, one: TargetMap) -> None:
    """A target's maps over one grid, with all numbers that are taken from them."""
    size, unit = experiment.input_size, one.target.unit
    per_pixel = one.grid.mean_per_pixel(one.drop, size)
    pixels, windows = GridGeometry.of_pixels(size, experiment.picture.frame), experiment.geometry(one.grid)
    found.add("pixel_map", _heatmap(per_pixel, pixels, unit, f"mean drop of {one.target.shown}"), one.variant)
    found.add("drop_map", _drop_map(experiment, one), one.variant)
    found.add("probability_map", _heatmap(one.values, windows, unit, one.target.shown), one.variant)
    largest = int(one.drop.argmax())
    y, x = one.grid.centre(largest)
    found.measure("base_probability", one.base, unit, one.variant)
    found.measure("max_drop", float(one.drop.flat[largest]), unit, one.variant)
    found.measure("max_drop_y", y, "px", one.variant)
    found.measure("max_drop_x", x, "px", one.variant)
    found.measure("gini", quality.gini(per_pixel), None, one.variant)
    if experiment.region is not None:
        for name, value in quality.pointing(per_pixel, experiment.region).items():
            found.measure(name, value, unit if name == "drop_inside_minus_outside" else None, one.variant)


def _add_curves(found: _Collected, one: TargetMap, scores: CurveScores) -> None:
    unit, deletion, insertion = one.target.unit, scores["deletion"], scores["insertion"]
    series = (Series("deletion", deletion, unit), Series("insertion", insertion, unit))
    share = np.linspace(0, 1, CURVE_STEPS + 1)
    curves = Curves(share, "share of pixels, the most important first", None, series, one.target.shown)
    found.add("insertion_deletion", curves, one.variant)
    found.measure("deletion_auc", quality.area(deletion), unit, one.variant)
    found.measure("insertion_auc", quality.area(insertion), unit, one.variant)


def _class_map(experiment: Experiment, grid: WindowGrid, predicted: np.ndarray) -> ClassMap:
    labels = {index: experiment.outputs.own.name(index) for index in np.unique(predicted).tolist()}
    return ClassMap(predicted.reshape(grid.shape), labels, experiment.geometry(grid), "most probable class")


def _top_classes(experiment: Experiment, base: Tensor) -> Table:
    own = experiment.outputs.own
    columns = (
        Column("class", "integer"),
        Column("label", "text"),
        Column(own.unit, "number", own.unit),
    )
    scores = base[: own.count].numpy()
    top = scores.argsort()[::-1][:_TOP]
    rows = tuple((int(index), own.name(index), float(scores[index])) for index in top)
    return Table(columns, rows, "most probable classes")


def _drop_map(experiment: Experiment, one: TargetMap) -> Heatmap:
    return _heatmap(one.drop, experiment.geometry(one.grid), one.target.unit, f"drop of {one.target.shown}")


def _heatmap(values: np.ndarray, geometry: GridGeometry, unit: str, caption: str) -> Heatmap:
    return Heatmap(values.astype(np.float32), geometry, unit, caption)
