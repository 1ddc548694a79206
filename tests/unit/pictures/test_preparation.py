import numpy as np
import pytest
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from occluscope.pictures.preparation import Interpolation, Preparation
from tests.conftest import random_picture


@pytest.mark.parametrize("size", [(600, 400), (400, 601), (256, 256), (301, 300), (1, 1), (50, 333)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("resize", "crop"), [(256, 224), (232, 224), (224, 224), (200, 224)])
def test_prepares_to_the_pixel_as_torchvision_does(
    size: tuple[int, int], interpolation: Interpolation, resize: int, crop: int
) -> None:
    picture = random_picture(3, size)
    expected = reference.resize(picture, [resize], InterpolationMode(interpolation), antialias=True)
    expected = reference.center_crop(expected, [crop, crop])
    prepared = preparation(resize, crop, interpolation).prepare(picture)
    assert np.array_equal(prepared.rgb, np.asarray(expected))


def test_the_frame_is_the_crop_on_the_original() -> None:
    frame = preparation(256, 224, "bilinear").prepare(random_picture(4, (512, 1024))).frame
    assert (frame.left, frame.right) == (2 * 16, 2 * (16 + 224))
    assert (frame.top, frame.bottom) == (2 * 144, 2 * (144 + 224))


def preparation(resize: int, crop: int, interpolation: Interpolation) -> Preparation:
    return Preparation(
        resize=resize, crop=(crop, crop), interpolation=interpolation, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
    )
