"""image: a picture made by an analysis."""

import base64
import io
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from PIL import Image

from occluscope.results.kind import Json, Packed, Result


@dataclass(frozen=True)
class RgbImage(Result):
    """Pixels. rgb: uint8 [height, width, 3]. caption: what it shows, in words."""

    kind: ClassVar[str] = "image"
    formats: ClassVar[tuple[str, ...]] = ("png", "npy", "json")

    rgb: np.ndarray
    caption: str

    def pack(self) -> Packed:
        return Packed({"caption": self.caption}, self.rgb)

    @classmethod
    def unpack(cls, packed: Packed) -> Self:
        assert packed.array is not None  # noqa: S101 - the store keeps both halves in one row
        return cls(packed.array, packed.meta["caption"])

    def to_json(self) -> Json:
        """The pixels as a PNG in base64."""
        height, width = self.rgb.shape[:2]
        return {
            "kind": self.kind,
            "height": height,
            "width": width,
            "caption": self.caption,
            "png": as_base64(self.rgb),
        }

    def to_csv(self) -> str:
        raise TypeError("an image is given as a picture, not as rows")


def as_base64(rgb: np.ndarray) -> str:
    """Pixels, uint8 [height, width, 3], as a PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def from_base64(png: str) -> np.ndarray:
    """Rebuild pixels from `as_base64`."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
