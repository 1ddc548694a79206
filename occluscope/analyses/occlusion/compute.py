"""occlusion: runs the model on every occluded copy of a picture and draws the maps from its answers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from occluscope.analyses.contract import Outcome, Report, Unit, Work
from occluscope.analyses.occlusion import kept_shares, quality
from occluscope.analyses.occlusion.kept_shares import Joined, Split
from occluscope.analyses.occlusion.parameters import OcclusionParameters
from occluscope.analyses.occlusion.scanning import Scan, Scanner, precision_windows
from occluscope.analyses.occlusion.spec import CURVE_STEPS, Share
from occluscope.analyses.occlusion.targets import Outputs, Target, columns
from occluscope.engine import naive
from occluscope.engine.covers import Cover, blurred, constant_cover, gaussian_cover, mean_cover, picture_cover
from occluscope.engine.layers import WithSums
from occluscope.models.loading import LoadedModel
from occluscope.preparation import Picture
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
from occluscope.windows import Size, WindowGrid

_TOP: Final = 5  # rows of the table of most probable classes
_HALF: Final = 128  # of 255: a mask's grey from which on it is the object


def compute(
    model: LoadedModel, pictures: Sequence[Picture], params: OcclusionParameters, unit: Unit, report: Report
) -> Outcome:
    """Occlusion maps of one picture: drop = p₀ − p of the probability that is followed, or another score.

    pictures: the picture, and the mask where the region is one. report: called after every batch with the number of
    windows (and passes of curves) done. A unit with a share of the rows keeps what it found for `curves` and `maps`.
    """
    picture = _Picture(model, pictures, params, unit, report)
    share = Share.of(unit)
    return picture.outcome() if share is None else Outcome([], [], picture.kept(share))


def curves(work: Work, report: Report) -> Outcome:
    """Insertion and deletion by one map of a split picture: two arrays of scores, kept for `maps`."""
    number, target = work.unit.payload["window"], work.unit.payload["target"]
    picture = _Picture(work.model(), work.pictures, work.params, work.unit, report, Split.of(work))
    return Outcome([], [], picture.curves(number, target))


def maps(work: Work, report: Report) -> Outcome:
    """Maps of a split picture, from its shares; as one unit would have made them.

    A map whose curves' unit failed has none.
    """
    split = Split.of(work)
    return _Picture(work.model(), work.pictures, work.params, work.unit, lambda *_: report(0), split).outcome()


@dataclass(frozen=True)
class _Map:
    """One target's map over one grid. variant: which of the job's sets of maps it belongs to.

    place: the numbers of its size of window and of its target.
    """

    grid: WindowGrid
    target: Target
    values: np.ndarray  # float64 [rows, columns]; what the target has while the window stands there
    drop: np.ndarray  # float64 [rows, columns]
    variant: Variant
    place: tuple[int, int]


class _Picture:
    """One picture's work: its parts share the unoccluded answer and what was asked."""

    def __init__(
        self,
        model: LoadedModel,
        pictures: Sequence[Picture],
        params: OcclusionParameters,
        unit: Unit,
        report: Report,
        split: Split | None = None,
    ) -> None:
        """split: what the picture's shares found; none where it is still to be found."""
        self._split = split
        self._share = None if split else Share.of(unit)
        self._pictures = pictures
        self._full, self._params, self._report = model, params, report
        self._model = model.half if params.precision == "half" else model
        self._picture, self._image = pictures[0], unit.images[0]
        self._region = _region(params, pictures, model.card.input_size)
        self._clear = self._model.tensor(self._picture.rgb)
        self._outputs = Outputs.of(params, model.card)
        layers = tuple(self._outputs.layers)
        self._module: nn.Module = WithSums(self._model.module, layers) if layers else self._model.module
        with torch.inference_mode():
            self._base = self._outputs.scores(self._module(self._clear[None]))[0].cpu()
        self._targets = self._outputs.targets(params, self._base)
        feature = params.feature_layer
        self._feature = self._outputs.most_active(self._base, feature) if feature else None
        followed = [*self._targets, *([self._feature] if self._feature else [])]
        network = None if params.method == "naive" or split else self._model.followed(layers)
        self._done = 0  # steps of the sizes and curves before
        self._scanner = Scanner(
            self._module, network, self._outputs, followed, self._clear, lambda run: self._report(self._done + run)
        )
        self._results: list[NamedResult] = []
        self._metrics: list[Metric] = []

    def outcome(self) -> Outcome:
        for number, size in enumerate(self._params.window):
            self._run_size(number, size)
        self._add("top_classes", self._top_classes())
        order = {name: number for number, name in enumerate(_ORDER)}
        return Outcome(sorted(self._results, key=lambda named: order[named.name]), self._metrics)

    def kept(self, share: Share) -> dict[str, np.ndarray]:
        """Run a share of the windows: what later stages need of it."""
        arrays: dict[str, np.ndarray] = {}
        for number, size in enumerate(self._params.window):
            grid = self._grid(size)
            rows = share.rows(grid.shape[0])
            part = WindowGrid(size, tuple(grid.origins_y[row] for row in rows), grid.origins_x)
            arrays |= kept_shares.of_scan(number, *self._scan(part, number))
        return arrays

    def curves(self, number: int, target: int) -> dict[str, np.ndarray]:
        """Deletion and insertion by a map of the split picture."""
        assert self._split is not None  # noqa: S101 - only split pictures have this stage
        one = self._maps(self._grid(self._params.window[number]), self._split.joined(number)[0], number)[target]
        return self._run_curves(one, one.grid.mean_per_pixel(one.drop, self._full.card.input_size))

    def _grid(self, size: Size) -> WindowGrid:
        return WindowGrid.within(self._params.box(self._full.card.input_size), size, self._params.stride)

    def _scan(self, grid: WindowGrid, number: int) -> Joined:
        cover = _cover(self._model, self._picture, self._clear, self._params, self._params.window[number])
        start, scan = time.perf_counter(), None
        for scan in self._scanner.scan(self._params, grid, cover):
            self._report(self._done + scan.windows_run, lambda scan=scan: self._preview(grid, scan, number))  # type: ignore[misc]
        assert scan is not None  # noqa: S101 - a grid has at least one window
        self._done += len(grid)
        return scan, time.perf_counter() - start

    def _run_size(self, number: int, size: Size) -> None:
        params, variant = self._params, Variant.of(window=_window_name(self._params, size))
        grid = self._grid(size)
        scan, seconds = self._split.joined(number) if self._split else self._scan(grid, number)
        precision_error = self._precision_error(grid, size, scan) if params.precision == "half" else None
        for place, one in enumerate(self._maps(grid, scan, number)):
            self._add_map(one, self._picture_geometry(grid))
            if scan.error is not None:
                self._measure("estimated_error", float(scan.error[place]), one.target.unit, one.variant)
            if precision_error is not None:
                self._measure("precision_error", float(precision_error[place]), one.target.unit, one.variant)
        self._add("predicted_class_map", self._class_map(grid, scan.predicted), variant)
        if self._feature:
            values = scan.values[:, -1].reshape(grid.shape)
            caption = f"summed activity of {self._feature.name}"
            self._add(
                "feature_activity_map", _heatmap(values, self._picture_geometry(grid), "activation", caption), variant
            )
        self._measure("windows", float(len(grid)), None, variant)
        if params.method == "adaptive":
            self._measure("windows_run", float(scan.windows_run), None, variant)
        self._measure("forward_equivalents", scan.forward_equivalents, None, variant)
        self._measure("followed", float(scan.followed), None, variant)
        self._measure("seconds", seconds, "s", variant)

    def _maps(self, grid: WindowGrid, scan: Scan, number: int) -> list[_Map]:
        maps, size = [], self._params.window[number]
        for place, target in enumerate(self._targets):
            values = scan.values[:, place].reshape(grid.shape)
            name = target.name if len(self._targets) > 1 else None
            variant = Variant.of(window=_window_name(self._params, size), target=name)
            drop = float(self._base[target.column]) - values
            maps.append(_Map(grid, target, values, drop, variant, (number, place)))
        return maps

    def _preview(self, grid: WindowGrid, scan: Scan, number: int) -> list[NamedResult]:
        """The drop maps as they stand."""
        geometry = self._picture_geometry(grid)
        part = f"part {self._share.number + 1} of {self._share.count}" if self._share else None
        return [
            NamedResult(
                "drop_map",
                _drop_map(one, geometry),
                self._image,
                one.variant.among(share=part),
            )
            for one in self._maps(grid, scan, number)
        ]

    def _add_map(self, one: _Map, geometry: GridGeometry) -> None:
        """A target's maps over one grid, with all numbers that are taken from them."""
        input_size, unit = self._full.card.input_size, one.target.unit
        per_pixel = one.grid.mean_per_pixel(one.drop, input_size)
        pixels = GridGeometry.of_pixels(input_size, self._picture.frame)
        self._add("pixel_map", _heatmap(per_pixel, pixels, unit, f"mean drop of {one.target.shown}"), one.variant)
        self._add("drop_map", _drop_map(one, geometry), one.variant)
        self._add("probability_map", _heatmap(one.values, geometry, unit, one.target.shown), one.variant)
        largest = int(one.drop.argmax())
        y, x = one.grid.centre(largest)
        self._measure("base_probability", float(self._base[one.target.column]), unit, one.variant)
        self._measure("max_drop", float(one.drop.flat[largest]), unit, one.variant)
        self._measure("max_drop_y", y, "px", one.variant)
        self._measure("max_drop_x", x, "px", one.variant)
        self._measure("gini", quality.gini(per_pixel), None, one.variant)
        if self._region is not None:
            for name, value in quality.pointing(per_pixel, self._region).items():
                self._measure(name, value, unit if name == "drop_inside_minus_outside" else None, one.variant)
        if self._params.insertion_deletion and one.target.head.is_bounded:
            self._add_curves(one, per_pixel)

    def _add_curves(self, one: _Map, per_pixel: np.ndarray) -> None:
        found = self._split.curves.get(one.place) if self._split else self._run_curves(one, per_pixel)
        if found is None:
            return
        unit, deletion, insertion = one.target.unit, found["deletion"], found["insertion"]
        series = (Series("deletion", deletion, unit), Series("insertion", insertion, unit))
        share = np.linspace(0, 1, CURVE_STEPS + 1)
        curves = Curves(share, "share of pixels, the most important first", None, series, one.target.shown)
        self._add("insertion_deletion", curves, one.variant)
        self._measure("deletion_auc", quality.area(deletion), unit, one.variant)
        self._measure("insertion_auc", quality.area(insertion), unit, one.variant)

    def _run_curves(self, one: _Map, per_pixel: np.ndarray) -> dict[str, np.ndarray]:
        """The target's score along both curves: float64 [CURVE_STEPS + 1]."""

        def score(copies: Tensor) -> Tensor:
            with torch.inference_mode():
                return self._outputs.scores(self._module(copies))[:, one.target.column]

        def run(start: Tensor, end: Tensor) -> np.ndarray:
            scores = quality.curve(score, start, end, per_pixel, lambda done: self._report(self._done + done))
            self._done += CURVE_STEPS + 1
            return scores

        grey = torch.zeros_like(self._clear)
        deletion = run(self._clear, grey)
        return {"deletion": deletion, "insertion": run(quality.blurred_start(self._clear), self._clear)}

    def _precision_error(self, grid: WindowGrid, size: Size, scan: Scan) -> np.ndarray:
        """Largest difference from full precision over some windows: float64 [targets]."""
        positions = precision_windows(len(grid))
        clear = self._full.tensor(self._picture.rgb)
        cover = _cover(self._full, self._picture, clear, self._params, size)
        layers = tuple(self._outputs.layers)
        module = WithSums(self._full.module, layers) if layers else self._full.module
        batches = naive.occluded_outputs(module, clear, grid, cover, positions=positions)
        scores = torch.cat([self._outputs.scores(outputs) for _, outputs in batches])
        full = scores[:, columns(self._scanner.targets)].cpu().numpy()
        return np.asarray(np.abs(scan.values[positions] - full).max(axis=0))

    def _picture_geometry(self, grid: WindowGrid) -> GridGeometry:
        return GridGeometry(grid, self._full.card.input_size, self._picture.frame)

    def _class_map(self, grid: WindowGrid, predicted: np.ndarray) -> ClassMap:
        labels = {index: self._outputs.own.name(index) for index in np.unique(predicted).tolist()}
        classes = predicted.reshape(grid.shape)
        return ClassMap(classes, labels, self._picture_geometry(grid), "most probable class")

    def _top_classes(self) -> Table:
        own = self._outputs.own
        columns = (
            Column("class", "integer"),
            Column("label", "text"),
            Column(own.unit, "number", own.unit),
        )
        base = self._base[: own.count].numpy()
        top = base.argsort()[::-1][:_TOP]
        rows = tuple((int(index), own.name(index), float(base[index])) for index in top)
        return Table(columns, rows, "most probable classes")

    def _add(self, name: str, result: Result, variant: Variant = ONLY) -> None:
        self._results.append(NamedResult(name, result, self._image, variant))

    def _measure(self, name: str, value: float, unit: str | None, variant: Variant) -> None:
        self._metrics.append(Metric(name, value, unit, self._image, variant))


