"""Changed copies of a picture, as the model would see them.

Movements are resampled once, from the picture at its original size, with the filter of the model's preparation: a copy
is neither blurred twice nor aliased, and shows what lies outside the unchanged input. Changes of colour, blur, noise
and JPEG compression are applied to the model's input.
"""

import io
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Final, Literal

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import convolve1d, gaussian_filter
from torchvision.transforms.v2 import functional

from occluscope.analyses.invariance.families import Family, FamilyName
from occluscope.pictures.preparation import Picture, Preparation

Fill = Literal["grey", "edge", "reflect"]
Affine = np.ndarray  # float64 [2, 3]: (x, y, 1) of the input → (x, y) of a picture; (0, 0) is the corner of a pixel
_REACH: Final = 3  # pixels around a region that filters read
_GAP: Final = 3.0  # least pixels of the original for one of the input, after it was made smaller
_FINEST: Final = 2.0  # most pixels of the working picture for one of the input
_CUBIC: Final = -0.5  # Pillow's bicubic filter (Keys 1981)


class Transformations:
    """Copies of one picture. seed: of the noise; the strength only scales the noise."""

    def __init__(self, picture: Picture, preparation: Preparation, fill: Fill, seed: int) -> None:
        self._picture, self._preparation, self._fill, self._seed = picture, preparation, fill, seed
        self._height, self._width = preparation.crop
        frame = picture.frame
        self._scale = np.array([(frame.right - frame.left) / self._width, (frame.bottom - frame.top) / self._height])
        self._corner = np.array([frame.left, frame.top])
        self._colours: dict[str, Callable[[float], np.ndarray]] = {
            "brightness": lambda by: self._torchvision(functional.adjust_brightness, by),
            "contrast": lambda by: self._torchvision(functional.adjust_contrast, by),
            "saturation": lambda by: self._torchvision(functional.adjust_saturation, by),
            "hue": lambda by: self._torchvision(functional.adjust_hue, by / 360),
            "blur": self._blurred,
            "noise": self._noisy,
            "jpeg": self._compressed,
            "flip": self._flipped,
        }

    def copies(self, family: Family, strengths: np.ndarray) -> Iterator[np.ndarray]:
        """One copy for each strength: uint8 [height, width, 3]; at the identity the prepared picture itself."""
        maps = {float(by): self._inverse(family.name, by) for by in strengths if by != family.identity}
        changed: Callable[[float], np.ndarray]
        if family.name in self._colours:
            changed = self._colours[family.name]
        elif not maps:
            changed = lambda _by: self._picture.rgb  # noqa: E731 - nothing but identities was asked for
        elif all(inverse[0, 1] == inverse[1, 0] == 0 for inverse in maps.values()):
            changed = self._upright(maps)
        else:
            changed = self._turned(maps)
        for by in strengths:
            yield self._picture.rgb if by == family.identity else changed(float(by))

    def _inverse(self, name: FamilyName, by: float) -> Affine:
        """The map from a position in the copy to the position in the unchanged input; about the centre."""
        linear, shift = np.eye(2), np.zeros(2)
        match name:
            case "translate_x":
                shift = np.array([-by, 0])
            case "translate_y":
                shift = np.array([0, -by])
            case "scale":
                linear = np.eye(2) / by
            case "rotate":
                cos, sin = np.cos(np.deg2rad(by)), np.sin(np.deg2rad(by))
                linear = np.array([[cos, -sin], [sin, cos]])
            case "shear":
                linear = np.array([[1, -np.tan(np.deg2rad(by))], [0, 1]])
            case _:
                return np.eye(2, 3)
        centre = np.array([self._width, self._height]) / 2
        return np.column_stack([linear, centre - linear @ centre + shift])

    def _upright(self, maps: dict[float, Affine]) -> Callable[[float], np.ndarray]:
        """Copies without rotation or shear: resized by Pillow from a box, as the preparation does it."""
        sources: dict[int, _Filled] = {}

        def changed(by: float) -> np.ndarray:
            near, far = self._on_original(maps[by])
            factor = self._factor(float((far - near)[0] / self._width))
            if factor not in sources:
                sources[factor] = self._filled(factor)
            filled = sources[factor]
            (left, top), (right, bottom) = near / factor, far / factor
            reach = _REACH * max(1, int(np.ceil((right - left) / self._width)))
            x, y = int(np.floor(left)) - reach, int(np.floor(top)) - reach
            region = filled.region(y, int(np.ceil(bottom)) + reach, x, int(np.ceil(right)) + reach)
            box = (left - x, top - y, right - x, bottom - y)
            resized = Image.fromarray(region).resize((self._width, self._height), self._resampling, box=box)
            return np.asarray(resized)

        return changed

    def _turned(self, maps: dict[float, Affine]) -> Callable[[float], np.ndarray]:
        """Copies with rotation or shear.

        The region that the maps reach is filtered once as the preparation would, at the picture's own resolution (or
        at two pixels for one of the input). The copies are then only read from it, so that as the angle goes to 0 they
        become the unchanged picture.
        """
        places = np.array([[x, y, 1] for x in (0, self._width) for y in (0, self._height)])
        seen = np.concatenate([places @ inverse.T for inverse in maps.values()])
        ratio = self._scale.mean()
        factor = self._factor(ratio)
        low, high = (self._original(edge(seen, axis=0)) / factor for edge in (np.min, np.max))
        margin = _REACH * max(1, int(np.ceil(ratio / factor)))
        x, y = (int(edge) for edge in np.floor(low) - margin)
        right, bottom = (int(edge) for edge in np.ceil(high) + margin)
        region = self._filled(factor).region(y, bottom, x, right)
        pixels = self._scale / factor  # pixels of the region for one of the input
        width, zoom, filters = max(float(pixels.mean()), 1.0), np.ones(2), 1  # width: of the preparation's filter
        if width > _FINEST:
            size = np.maximum(np.round(np.array(region.shape[1::-1]) * _FINEST / pixels), 1).astype(int)
            zoom = size / np.array(region.shape[1::-1])
            region = np.asarray(Image.fromarray(region).resize((int(size[0]), int(size[1])), self._resampling))
            width, filters = _FINEST, 2
        working = Image.fromarray(_filtered(region, self._kernel(width, filters)) if width > 1 else region)
        transform = Image.Transform.AFFINE

        def changed(by: float) -> np.ndarray:
            inverse = maps[by]
            linear = (pixels * zoom)[:, None] * inverse[:, :2]
            shift = (self._original(inverse[:, 2]) / factor - np.array([x, y])) * zoom
            data = np.column_stack([linear, shift]).ravel().tolist()
            return np.asarray(working.transform((self._width, self._height), transform, data, self._resampling))

        return changed

    def _on_original(self, inverse: Affine) -> tuple[np.ndarray, np.ndarray]:
        """The box of the original that a map without rotation shows: its near and its far corner, (x, y)."""
        far = inverse @ np.array([self._width, self._height, 1])
        return self._original(inverse[:, 2]), self._original(far)

    def _original(self, place: np.ndarray) -> np.ndarray:
        """From the input to the original picture: (x, y)."""
        return np.asarray(self._corner + place * self._scale)

    @cached_property
    def _whole(self) -> Image.Image:
        """The original; changes of colour alone do not load it."""
        return self._picture.original

    def _factor(self, ratio: float) -> int:
        """By how much the original may be made smaller before it is resampled.

        ratio: pixels of the original for one of the input.
        """
        return min(max(int(ratio / _GAP), 1), *self._whole.size)

    def _filled(self, factor: int) -> "_Filled":
        """The original, made smaller by a whole factor."""
        original = self._whole
        grey = np.round(np.array(self._preparation.mean) * 255).astype(np.uint8)
        return _Filled(np.asarray(original.reduce(factor) if factor > 1 else original), self._fill, grey)

    @property
    def _resampling(self) -> Image.Resampling:
        return Image.Resampling[self._preparation.interpolation.upper()]

    def _kernel(self, width: float, filters: int) -> np.ndarray:
        """The filter that, after `filters` filters of one pixel, gives the preparation's filter of `width` pixels.

        Interpolation at rotated positions is itself a filter, of the preparation's shape and one pixel wide. Variances
        of triangle filters add up, width² / 6 each; a cubic filter is sharper and is taken at full width.
        """
        if self._preparation.interpolation == "bilinear":
            beside = max(width**2 - filters, 0) / 12
            return np.array([beside, 1 - 2 * beside, beside])
        reach = int(2 * width)
        weights = _keys(np.abs(np.arange(-reach, reach + 1)) / width)
        return np.asarray(weights / weights.sum())

    def _torchvision(self, change: Callable[..., torch.Tensor], by: float) -> np.ndarray:
        changed = change(torch.from_numpy(self._picture.rgb).permute(2, 0, 1), by)
        return changed.permute(1, 2, 0).contiguous().numpy()

    def _blurred(self, sigma: float) -> np.ndarray:
        blurred = gaussian_filter(self._picture.rgb.astype(np.float32), (sigma, sigma, 0), mode="nearest")
        return _as_bytes(blurred)

    def _noisy(self, sigma: float) -> np.ndarray:
        noise = np.random.default_rng(self._seed).standard_normal(self._picture.rgb.shape, dtype=np.float32)
        return _as_bytes(self._picture.rgb + sigma * noise)

    def _compressed(self, loss: float) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(self._picture.rgb).save(buffer, "JPEG", quality=max(round(100 - loss), 1))
        return np.asarray(Image.open(buffer))

    def _flipped(self, which: float) -> np.ndarray:
        across, down = (slice(None, None, -1 if int(which) & bit else 1) for bit in (1, 2))
        return np.ascontiguousarray(self._picture.rgb[down, across])


