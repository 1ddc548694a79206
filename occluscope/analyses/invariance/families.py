"""The families of transformations: their strengths, the strength that changes nothing, the augmentation to train with.

Strengths of movements are in pixels of the model's input, those of rotations in degrees. `transforms.py`, which needs
torch, applies them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

FamilyName = Literal[
    "translate_x", "translate_y", "scale", "rotate", "shear", "brightness", "contrast", "saturation", "hue", "blur",
    "noise", "jpeg", "flip",
]  # fmt: skip
FLIPS: Final = ("none", "left–right", "upside down", "both")
_TURN: Final = 360.0  # degrees
Range = tuple[float, float]


@dataclass(frozen=True)
class Family:
    """One family.

    title, unit: what its strength counts. identity: the strength that leaves the picture as it is.
    normal: the range when none is given. limits: of a range. steps: strengths when no number is given.
    geometric: whether pixels move. augmentation: from a range (and the input's height and width) to the call in
    ``torchvision.transforms.v2`` that trains a model against it.
    """

    name: FamilyName
    title: str
    unit: str | None
    identity: float
    normal: Range
    limits: Range
    steps: int
    geometric: bool
    augmentation: Callable[[Range, tuple[int, int]], str]


def strengths(family: Family, reach: Range, steps: int) -> np.ndarray:
    """`steps` evenly spaced strengths from one end of the range to the other, and the identity: float64, ascending."""
    if family.name == "flip":
        return np.arange(len(FLIPS), dtype=float)
    even = np.linspace(*reach, steps)
    even = even[np.abs(even - family.identity) > 1e-9]
    return np.sort(np.append(even, family.identity))


def once_round(family: Family, strengths: np.ndarray) -> int:
    """How many strengths, from the first on, are evenly spaced angles of one full turn; 0 if there is no full turn."""
    steps = np.diff(strengths)
    if family.name != "rotate" or not np.allclose(steps, steps[0]):
        return 0
    points = round(_TURN / steps[0])
    return points if np.isclose(points * steps[0], _TURN) and len(strengths) >= points > 2 else 0


def _number(value: float) -> str:
    return f"{round(value, 4):g}"


def _pair(reach: Range) -> str:
    return f"({_number(reach[0])}, {_number(reach[1])})"


def _shift(axis: int) -> Callable[[Range, tuple[int, int]], str]:
    def code(reach: Range, size: tuple[int, int]) -> str:
        share = [0.0, 0.0]
        share[1 - axis] = min(max(map(abs, reach)) / size[axis], 1.0)
        return f"v2.RandomAffine(degrees=0, translate=({_number(share[0])}, {_number(share[1])}))"

    return code


def _rotation(reach: Range, _size: tuple[int, int]) -> str:
    around = (-180.0, 180.0) if reach[1] - reach[0] >= 300 else reach
    return f"v2.RandomRotation(degrees={_pair(around)}, interpolation=v2.InterpolationMode.BILINEAR)"


def _jitter(name: str) -> Callable[[Range, tuple[int, int]], str]:
    return lambda reach, _size: f"v2.ColorJitter({name}={_pair(reach)})"


FAMILIES: Final[dict[str, Family]] = {
    family.name: family
    for family in (
        Family("translate_x", "shift to the right", "px", 0, (-60, 60), (-2000, 2000), 21, True, _shift(1)),
        Family("translate_y", "shift downwards", "px", 0, (-60, 60), (-2000, 2000), 21, True, _shift(0)),
        Family(
            "scale", "scale", "×", 1, (1, 1.8), (0.1, 10), 17, True,
            lambda reach, _size: f"v2.RandomAffine(degrees=0, scale={_pair(reach)})",
        ),
        Family("rotate", "turn, counter-clockwise", "°", 0, (0, 350), (-360, 360), 36, True, _rotation),
        Family(
            "shear", "shear along x", "°", 0, (-40, 40), (-80, 80), 17, True,
            lambda reach, _size: f"v2.RandomAffine(degrees=0, shear={_pair(reach)})",
        ),
        Family("brightness", "brightness", "×", 1, (0.2, 2), (0, 10), 19, False, _jitter("brightness")),
        Family("contrast", "contrast", "×", 1, (0, 2), (0, 10), 21, False, _jitter("contrast")),
        Family("saturation", "saturation", "×", 1, (0, 2), (0, 10), 21, False, _jitter("saturation")),
        Family(
            "hue", "hue turned", "°", 0, (-180, 180), (-180, 180), 25, False,
            lambda reach, _size: f"v2.ColorJitter(hue={_pair((reach[0] / _TURN, reach[1] / _TURN))})",
        ),
        Family(
            "blur", "standard deviation of the blur", "px", 0, (0, 8), (0, 50), 17, False,
            lambda reach, _size: f"v2.GaussianBlur(kernel_size={2 * int(np.ceil(3 * max(reach[1], 0.4))) + 1}, "
            f"sigma={_pair((max(reach[0], 0.1), max(reach[1], 0.2)))})",
        ),
        Family(
            "noise", "standard deviation of the noise", "grey levels", 0, (0, 100), (0, 255), 21, False,
            lambda reach, _size: "v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), "
            f"v2.RandomApply([v2.GaussianNoise(sigma={_number(max(reach[1], 1) / 255)})])])",
        ),
        Family(
            "jpeg", "100 − JPEG quality", None, 0, (0, 95), (0, 99), 20, False,
            lambda reach, _size: f"v2.JPEG(quality=({max(100 - int(reach[1]), 1)}, {max(100 - int(reach[0]), 1)}))",
        ),
        Family(
            "flip", "flip", None, 0, (0, 3), (0, 3), len(FLIPS), True,
            lambda _reach, _size: "v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])",
        ),
    )
}  # fmt: skip
