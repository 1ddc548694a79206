import io

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from occluscope import pictures
from occluscope.pictures.preparation import Frame
from occluscope.rendering import COLORMAPS, DrawingOptions, overlay, render_png
from occluscope.rendering.render import MAX_PIXELS
from occluscope.rendering.scale import scale_of_numbers
from occluscope.results import ClassMap, Column, Curves, GridGeometry, Heatmap, Matrix, Result, Series, Table
from occluscope.windows import WindowGrid
from tests.conftest import encode, random_picture
from tests.unit.results.test_kinds import RESULTS

GREY = 128
ORIGINAL = Image.new("RGB", (400, 300), (GREY, GREY, GREY))
# The input, 100 × 100, shows the original's square from (50, 0) to (350, 300): three pixels a pixel.
GEOMETRY = GridGeometry.of_pixels((100, 100), Frame(50, 0, 350, 300))


def drawn(result: Heatmap | ClassMap, **options: object) -> np.ndarray:
    png = render_png(result, DrawingOptions(**options), "title", ORIGINAL)  # type: ignore[arg-type]
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)


def spot(value: float, elsewhere: float = 0.0) -> Heatmap:
    """A map with one square of 10 × 10 that differs, at (y 20, x 70)."""
    values = np.full((100, 100), elsewhere, dtype=np.float32)
    values[20:30, 70:80] = value
    return Heatmap(values, GEOMETRY, "probability", "drop")


def test_an_overlay_keeps_the_originals_pixels_one_to_one() -> None:
    picture = drawn(spot(1.0), overlay=True)
    assert picture.shape[0] == 300
    assert picture.shape[1] > 400  # the colour bar stands beside it


def test_an_overlay_lies_where_the_model_looked() -> None:
    picture = drawn(spot(1.0, -0.01), overlay=True, alpha=1.0)[:, :400]
    red = np.argwhere(picture[..., 0] - picture[..., 2] > 60)
    assert red.min(axis=0).tolist() == [60, 50 + 210]
    assert red.max(axis=0).tolist() == [89, 50 + 239]


def test_what_the_model_was_not_shown_is_dimmed_and_untinted() -> None:
    outside = drawn(spot(1.0), overlay=True)[:, :50]
    assert outside.max() < GREY
    assert (outside == outside[..., :1]).all()


def test_where_signs_differ_red_supports_blue_opposes_and_nothing_stays_clear() -> None:
    values = np.zeros((100, 100), dtype=np.float32)
    values[:30], values[70:] = 0.5, -0.5
    picture = drawn(Heatmap(values, GEOMETRY, "probability", "drop"), overlay=True, alpha=1.0)
    assert picture[30, 200, 0] > picture[30, 200, 2] + 60
    assert picture[270, 200, 2] > picture[270, 200, 0] + 60
    assert picture[150, 200].tolist() == [GREY] * 3


def test_cells_without_a_value_stay_clear() -> None:
    picture = drawn(spot(np.nan, 0.7), overlay=True, alpha=1.0)
    assert picture[75, 275].tolist() == [GREY] * 3
    assert picture[150, 200].tolist() != [GREY] * 3


def test_alpha_zero_shows_the_picture_alone() -> None:
    assert (drawn(spot(1.0, 0.5), overlay=True, alpha=0.0)[:, 50:350] == GREY).all()


def test_size_is_the_pictures_longer_side() -> None:
    picture = drawn(spot(1.0), overlay=True, size=800)
    assert picture.shape[0] == 600
    assert (picture[:, :100] < GREY).all()
    assert drawn(spot(1.0), size=320).shape[1] == 320


@pytest.mark.parametrize("size", [(4001, 2999), (1203, 4096)])
def test_a_map_lies_on_a_reduced_original_where_it_lies_on_the_whole(size: tuple[int, int]) -> None:
    width, height = size
    geometry = GridGeometry.of_pixels((100, 100), Frame(width / 8, 3, width - 7, height / 2))
    content = encode(Image.new("RGB", size, (GREY, GREY, GREY)))
    original, reduced = pictures.decode(content), pictures.decode(content, least=300)
    assert max(reduced.size) < max(size) / 4
    heatmap = Heatmap(random_values(), geometry, "probability", "drop")
    options = DrawingOptions(overlay=True, size=300)
    assert render_png(heatmap, options, "", reduced, size) == render_png(heatmap, options, "", original)


def test_an_overlay_is_the_same_in_however_many_bands_it_is_blended(monkeypatch: pytest.MonkeyPatch) -> None:
    original = random_picture(2, (401, 303))
    heatmap = Heatmap(random_values(), GEOMETRY, "probability", "drop")

    def blended(band_pixels: int) -> bytes:
        monkeypatch.setattr(overlay, "_BAND_PIXELS", band_pixels)
        return render_png(heatmap, DrawingOptions(overlay=True, alpha=0.3), "", original)

    whole = blended(401 * 303)
    assert blended(401 * 50) == whole  # the last band is lower
    assert blended(1) == whole  # line by line


def random_values() -> np.ndarray:
    """Of both signs, and some missing."""
    values = np.random.default_rng(3).normal(size=(100, 100)).astype(np.float32)
    values[:5] = np.nan
    return values