_ORDER: Final = (
    "pixel_map", "drop_map", "probability_map", "predicted_class_map", "feature_activity_map", "insertion_deletion",
    "top_classes",
)  # fmt: skip


def _window_name(params: OcclusionParameters, size: Size) -> str | None:
    """Of several windows which; none where there is one alone."""
    return f"{size[0]}×{size[1]}" if len(params.window) > 1 else None


def _region(params: OcclusionParameters, pictures: Sequence[Picture], input_size: Size) -> np.ndarray | None:
    """The object's pixels of the model's input: bool [height, width]."""
    if params.region is None:
        return None
    if isinstance(params.region, str):
        return np.asarray(pictures[1].rgb.mean(axis=2) >= _HALF)
    top, left, bottom, right = params.region
    region = np.zeros(input_size, dtype=bool)
    region[top:bottom, left:right] = True
    return region


def _cover(model: LoadedModel, picture: Picture, clear: Tensor, params: OcclusionParameters, size: Size) -> Cover:
    """What covers the windows, normalised as the picture is."""
    match params.baseline:
        case "window_mean":
            return mean_cover(clear, size)
        case "blur":
            return picture_cover(blurred(clear, params.baseline_sigma), size)
        case "noise":
            random = np.random.default_rng(params.baseline_seed)
            noise = random.integers(0, 256, picture.rgb.shape, dtype=np.uint8)
            return picture_cover(model.tensor(noise), size)
        case "gaussian":
            return gaussian_cover(clear, size)
        case _:
            return constant_cover(_colour(model, picture, params), size)


def _colour(model: LoadedModel, picture: Picture, params: OcclusionParameters) -> Tensor:
    """The one colour of the other baselines: [3, 1, 1], normalised."""
    if params.baseline == "image_mean":
        return model.colour(picture.rgb.mean(axis=(0, 1)).tolist())
    if params.baseline == "value":
        return model.colour(params.baseline_value or (0, 0, 0))
    return torch.zeros(3, 1, 1, device=model.device, dtype=model.dtype)


def _drop_map(one: _Map, geometry: GridGeometry) -> Heatmap:
    return _heatmap(one.drop, geometry, one.target.unit, f"drop of {one.target.shown}")


def _heatmap(values: np.ndarray, geometry: GridGeometry, unit: str, caption: str) -> Heatmap:
    return Heatmap(values.astype(np.float32), geometry, unit, caption)
