"""Several models' results brought together."""

import numpy as np
import pytest

from occluscope.pictures.preparation import Frame
from occluscope.results import Column, Curves, GridGeometry, Heatmap, Matrix, Metric, Result, Series, Strip, Table
from occluscope.results.comparison import compare, compare_metrics
from occluscope.windows import WindowGrid


def heatmap(values: np.ndarray, caption: str = "drop of p(cat)", size: int = 40, frame: Frame | None = None) -> Heatmap:
    step = size // len(values)
    grid = WindowGrid.over((size, size), (step, step), (step, step))
    return Heatmap(
        values.astype(np.float32),
        GridGeometry(grid, (size, size), frame or Frame(0, 0, 80, 80)),
        "probability",
        caption,
    )


def test_heatmaps_give_the_first_less_each_other() -> None:
    one, two, three = (np.random.default_rng(seed).random((4, 4)) for seed in range(3))
    found = compare({"a": heatmap(one), "b": heatmap(two), "c": heatmap(three, "drop of p(dog)")})
    assert list(found) == ["a − b", "a − c"]
    difference = found["a − b"]
    assert isinstance(difference, Heatmap)
    np.testing.assert_allclose(difference.values, (one - two).astype(np.float32), atol=1e-6)
    assert difference.caption == "drop of p(cat): a − b"
    other = found["a − c"]
    assert isinstance(other, Heatmap)
    assert other.caption == "drop of p(cat) of a − drop of p(dog) of c"


def test_maps_on_other_grids_are_compared_where_they_lie_on_the_picture() -> None:
    """The second model sees the left upper quarter of the picture alone, in cells twice as fine."""
    coarse = heatmap(np.zeros((4, 4)))
    fine = heatmap(np.arange(16.0).reshape(4, 4) + 1, size=60, frame=Frame(0, 0, 40, 40))
    difference = compare({"a": coarse, "b": fine})["a − b"]
    assert isinstance(difference, Heatmap)
    assert difference.geometry == coarse.geometry
    known = np.isfinite(difference.values)
    assert known.tolist() == [[True, True, False, False]] * 2 + [[False] * 4] * 2
    assert set((-difference.values[known]).tolist()) <= set(range(1, 17))
    assert difference.values[0, 0] == -6  # the centre of the first cell lies in the fine cell (1, 1)


def curves(values: list[float], axis: list[float] | None = None) -> Curves:
    series = Series("p", np.array(values), "probability", np.zeros(3), np.ones(3))
    strip = Strip((0.0,), np.zeros((1, 2, 2, 3), dtype=np.uint8))
    return Curves(np.array(axis or [0.0, 1, 2]), "angle", "°", (series,), "turned", strip=strip)


def test_curves_come_into_one_picture() -> None:
    (name, found), *others = compare({"a": curves([1, 2, 3]), "b": curves([4, 5, 6])}).items()
    assert (name, others) == ("a, b", [])
    assert isinstance(found, Curves)
    assert [(one.name, one.values.tolist(), one.low) for one in found.series] == [
        ("a: p", [1, 2, 3], None),
        ("b: p", [4, 5, 6], None),
    ]
    assert found.strip is not None
    assert compare({"a": curves([1, 2, 3]), "b": curves([1, 2, 3], [0, 1, 3])}) == {}


def test_matrices_come_under_each_other() -> None:
    wide, narrow = np.ones((1, 4), dtype=np.float32), np.zeros((2, 2), dtype=np.float32)
    found = compare(
        {"a": Matrix(wide, ("x",), "units", None, "c"), "b": Matrix(narrow, ("x", "y"), "units", None, "c")}
    )["a, b"]
    assert isinstance(found, Matrix)
    assert found.rows == ("a: x", "b: x", "b: y")
    assert np.isnan(found.values).sum() == 4


@pytest.mark.parametrize(
    "pair",
    [
        {"a": Table((Column("n", "integer"),), ((1,),), ""), "b": Table((Column("n", "integer"),), ((2,),), "")},
        {"a": curves([1, 2, 3]), "b": heatmap(np.zeros((4, 4)))},
    ],
)
def test_other_kinds_are_only_looked_at(pair: dict[str, Result]) -> None:
    assert compare(pair) == {}


def test_numbers_stand_side_by_side() -> None:
    table = compare_metrics(
        {
            "a": [Metric("p", 0.75, "probability", "id"), Metric("only", 1.0)],
            "b": [Metric("p", 0.5, "probability", "id")],
        },
        {"id": "picture 1"},
    )
    assert table is not None
    assert [column.name for column in table.columns] == ["metric", "of", "picture", "unit", "a", "b", "difference"]
    assert table.rows == (("p", "", "picture 1", "probability", 0.75, 0.5, 0.25),)
    assert compare_metrics({"a": [Metric("p", 1.0)]}, {}) is None