class _Filled:
    """A picture that is continued beyond its borders as `fill` says."""

    def __init__(self, pixels: np.ndarray, fill: Fill, grey: np.ndarray) -> None:
        self._pixels, self._fill, self._grey = pixels, fill, grey

    def region(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """uint8 [bottom − top, right − left, 3]; the borders may lie anywhere."""
        height, width = self._pixels.shape[:2]
        if top >= 0 and left >= 0 and bottom <= height and right <= width:
            return self._pixels[top:bottom, left:right]
        if self._fill != "grey":
            rows, columns = self._places(top, bottom, height), self._places(left, right, width)
            return np.asarray(self._pixels.take(rows, axis=0).take(columns, axis=1))
        region = np.empty((bottom - top, right - left, 3), dtype=np.uint8)
        region[:] = self._grey
        near_y, far_y = np.clip([top, bottom], 0, height)
        near_x, far_x = np.clip([left, right], 0, width)
        region[near_y - top : far_y - top, near_x - left : far_x - left] = self._pixels[near_y:far_y, near_x:far_x]
        return region

    def _places(self, near: int, far: int, length: int) -> np.ndarray:
        """The index of the pixel to read at each position."""
        places = np.arange(near, far)
        if self._fill == "reflect":
            folded = places % (2 * length)
            return np.asarray(np.minimum(folded, 2 * length - 1 - folded))
        return places.clip(0, length - 1)


def _filtered(pixels: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """uint8 [height, width, 3], filtered along both axes."""
    along_y = convolve1d(pixels.astype(np.float32), kernel, axis=0, mode="nearest")
    return _as_bytes(convolve1d(along_y, kernel, axis=1, mode="nearest"))


def _keys(places: np.ndarray) -> np.ndarray:
    """Keys's cubic filter at distances from its centre, 1 a pixel."""
    near = ((_CUBIC + 2) * places - (_CUBIC + 3)) * places**2 + 1
    far = _CUBIC * (((places - 5) * places + 8) * places - 4)
    return np.asarray(np.where(places < 1, near, np.where(places < 2, far, 0)))


def _as_bytes(values: np.ndarray) -> np.ndarray:
    return np.asarray(values.round().clip(0, 255).astype(np.uint8))
