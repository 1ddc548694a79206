"""occlusion: what the units of a split picture keep, and what is made of it again."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from occluscope.analyses.contract import Part
from occluscope.analyses.occlusion.scanning import Scan
from occluscope.preparation import Frame, Picture

Joined = tuple[Scan, float]  # all windows of one size, and the seconds that they took


def of_pictures(pictures: Sequence[Picture]) -> dict[str, np.ndarray]:
    """The prepared picture, and its mask: what the model was shown, and where that lies on the original."""
    arrays: dict[str, np.ndarray] = {}
    for place, picture in enumerate(pictures):
        frame = picture.frame
        arrays[f"rgb {place}"] = picture.rgb
        arrays[f"frame {place}"] = np.array([frame.left, frame.top, frame.right, frame.bottom])
    return arrays


def picture(part: Part, place: int) -> Picture:
    """The picture again, but for what the model was not shown of it."""
    rgb = part.kept[f"rgb {place}"]
    return Picture(rgb, Frame(*part.kept[f"frame {place}"].tolist()), Image.fromarray(rgb))


def of_scan(number: int, scan: Scan, seconds: float) -> dict[str, np.ndarray]:
    """What was found with windows of one size. number: which of the sizes."""
    counts = np.array([scan.windows_run, scan.forward_equivalents, seconds, scan.followed])
    return {f"values {number}": scan.values, f"predicted {number}": scan.predicted, f"counts {number}": counts}


def joined(parts: Sequence[Part], number: int) -> Joined:
    """The shares of one picture, one below the other."""
    values = np.concatenate([part.kept[f"values {number}"] for part in parts])
    predicted = np.concatenate([part.kept[f"predicted {number}"] for part in parts])
    run, equivalents, seconds, followed = np.sum([part.kept[f"counts {number}"] for part in parts], axis=0)
    return Scan(values, predicted, int(run), None, float(equivalents), followed == len(parts)), float(seconds)
