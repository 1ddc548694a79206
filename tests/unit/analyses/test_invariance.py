"""Invariance: transformations held against the picture itself, measures against definitions and peers, whole runs."""

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from occluscope import analyses
from occluscope.analyses.contract import ImageRef, Outcome, Part
from occluscope.analyses.invariance.families import FAMILIES, once_round
from occluscope.analyses.invariance.measures import (
    area,
    local_firing,
    normalised_variance,
    rotational_symmetry,
    tolerance,
)
from occluscope.analyses.invariance.transforms import Transformations
from occluscope.analyses.layer_choice import layer_names
from occluscope.errors import InvalidInputError
from occluscope.models import ModelCard, card
from occluscope.models.card import Layer
from occluscope.models.loading import LoadedModel
from occluscope.preparation import Preparation
from occluscope.results import Curves, Matrix, Table
from tests.conftest import random_picture

SPEC = analyses.spec("invariance")
LITE0 = card("efficientnet_lite0")
CPU = torch.device("cpu")


# --- the transformations ---


def preparation(size: int, resize: int | None = None, interpolation: str = "bilinear") -> Preparation:
    update = {"crop": (size, size), "resize": resize or size, "interpolation": interpolation}
    return LITE0.preparation.model_copy(update=update)


def copy_of(picture: Image.Image, prepared: Preparation, family: str, by: float, fill: Any = "grey") -> np.ndarray:
    transformations = Transformations(prepared.prepare(picture), prepared, fill, seed=0)
    (copy,) = transformations.copies(FAMILIES[family], np.array([by]))
    assert copy.dtype == np.uint8
    assert copy.shape == (*prepared.crop, 3)
    return copy


