"""From a picture to a model's input: resize and crop, and the position of the input on the original."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict

Interpolation = Literal["bilinear", "bicubic"]
_RESAMPLING: Final = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True)
class Frame:
    """The rectangle of the original picture that the model's input shows.

    left, top, right, bottom: pixels of the original, with fractions, since the input is resampled.
    The frame reaches outside the picture if the crop is larger than the resized picture, which is then padded.
    """

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Picture:
    """A prepared picture.

    rgb: uint8 [height, width, 3], the model's input before normalisation.
    frame: the input's rectangle on the original.
    load: returns the original; a picture from a `PictureSource` is decoded again for it.
    """

    rgb: np.ndarray
    frame: Frame
    load: Callable[[], Image.Image]

    @property
    def original(self) -> Image.Image:
        """The whole picture at its own size, upright RGB. It is loaded at each access: keep it while you use it."""
        return self.load()


class Preparation(BaseModel):
    """How pictures are prepared for a model: shorter side to `resize`, centre `crop`, then (rgb/255 − mean)/std.

    resize: pixels; crop: (height, width), pixels; mean, std: per channel R, G, B of rgb/255.
    The same steps, to the pixel, as torchvision's ``Resize`` and ``CenterCrop`` on a PIL image.
    """

    model_config = ConfigDict(frozen=True)

    resize: int
    crop: tuple[int, int]
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def prepare(self, picture: Image.Image) -> Picture:
        """Resize and crop an upright RGB picture."""
        resized = picture.resize(self._resized(*picture.size), _RESAMPLING[self.interpolation])
        top, left = self._corner(*resized.size)
        height, width = self.crop
        cropped = resized.crop((left, top, left + width, top + height))
        return Picture(np.array(cropped), self.frame(*picture.size), lambda: picture)

    def frame(self, width: int, height: int) -> Frame:
        """The part of an upright picture of this size that the input shows."""
        resized_width, resized_height = self._resized(width, height)
        top, left = self._corner(resized_width, resized_height)
        crop_height, crop_width = self.crop
        x_scale, y_scale = width / resized_width, height / resized_height
        return Frame(left * x_scale, top * y_scale, (left + crop_width) * x_scale, (top + crop_height) * y_scale)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height with the shorter side at `resize`."""
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize

    def _corner(self, width: int, height: int) -> tuple[int, int]:
        """Top and left of the crop from a resized picture."""
        return _centred(height, self.crop[0]), _centred(width, self.crop[1])


def _centred(length: int, crop: int) -> int:
    """First pixel of a centred crop, rounded as torchvision's ``center_crop`` does; negative if padding is needed."""
    if crop > length:
        return -((crop - length) // 2)
    return round((length - crop) / 2.0)
