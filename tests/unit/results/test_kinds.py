import csv
import io
import json

import numpy as np
import pytest

from occluscope.pictures.preparation import Frame
from occluscope.results import (
    KINDS,
    ClassMap,
    Column,
    Curves,
    GridGeometry,
    Heatmap,
    Matrix,
    Packed,
    Result,
    RgbImage,
    Series,
    Strip,
    Table,
    unpack,
)
from occluscope.windows import WindowGrid

GEOMETRY = GridGeometry(WindowGrid.over((20, 30), (8, 6), (5, 12)), (20, 30), Frame(1.5, 2.0, 61.5, 42.0))
SHAPE = GEOMETRY.grid.shape
VALUES = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
VALUES[0, 1] = np.nan
CLASSES = np.arange(12, dtype=np.int32).reshape(SHAPE) % 5

RESULTS: dict[str, Result] = {
    "heatmap": Heatmap(VALUES, GEOMETRY, "probability", "drop of p(cat)"),
    "class_map": ClassMap(CLASSES, {index: f"class {index}" for index in range(5)}, GEOMETRY, "most probable"),
    "curves": Curves(
        np.array([0.0, 0.5, 1.0]),
        "angle",
        "°",
        (
            Series("p", np.array([0.9, np.nan, 0.1]), "probability", np.zeros(3), np.array([1.0, 0.8, 0.2])),
            Series("distance", np.array([0.0, 1 / 3, 2.0])),
        ),
        "turned",
        strip=Strip((0.0, 1.0), np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)),
    ),
    "matrix": Matrix(VALUES, tuple("abcd"), "units", None, "how much"),
    "image": RgbImage(np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3), "boxes"),
    "table": Table(
        (Column("label", "text"), Column("p", "number", "probability")), (("a, b", 0.1), ("c", None)), "caption"
    ),
}


def test_every_kind_is_tried_here() -> None:
    assert set(RESULTS) == set(KINDS)


@pytest.mark.parametrize("kind", RESULTS)
def test_packed_through_json_and_npy_it_comes_back_bit_for_bit(kind: str) -> None:
    result = RESULTS[kind]
    packed = result.pack()
    array = np.load(io.BytesIO(result.to_npy())) if packed.array is not None else None
    back = unpack(kind, Packed(json.loads(json.dumps(packed.meta)), array))
    assert json.dumps(back.to_json()) == json.dumps(result.to_json())
    if array is not None and packed.array is not None:
        assert array.dtype == packed.array.dtype
        assert array.tobytes() == packed.array.tobytes()


def test_a_heatmaps_json_gives_the_same_floats_and_null_for_nothing_measured() -> None:
    values = json.loads(json.dumps(RESULTS["heatmap"].to_json(), allow_nan=False))["values"]
    assert values[0][1] is None
    assert np.array_equal(np.array(values, dtype=np.float32), VALUES, equal_nan=True)


def test_a_maps_csv_names_every_window_by_its_origin() -> None:
    rows = list(csv.reader(io.StringIO(RESULTS["heatmap"].to_csv())))
    assert rows[0] == ["y", "x", "probability"]
    assert rows[2] == ["0", "12", ""]
    grid = GEOMETRY.grid
    assert [(int(y), int(x)) for y, x, _ in rows[1:]] == [tuple(origin) for origin in grid.origins().tolist()]
    read = np.array([np.float32(value or "nan") for _, _, value in rows[1:]]).reshape(SHAPE)
    assert np.array_equal(read, VALUES, equal_nan=True)


def test_a_tables_csv_quotes_what_needs_it() -> None:
    assert RESULTS["table"].to_csv() == 'label,p\n"a, b",0.1\nc,\n'


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_text_of_a_csv_is_a_formula_and_numbers_stay_numbers(sign: str) -> None:
    name = f"{sign}1+1"
    minus = np.array([[-1.5, 2.0]])
    texts = [
        Table((Column(name, "text"), Column("n", "number")), ((name, -1.5),), "").to_csv(),
        Matrix(minus, (name,), "units", None, "").to_csv(),
        Curves(minus[0], name, None, (Series(name, minus[0]),), "", labels=(name, name)).to_csv(),
        Heatmap(VALUES, GEOMETRY, name, "").to_csv(),
    ]
    for text in texts:
        cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
        assert "'" + name.replace("\r", "\n") in cells
        assert all(float(cell) < 0 for cell in cells if cell.startswith(sign))  # numbers alone, which none but - begins
    assert all("-1.5" in text for text in texts[:3])


def test_curves_csv_has_a_column_for_the_axis_and_every_line() -> None:
    rows = list(csv.reader(io.StringIO(RESULTS["curves"].to_csv())))
    assert rows[0] == ["angle", "p", "p, low", "p, high", "distance"]
    assert rows[2] == ["0.5", "", "0.0", "0.8", repr(1 / 3)]
    assert len(rows) == 4


def test_a_matrix_csv_has_a_line_for_every_row() -> None:
    rows = list(csv.reader(io.StringIO(RESULTS["matrix"].to_csv())))
    assert rows[0] == ["row", *map(str, range(SHAPE[1]))]
    assert [row[0] for row in rows[1:]] == list("abcd")
    read = np.array([[np.float32(value or "nan") for value in row[1:]] for row in rows[1:]])
    assert np.array_equal(read, VALUES, equal_nan=True)


def test_a_strip_comes_back_picture_by_picture() -> None:
    curves = RESULTS["curves"]
    assert isinstance(curves, Curves)
    assert curves.strip is not None
    back = Strip.from_json(curves.strip.to_json())
    assert back.places == curves.strip.places
    assert np.array_equal(back.pictures, curves.strip.pictures)


def test_a_table_has_no_array() -> None:
    with pytest.raises(TypeError, match="no array"):
        RESULTS["table"].to_npy()


def test_cells_meet_halfway_between_window_centres() -> None:
    edges_y, edges_x = GEOMETRY.cell_edges()
    assert GEOMETRY.grid.origins_y == (0, 5, 10, 12)  # centres 4, 9, 14, 16
    assert edges_y.tolist() == [1.5, 6.5, 11.5, 15.0, 17.0]
    assert edges_x.tolist() == [-3.0, 9.0, 21.0, 33.0]


def test_pixels_are_cells_of_their_own() -> None:
    edges_y, edges_x = GridGeometry.of_pixels((3, 4), GEOMETRY.frame).cell_edges()
    assert (edges_y.tolist(), edges_x.tolist()) == ([0, 1, 2, 3], [0, 1, 2, 3, 4])