def far(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference, grey levels."""
    return float(np.abs(one.astype(float) - other).mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_identity_is_the_prepared_picture(family: str, photographs: dict[str, Image.Image]) -> None:
    prepared = LITE0.preparation
    copy = copy_of(photographs["chelsea"], prepared, family, FAMILIES[family].identity)
    assert np.array_equal(copy, prepared.prepare(photographs["chelsea"]).rgb)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("flip", "jpeg")])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_smallest_change_changes_next_to_nothing(
    family: str, interpolation: str, photographs: dict[str, Image.Image]
) -> None:
    """Nothing but the transformation itself: no jump from another resampling."""
    prepared = preparation(224, 256, interpolation)
    for name in ("chelsea", "coffee", "rocket"):
        copy = copy_of(photographs[name], prepared, family, FAMILIES[family].identity + 1e-4)
        assert far(copy, prepared.prepare(photographs[name]).rgb) < 1.0


@pytest.mark.parametrize("scale", [0.7, 1, 3, 9])
def test_no_resolution_of_the_original_makes_a_jump(scale: float, photographs: dict[str, Image.Image]) -> None:
    picture = photographs["coffee"]
    resized = picture.resize((int(picture.width * scale), int(picture.height * scale)), Image.Resampling.LANCZOS)
    unchanged = preparation(224, 256).prepare(resized).rgb
    for family, by in (("rotate", 1e-3), ("shear", 1e-3), ("scale", 1 + 1e-5), ("translate_x", 1e-3)):
        assert far(copy_of(resized, preparation(224, 256), family, by), unchanged) < 1.0


def test_movements_go_where_they_say() -> None:
    """A white dot right of and above the centre, on black."""
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    pixels[14:18, 46:50] = 255  # its centre is 16 right of and 16 above the middle
    picture = Image.fromarray(pixels)

    def centre(family: str, by: float) -> tuple[float, float]:
        weight = copy_of(picture, preparation(64), family, by, "edge")[..., 0].astype(float)
        y, x = np.mgrid[0:64, 0:64] + 0.5
        return float((x * weight).sum() / weight.sum() - 32), float(32 - (y * weight).sum() / weight.sum())

    assert centre("translate_x", 5) == pytest.approx((21, 16), abs=0.1)
    assert centre("translate_y", 5) == pytest.approx((16, 11), abs=0.1)
    assert centre("scale", 1.5) == pytest.approx((24, 24), abs=0.2)
    assert centre("rotate", 90) == pytest.approx((-16, 16), abs=0.1)
    assert centre("rotate", -45) == pytest.approx((16 * 2**0.5, 0), abs=0.2)
    assert centre("shear", 45)[1] == pytest.approx(16, abs=0.2)
    assert centre("flip", 1) == pytest.approx((-16, 16))
    assert centre("flip", 2) == pytest.approx((16, -16))
    assert centre("flip", 3) == pytest.approx((-16, -16))


def test_shifts_bring_in_what_lies_beyond_the_models_view() -> None:
    picture = random_picture(3, (96, 80))
    prepared = preparation(48, 80)
    whole = np.asarray(picture)
    copy = copy_of(picture, prepared, "translate_x", -10)
    assert np.array_equal(copy, whole[16:64, 34:82])
    copy = copy_of(picture, prepared, "translate_y", 6)
    assert np.array_equal(copy, whole[10:58, 24:72])


@pytest.mark.parametrize(
    ("fill", "column"),
    [("grey", np.full((48, 3), 127)), ("edge", 47), ("reflect", 45)],
)
def test_beyond_the_picture_comes_the_fill(fill: str, column: Any) -> None:
    picture = random_picture(4, (48, 48))
    whole = np.asarray(picture)
    copy = copy_of(picture, preparation(48), "translate_x", -8, fill)
    expected = whole[:, column] if isinstance(column, int) else column
    assert np.array_equal(copy[:, :40], whole[:, 8:])
    assert np.array_equal(copy[:, 42], expected)


def test_a_far_shift_shows_fill_alone() -> None:
    for family, fill in itertools.product(("translate_x", "translate_y"), ("grey", "edge", "reflect")):
        copy = copy_of(random_picture(4, (48, 48)), preparation(48), family, 500, fill)
        assert fill != "grey" or (copy == 127).all()


def test_scaling_up_takes_the_originals_own_pixels() -> None:
    """No blur: at the scale at which they lie pixel on pixel the copy is the original."""
    picture = random_picture(5, (256, 256))
    copy = copy_of(picture, preparation(64, 128), "scale", 2)
    assert np.array_equal(copy, np.asarray(picture)[96:160, 96:160])


@pytest.mark.parametrize("family", ["scale", "rotate", "shear", "translate_x"])
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (4000, 3000)])
def test_no_picture_takes_more_memory_than_it_is_worth(family: str, size: tuple[int, int]) -> None:
    """A tenth of its size, far away, on its side: what is worked on follows the input's size, not the picture's."""
    picture = Image.new("RGB", size, (200, 10, 10))
    low, high = FAMILIES[family].limits
    prepared = preparation(64, 72)
    transformations = Transformations(prepared.prepare(picture), prepared, "grey", seed=0)
    tracemalloc.start()
    copies = list(transformations.copies(FAMILIES[family], np.array([low, high])))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [copy.shape for copy in copies] == [(64, 64, 3)] * 2
    assert most < 3 * size[0] * size[1] + 50 * 2**20


def test_turning_by_a_quarter_is_exact(photographs: dict[str, Image.Image]) -> None:
    square = photographs["chelsea"].crop((50, 0, 350, 300))
    prepared = preparation(224, 224)
    for quarters in (1, 2, 3):
        copy = copy_of(square, prepared, "rotate", 90 * quarters)
        assert far(copy, np.rot90(prepared.prepare(square).rgb, quarters)) < 1.0


def test_turning_does_not_blur(photographs: dict[str, Image.Image]) -> None:
    """Of fine texture as much is left as the preparation leaves, at any angle."""

    def sharpness(rgb: np.ndarray) -> float:
        grey = rgb.mean(axis=2)[64:160, 64:160]
        return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())

    prepared = preparation(224, 256)
    for name in ("chelsea", "coffee"):
        for larger in (1, 2):
            picture = photographs[name].resize((photographs[name].width * larger, photographs[name].height * larger))
            unchanged = sharpness(prepared.prepare(picture).rgb)
            for angle in (10, 20, 45):
                turned = sharpness(copy_of(picture, prepared, "rotate", angle))
                assert turned > 0.85 * unchanged


def test_turning_does_not_alias() -> None:
    """A chequerboard of single pixels, far finer than the input: grey, at any angle, as the preparation has it."""
    fine = np.indices((1024, 1024)).sum(axis=0) % 2 * 255
    picture = Image.fromarray(np.repeat(fine[..., None], 3, axis=2).astype(np.uint8))
    for angle in (1, 30, 45):
        copy = copy_of(picture, preparation(128, 128), "rotate", angle, "reflect")
        assert np.abs(copy[8:-8, 8:-8].astype(float) - 127.5).max() < 12


def test_colours_are_torchvisions(photographs: dict[str, Image.Image]) -> None:
    prepared = LITE0.preparation
    rgb = torch.from_numpy(prepared.prepare(photographs["coffee"]).rgb).permute(2, 0, 1)
    for family, expected in (
        ("brightness", v2.functional.adjust_brightness(rgb, 0.5)),
        ("contrast", v2.functional.adjust_contrast(rgb, 0.5)),
        ("saturation", v2.functional.adjust_saturation(rgb, 0.5)),
        ("hue", v2.functional.adjust_hue(rgb, 0.5 / 360)),
    ):
        copy = copy_of(photographs["coffee"], prepared, family, 0.5)
        assert np.array_equal(copy, expected.permute(1, 2, 0).numpy())


def test_noise_is_one_pattern_that_grows(photographs: dict[str, Image.Image]) -> None:
    grey = Image.new("RGB", (300, 300), (128, 128, 128))
    weak, strong = (copy_of(grey, LITE0.preparation, "noise", by).astype(float) - 128 for by in (10, 20))
    assert weak.std() == pytest.approx(10, rel=0.02)
    assert np.abs(strong - 2 * weak).max() <= 2
    jpeg = copy_of(photographs["coffee"], LITE0.preparation, "jpeg", 90)
    assert far(jpeg, LITE0.preparation.prepare(photographs["coffee"]).rgb) > 3


# --- the measures ---


def test_tolerance_ends_with_the_unbroken_run() -> None:
    strengths = np.array([-3.0, -2, -1, 0, 1, 2, 3])
    assert tolerance(strengths, np.array([0.9, 0.1, 0.8, 0.8, 0.5, 0.4, 0.39]), 3) == (-1, 2)
    assert tolerance(strengths[3:], np.array([0.8, 0.1, 0.8, 0.8]), 0) == (None, 0)
    assert tolerance(strengths, np.full(7, 0.2), 3) == (-3, 3)


def test_area_is_the_mean_height() -> None:
    assert area(np.array([0.0, 1, 3]), np.array([1.0, 0, 0])) == pytest.approx(0.5 / 3)
    assert area(np.linspace(-5, 5, 11), np.full(11, 0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize("order", range(1, 9))
def test_the_order_of_a_curve_is_that_of_its_slowest_harmonic(order: int) -> None:
    angles = np.deg2rad(np.arange(0, 360, 10))
    curve = 0.3 + 0.1 * np.cos(order * angles) + 0.05 * np.cos(2 * order * angles + 0.3)
    found = rotational_symmetry(curve + np.random.default_rng(order).normal(size=36) * 0.005)
    assert found.order == order
    assert order == 1 or found.strength > 0.95


def test_no_order_is_found_where_there_is_none() -> None:
    assert rotational_symmetry(np.full(36, 0.4)).order == 1
    orders = [rotational_symmetry(np.random.default_rng(seed).random(36)).order for seed in range(200)]
    assert np.mean(np.array(orders) == 1) > 0.97


def test_once_round_is_a_full_turn() -> None:
    rotate = FAMILIES["rotate"]
    assert once_round(rotate, np.arange(0.0, 360, 10)) == 36
    assert once_round(rotate, np.linspace(-180, 180, 25)) == 24
    assert once_round(rotate, np.linspace(-90, 90, 25)) == 0
    assert once_round(FAMILIES["hue"], np.linspace(-180, 180, 25)) == 0


def test_normalised_variance_is_that_of_tmeasures() -> None:
    """Its 1.2.11 gave these numbers for the same activations: ``pytorch.layer_measures.Variance`` of both orders."""
    activations = np.random.default_rng(0).normal(size=(5, 7, 3)) * np.linspace(0.1, 3, 7)[:, None]
    theirs = [1.1851777232530916, 1.347332550998756, 1.20798834129417]
    np.testing.assert_allclose(normalised_variance(activations), theirs, rtol=1e-9)


def test_a_unit_that_never_varies_has_no_normalised_variance() -> None:
    activations = np.random.default_rng(0).normal(size=(3, 4, 2))
    activations[..., 1] = 5.0
    assert np.isnan(normalised_variance(activations)).tolist() == [False, True]


def test_firing_by_hand() -> None:
    """Three pictures, four strengths; the unit fires on the third above 5.5, or (negative) on the first below 1.5."""
    unit = np.array([[1.0, 9, 9, 9], [2, 2, 2, 2], [9, 9, 6, 5]])[..., None]
    assert local_firing(unit, 0).tolist() == [0.75]
    assert np.isnan(local_firing(np.ones((3, 4, 1)), 0)).all()


# --- whole runs ---


def run(model: LoadedModel, pictures: list[Image.Image], **params: Any) -> tuple[Outcome, list[Outcome]]:
    parsed = SPEC.parse(params)
    units = SPEC.plan(parsed, model.card, [ImageRef(str(n), *picture.size) for n, picture in enumerate(pictures)], {})
    outcomes = []
    for unit, picture in zip(units, pictures, strict=True):
        reports: list[int] = []
        outcomes.append(
            analyses.compute("invariance")(
                model,
                [model.card.preparation.prepare(picture)],
                parsed,
                unit,
                lambda done, _preview=None, reports=reports: reports.append(done),
            )
        )
        assert reports == sorted(reports)
        assert reports[-1] == unit.steps
    parts = [Part(unit, outcome.kept) for unit, outcome in zip(units, outcomes, strict=True)]
    return analyses.combine("invariance")(model.card, parsed, parts, lambda _done, _preview=None: None), outcomes


def curves(outcome: Outcome, name: str, variant: str) -> Curves:
    found = next(one.result for one in outcome.results if (one.name, one.variant) == (name, variant))
    assert isinstance(found, Curves)
    return found


def metric(outcome: Outcome, name: str, variant: str) -> float:
    return next(one.value for one in outcome.metrics if (one.name, one.variant) == (name, variant))


def rows(outcome: Outcome, name: str) -> list[dict[str, Any]]:
    table = next(one.result for one in outcome.results if one.name == name)
    assert isinstance(table, Table)
    return [dict(zip((column.name for column in table.columns), row, strict=True)) for row in table.rows]


def small(module: nn.Module, size: int, layers: dict[str, tuple[int, ...]]) -> LoadedModel:
    """A model of one's own on pictures of `size`, which it sees pixel for pixel, in 0–1."""
    update = {"crop": (size, size), "resize": size, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    own = tuple(Layer(name=name, type="Conv2d", shape=shape) for name, shape in layers.items())
    made: ModelCard = LITE0.model_copy(
        update={"preparation": LITE0.preparation.model_copy(update=update), "layers": own}
    )
    return LoadedModel(made, module.eval(), CPU)


class Pooled(nn.Module):
    """1 × 1 convolution, ReLU, global average pooling, two classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pool, self.head = nn.Conv2d(3, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.conv(x).relu()).flatten(1))
        return logits


def test_global_average_pooling_does_not_notice_flips() -> None:
    model = small(Pooled(), 32, {"conv": (6, 32, 32), "pool": (6, 1, 1)})
    together, (outcome,) = run(model, [random_picture(1, (32, 32))], families="flip", layers=["conv", "pool"])
    found = curves(outcome, "curves", "flip")
    assert found.labels == ("none", "left–right", "upside down", "both")
    by_name = {series.name: series.values for series in found.series}
    np.testing.assert_allclose(by_name["pool (Euclidean)"], 0, atol=1e-5)
    np.testing.assert_allclose(found.series[0].values, found.series[0].values[0], atol=1e-6)
    assert (by_name["conv (Euclidean)"][1:] > 0.1).all()
    (row,) = rows(together, "augmentations")
    assert row["kept"] == pytest.approx(1)


class Circular(nn.Module):
    """Two convolutions with circular padding, of stride 1 and 2; keeps what the second gives."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")
        self.second = nn.Conv2d(4, 5, 3, stride=2, padding=1, padding_mode="circular")
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        maps = self.second(self.first(x).relu())
        self.seen += list(maps)
        logits: Tensor = maps.mean((2, 3))
        return logits


def test_a_shift_by_whole_strides_shifts_the_features_exactly() -> None:
    """The picture repeats itself all round, so a shift of what is seen is a turn of the input."""
    tile = np.asarray(random_picture(2, (16, 16)))
    module = Circular()
    model = small(module, 16, {"second": (5, 8, 8)})
    model = LoadedModel(model.card.model_copy(update={"preparation": preparation(16, 80).model_copy(
        update={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)})}), module, CPU)  # fmt: skip
    picture = Image.fromarray(np.tile(tile, (5, 5, 1)))
    chosen = {"family": "translate_x", "range": [-8, 8], "steps": 9}
    _, (outcome,) = run(model, [picture], families=[chosen], layers=["second"])
    unchanged, *shifted = module.seen[:9]
    strengths = [by for by in range(-8, 9, 2) if by]
    for by, maps in zip(strengths, shifted, strict=True):
        torch.testing.assert_close(maps, unchanged.roll(by // 2, dims=2), atol=1e-5, rtol=0)
    found = curves(outcome, "curves", "translate_x")
    np.testing.assert_allclose(found.series[0].values, found.series[0].values[0], atol=1e-6)
    assert metric(outcome, "tolerance_below", "translate_x") == -8


def test_curves_on_a_real_picture_are_the_models_own_answers(
    lite0: LoadedModel, photographs: dict[str, Image.Image]
) -> None:
    picture = photographs["coffee"]
    families = [
        {"family": "translate_y", "range": [-60, 60], "steps": 5},
        {"family": "brightness", "range": [0.2, 2], "steps": 4},
    ]
    together, (outcome,) = run(lite0, [picture], families=families, layers=["first", "last", "_fc"])
    prepared = lite0.card.preparation.prepare(picture)
    with torch.inference_mode():
        base = lite0.module(lite0.tensor(prepared.rgb)[None]).double().softmax(1)[0]
    assert metric(outcome, "base_probability", "") == pytest.approx(float(base.max()), abs=1e-6)
    found = curves(outcome, "curves", "brightness")
    assert found.axis.tolist() == pytest.approx([0.2, 0.8, 1, 1.4, 2])
    assert found.strip is not None
    assert found.strip.pictures.shape == (5, 72, 72, 3)
    darker = torch.from_numpy(prepared.rgb).permute(2, 0, 1)
    darker_rgb = v2.functional.adjust_brightness(darker, 0.2).permute(1, 2, 0).numpy()
    features: dict[str, Tensor] = {}
    handle = lite0.module.get_submodule("_fc").register_forward_hook(
        lambda _module, _given, output: features.update(fc=output)
    )
    with handle, torch.inference_mode():
        lite0.module(lite0.tensor(prepared.rgb)[None])
        unchanged = features["fc"].double()
        probability = lite0.module(lite0.tensor(darker_rgb)[None]).double().softmax(1)[0, int(base.argmax())]
    by_name = {series.name: series.values for series in found.series}
    assert found.series[0].name == "p(espresso)"
    assert found.series[0].values[0] == pytest.approx(float(probability), abs=1e-5)
    assert found.series[0].values[2] == float(base.max())
    assert by_name["_fc (Euclidean)"][0] == pytest.approx(float((features["fc"].double() - unchanged).norm()), rel=1e-4)
    cosine = 1 - torch.cosine_similarity(features["fc"].double(), unchanged).item()
    assert by_name["_fc (cosine)"][0] == pytest.approx(cosine, abs=1e-5)
    assert all(values[2] == 0 for name, values in by_name.items() if "p(" not in name)
    assert 0 < metric(outcome, "single_pixel_change", "translate_y") < 0.1
    assert {one.name for one in together.results} == {"augmentations", "layers"}
    assert all(row["invariance_score"] is None for row in rows(together, "layers"))


def symmetrical(picture: Image.Image, turns: tuple[int, ...]) -> Image.Image:
    """The middle of a picture, brought together with its turned selves, inside a circle."""
    side = min(picture.size)
    pixels = np.asarray(picture.crop((0, 0, side, side)).resize((300, 300)), dtype=float)
    mean = np.mean([np.rot90(pixels, turn) for turn in turns], axis=0)
    y, x = np.mgrid[0:300, 0:300] - 149.5
    mean[np.hypot(x, y) > 150] = 127
    return Image.fromarray(mean.round().astype(np.uint8))


@pytest.mark.parametrize(("turns", "order"), [((0, 1, 2, 3), 4), ((0, 2), 2), ((0,), 1)])
def test_a_symmetrical_picture_has_the_order_of_its_symmetry(
    lite0: LoadedModel, photographs: dict[str, Image.Image], turns: tuple[int, ...], order: int
) -> None:
    picture = symmetrical(photographs["coffee"], turns)
    chosen = {"family": "rotate", "range": [0, 345], "steps": 24}
    _, (outcome,) = run(lite0, [picture], families=[chosen], layers=["last"])
    last = layer_names(("last",), lite0.card)[0]
    assert metric(outcome, "symmetry_order", "rotate") == order
    assert metric(outcome, "symmetry_order", f"rotate · {last}") == order
    if order > 1:
        assert metric(outcome, "symmetry_strength", "rotate") > 0.9


def test_several_pictures_are_brought_together(lite0: LoadedModel, photographs: dict[str, Image.Image]) -> None:
    pictures = [photographs[name] for name in ("coffee", "chelsea", "rocket")]
    families = [{"family": "rotate", "range": [0, 270], "steps": 4}, {"family": "blur", "steps": 3}]
    params = {"families": families, "layers": ["first", "last"]}
    together, outcomes = run(lite0, pictures, **params)
    mean = curves(together, "mean_curves", "rotate")
    single = np.stack([curves(outcome, "curves", "rotate").series[0].values for outcome in outcomes])
    np.testing.assert_allclose(mean.series[0].values, single.mean(axis=0))
    assert mean.series[0].high is not None
    np.testing.assert_allclose(mean.series[0].high, (single.mean(axis=0) + single.std(axis=0)).clip(max=1))
    other, _ = run(lite0, pictures[::-1], **params)
    assert rows(together, "augmentations") == [
        pytest.approx(row) if not isinstance(row, dict) else {k: pytest.approx(v) if isinstance(v, float) else v
                                                              for k, v in row.items()}
        for row in rows(other, "augmentations")
    ]  # fmt: skip
    layers = rows(together, "layers")
    assert len(layers) == 2 * 2
    scores = {(row["family"], row["layer"]): row["invariance_score"] for row in layers}
    assert all(score < 1 for score in scores.values())
    variance = next(one.result for one in together.results if one.name == "unit_variance" and one.variant == "rotate")
    assert isinstance(variance, Matrix)
    assert variance.values.shape == (2, 1280)
    assert np.isfinite(variance.values[0]).sum() <= 32
    known = variance.values[1][np.isfinite(variance.values[1])]
    assert (np.diff(known) >= 0).all()
    weakest = rows(together, "augmentations")
    assert weakest[0]["kept"] <= weakest[1]["kept"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_augmentation_that_is_called_for_runs(family: str, photographs: dict[str, Image.Image]) -> None:
    chosen = SPEC.parse({"families": [family]}).families[0]  # type: ignore[attr-defined]
    code = chosen.about.augmentation(chosen.reach, (224, 224))
    transform = eval(code, {"v2": v2, "torch": torch})  # noqa: S307 - the code is what is tested
    picture = photographs["coffee"].resize((224, 224))
    torch.manual_seed(1)
    changed = transform(picture if family != "jpeg" else v2.functional.pil_to_tensor(picture))
    assert tuple(v2.functional.get_size(changed)) == (224, 224)


@pytest.mark.parametrize(
    ("params", "path", "message"),
    [
        ({"families": ["spin"]}, "params.families.0.family", "Input should be"),
        ({"families": []}, "params.families", "at least 1"),
        ({"families": ["rotate", "rotate"]}, "params.families", "rotate is there twice"),
        ({"families": [{"family": "rotate", "range": [5, 90]}]}, "params.families.0", "must hold 0"),
        ({"families": [{"family": "scale", "range": [0, 2]}]}, "params.families.0", "within 0.1"),
        ({"families": [{"family": "scale", "range": [2, 1]}]}, "params.families.0", "from low to high"),
        ({"families": [{"family": "blur", "steps": 1}]}, "params.families.0.steps", "greater than or equal to 2"),
        ({"families": [{"family": "blur", "steps": 10**6}]}, "params.families.0.steps", "less than or equal to 361"),
        ({"families": [{"family": "blur", "range": [0, "NaN"]}]}, "params.families.0.range.1", "number"),
        ({"families": [{"family": "flip", "steps": 3}]}, "params.families.0", "no steps"),
        ({"families": 7}, "params.families.0", "valid dictionary"),
        ({"layers": ["_blocks.99"]}, "params.layers", "no layer '_blocks.99'"),
        ({"target": "unicorn"}, "params.target", "no label"),
        ({"target": 1000}, "params.target", "classes 0 to 999"),
        ({"fill": "purple"}, "params.fill", "Input should be"),
    ],
)
def test_bad_input_names_its_field(params: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        SPEC.plan(SPEC.parse(params), LITE0, [ImageRef("a", 300, 300)], {})
    assert [error.path for error in caught.value.errors] == [path]
    assert message in caught.value.errors[0].message


def test_models_without_maps_are_asked_as_well() -> None:
    """Swin gives its channels last, ViT tokens: depth counts those."""
    for name, last in (("swin_t", "permute"), ("vit_b_16", "encoder")):
        (unit,) = SPEC.plan(SPEC.parse({}), card(name), [ImageRef("a", 300, 300)], {})
        assert unit.steps > 100
        assert layer_names((0.0, 0.5, 1.0), card(name))[-1].startswith(last)
        assert len(layer_names((0.0, 0.5, 1.0), card(name))) == 3


def test_tokens_are_places_of_units() -> None:
    """Of a transformer the units are the features of a token."""
    from torchvision.models import VisionTransformer

    vit = VisionTransformer(32, 8, 2, 2, 12, 24, num_classes=1000)
    torch.manual_seed(0)
    nn.init.normal_(vit.heads.head.weight)
    model = small(vit, 32, {"encoder.layers.encoder_layer_0": (17, 12), "encoder.layers.encoder_layer_1": (17, 12)})
    pictures = [random_picture(seed, (32, 32)) for seed in (1, 2)]
    together, _ = run(model, pictures, families=["brightness"], layers=["first", "last"])
    found = next(one.result for one in together.results if one.name == "unit_variance")
    assert isinstance(found, Matrix)
    assert found.values.shape == (2, 12)
