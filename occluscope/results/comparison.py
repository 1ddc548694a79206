"""Compares the same result of several models: the difference of maps, the curves of all models in one picture."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np

from occluscope.results.curves import Curves
from occluscope.results.grid import GridGeometry
from occluscope.results.heatmap import Heatmap
from occluscope.results.kind import Metric, Result
from occluscope.results.matrix import Matrix
from occluscope.results.table import Cell, Column, Table


def compare(results: Mapping[str, Result]) -> dict[str, Result]:
    """Comparisons of the results of one name, by the models that they compare. results: by model, at least two.

    Heatmaps: the first model's minus each other model's. Curves over the same axis: the series of all models. Matrices:
    the rows of all models. Other kinds have no comparison.
    """
    models, kinds = list(results), {type(result) for result in results.values()}
    together = ", ".join(models)
    if kinds == {Heatmap}:
        maps = cast("Mapping[str, Heatmap]", results)
        first, *others = models
        return {f"{first} − {other}": _difference(maps[first], maps[other], first, other) for other in others}
    if kinds == {Curves}:
        curves = cast("Mapping[str, Curves]", results)
        axes = [one.axis for one in curves.values()]
        if all(np.array_equal(axis, axes[0]) for axis in axes):
            return {together: _all_series(curves)}
    if kinds == {Matrix}:
        return {together: _all_rows(cast("Mapping[str, Matrix]", results))}
    return {}


def compare_metrics(metrics: Mapping[str, list[Metric]], names: Mapping[str, str]) -> Table | None:
    """A row for each number that at least two models have; for two models with the difference, first − other.

    metrics: by model. names: of pictures, by id.
    """
    models = list(metrics)
    values = {model: {(one.name, one.variant, one.image): one for one in metrics[model]} for model in models}
    keys = dict.fromkeys(key for of_model in values.values() for key in of_model)
    rows: list[tuple[Cell, ...]] = []
    for key in keys:
        found = [values[model].get(key) for model in models]
        if sum(one is not None for one in found) < 2:
            continue
        numbers = [None if one is None else one.value for one in found]
        both = len(models) == 2 and numbers[0] is not None and numbers[1] is not None
        difference = [(numbers[0] or 0) - (numbers[1] or 0)] if both else []
        unit = next(one.unit for one in found if one is not None)
        rows.append((key[0], str(key[1]), names.get(key[2] or ""), unit, *numbers, *difference))
    if not rows:
        return None
    columns = [Column(name, "text") for name in ("metric", "of", "picture", "unit")]
    columns += [Column(model, "number") for model in models]
    if len(models) == 2:
        columns.append(Column("difference", "number"))
    return Table(tuple(columns), tuple(rows), ", ".join(models))


def _difference(first: Heatmap, other: Heatmap, first_model: str, other_model: str) -> Heatmap:
    """The difference on the first map's cells. If the other's cells lie elsewhere, those at the centres count."""
    values = other.values if first.geometry == other.geometry else _at_centres(other, first.geometry)
    caption = f"{first.caption} of {first_model} − {other.caption} of {other_model}"
    if first.caption == other.caption:
        caption = f"{first.caption}: {first_model} − {other_model}"
    return Heatmap(first.values - values, first.geometry, first.unit, caption)


def _at_centres(heatmap: Heatmap, geometry: GridGeometry) -> np.ndarray:
    """A map's values at the centres of another map's cells, NaN outside: float32 [rows, columns]."""
    places = []
    for axis, (near, far) in enumerate((("top", "bottom"), ("left", "right"))):
        edges = geometry.cell_edges()[axis]
        centres = (edges[1:] + edges[:-1]) / 2
        there, own = (
            (getattr(one.frame, near), getattr(one.frame, far), one.input_size[axis])
            for one in (geometry, heatmap.geometry)
        )
        on_picture = there[0] + centres / there[2] * (there[1] - there[0])
        on_input = (on_picture - own[0]) / (own[1] - own[0]) * own[2]
        own_edges = heatmap.geometry.cell_edges()[axis]
        index = np.searchsorted(own_edges, on_input, side="right") - 1
        places.append((index.clip(0, len(own_edges) - 2), (index >= 0) & (index <= len(own_edges) - 2)))
    (rows, in_rows), (columns, in_columns) = places
    values = heatmap.values[np.ix_(rows, columns)].copy()
    values[~np.outer(in_rows, in_columns)] = np.nan
    return values


def _all_series(curves: Mapping[str, Curves]) -> Curves:
    """The series of all models, without bands if several have one unit: lines are easier to compare."""
    first = next(iter(curves.values()))
    series = [
        replace(one, name=f"{model}: {one.name}", low=None, high=None)
        for model, of_model in curves.items()
        for one in of_model.series
    ]
    captions = list(dict.fromkeys(one.caption for one in curves.values()))
    return replace(first, series=tuple(series), caption=" / ".join(captions))


def _all_rows(matrices: Mapping[str, Matrix]) -> Matrix:
    first = next(iter(matrices.values()))
    widest = max(one.values.shape[1] for one in matrices.values())
    rows = [
        np.pad(one.values, ((0, 0), (0, widest - one.values.shape[1])), constant_values=np.nan)
        for one in matrices.values()
    ]
    names = tuple(f"{model}: {row}" for model, one in matrices.items() for row in one.rows)
    return replace(first, values=np.concatenate(rows), rows=names)