def test_a_class_map_gives_each_class_a_colour_and_names_it() -> None:
    geometry = GridGeometry(WindowGrid.over((100, 100), (50, 50), (50, 50)), (100, 100), GEOMETRY.frame)
    classes = ClassMap(np.array([[3, 3], [3, 9]], dtype=np.int32), {3: "cat", 9: "dog"}, geometry, "class")
    picture = drawn(classes, overlay=True, alpha=1.0)
    assert picture[75, 125].tolist() == picture[75, 275].tolist() == picture[225, 125].tolist()
    assert picture[225, 275].tolist() != picture[75, 125].tolist()
    legend = picture[:, 400:].reshape(-1, 3).tolist()
    assert picture[75, 125].tolist() in legend
    assert picture[225, 275].tolist() in legend


def test_more_classes_than_colours_share_the_last() -> None:
    grid = WindowGrid.over((100, 100), (10, 10), (10, 10))
    classes = np.arange(100, dtype=np.int32).reshape(10, 10)
    many = ClassMap(
        classes, {index: f"c{index}" for index in range(100)}, GridGeometry(grid, (100, 100), GEOMETRY.frame), "class"
    )
    picture = drawn(many, overlay=True, alpha=1.0)[:, 50:350].reshape(-1, 3)
    assert len(np.unique(picture, axis=0)) == 11


@pytest.mark.parametrize("kind", RESULTS)
def test_every_kind_has_a_picture(kind: str) -> None:
    picture = Image.open(io.BytesIO(render_png(RESULTS[kind], DrawingOptions(), "A title")))
    colours = picture.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 10


def test_a_map_of_one_value_is_drawn() -> None:
    assert drawn(spot(0.25, 0.25), overlay=True).shape[0] == 300
    assert np.isfinite(scale_of_numbers(np.full((2, 2), np.nan)).norm.vmax or np.nan)


def test_a_table_lies_on_no_picture() -> None:
    with pytest.raises(ValueError, match="cannot be laid over"):
        render_png(RESULTS["table"], DrawingOptions(overlay=True), "", ORIGINAL)


def test_an_overlay_needs_the_original() -> None:
    with pytest.raises(ValueError, match="no single picture"):
        render_png(spot(1.0), DrawingOptions(overlay=True))


def test_every_colour_map_draws() -> None:
    assert len(COLORMAPS) > 100
    for name in COLORMAPS[::10]:
        assert scale_of_numbers(np.array([[-1.0, 2.0]]), name).rgba(np.array([[0.5]])).shape == (1, 1, 4)


FORMULA = "$x^{$"  # matplotlib would read it as one that is broken off
FORMULAS: list[Result] = [
    Heatmap(np.eye(2, dtype=np.float32), GridGeometry.of_pixels((2, 2), GEOMETRY.frame), FORMULA, FORMULA),
    ClassMap(np.eye(2, dtype=np.int32), {0: FORMULA, 1: "_x"}, GridGeometry.of_pixels((2, 2), GEOMETRY.frame), FORMULA),
    Curves(np.arange(2.0), FORMULA, FORMULA, (Series(FORMULA, np.ones(2), FORMULA),), FORMULA),
    Curves(np.arange(2.0), FORMULA, None, (Series("y", np.ones(2)),), FORMULA, labels=(FORMULA, FORMULA)),
    Matrix(np.ones((1, 2), dtype=np.float32), (FORMULA,), FORMULA, FORMULA, FORMULA),
    Table((Column(FORMULA, "text"),), ((FORMULA,),), FORMULA),
]


@pytest.mark.parametrize("overlay", [False, True])
@pytest.mark.parametrize("result", FORMULAS, ids=lambda result: result.kind)
def test_names_are_drawn_as_they_are_and_never_read_as_formulas(result: Result, overlay: bool) -> None:
    if overlay and not result.on_picture:
        pytest.skip("lies on no picture")
    png = render_png(result, DrawingOptions(overlay=overlay), FORMULA, ORIGINAL)
    assert Image.open(io.BytesIO(png)).width > 64


def test_drawing_leaves_the_callers_matplotlib_as_it_was() -> None:
    before = dict(mpl.rcParams)
    render_png(FORMULAS[0], DrawingOptions(), FORMULA)
    assert dict(mpl.rcParams) == before


ROWS = 100_000
LONG_TABLE = Table((Column("picture", "text"), Column("p", "number")), tuple(("x", 0.5) for _ in range(ROWS)), "long")
MANY_ROWS = Matrix(np.random.default_rng(0).random((256, 40)), tuple(map(str, range(256))), "units", "", "many")


@pytest.mark.parametrize("result", [LONG_TABLE, MANY_ROWS], ids=["table", "matrix"])
@pytest.mark.parametrize("size", [None, 4096])
def test_however_much_there_is_its_picture_stays_within_the_bound(result: Result, size: int | None) -> None:
    """Longer than 65,535 pixels nothing can be drawn, and a picture of many gigabytes could be asked for."""
    picture = Image.open(io.BytesIO(render_png(result, DrawingOptions(size=size), "title")))
    assert picture.width * picture.height <= 1.01 * MAX_PIXELS
    assert min(picture.size) > 64
