"""Changed copies of a picture, held against the picture itself."""

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from occluscope.analyses.invariance.families import FAMILIES
from occluscope.analyses.invariance.transforms import Transformations
from occluscope.models import card
from occluscope.pictures.preparation import Preparation
from tests.conftest import random_picture

LITE0 = card("efficientnet_lite0")


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
