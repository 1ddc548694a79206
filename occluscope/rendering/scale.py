"""From numbers to colours: the colour map and its range."""

from dataclasses import dataclass
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, ListedColormap, Normalize, to_rgba

from occluscope.results import ClassMap

COLORMAPS: Final = tuple(sorted(name for name in mpl.colormaps if not name.endswith("_r"))) + tuple(
    sorted(name for name in mpl.colormaps if name.endswith("_r"))
)
Rgba = tuple[float, float, float, float]  # red, green, blue, opacity; 0–1
_SEQUENTIAL: Final = "inferno"
_DIVERGING: Final = "RdBu_r"  # red: supports the prediction; blue: speaks against it; white: no effect
_CATEGORICAL: Final = "tab10"
_OTHER_CLASSES: Final = "lightgrey"


@dataclass(frozen=True)
class Scale:
    """Colours of numbers."""

    colormap: Colormap
    norm: Normalize
    diverging: bool = False

    def rgba(self, values: np.ndarray) -> np.ndarray:
        """Colours and opacity: float64 [..., 4] in 0–1; NaN is fully transparent."""
        return np.asarray(self.colormap(self.norm(np.ma.masked_invalid(values))))

    def overlay_rgba(self, values: np.ndarray) -> np.ndarray:
        """As `rgba`, but on a diverging scale values near zero are more transparent.

        Opacity grows with the square root of the absolute value, so that small values stay visible.
        """
        rgba = self.rgba(values)
        if self.diverging:
            distance = np.abs(2 * np.asarray(self.norm(np.nan_to_num(values))) - 1)
            rgba[..., 3] *= np.sqrt(distance)
        return rgba


def scale_of_numbers(values: np.ndarray, colormap: str | None = None) -> Scale:
    """A diverging scale around zero if any value is negative, otherwise a sequential one over the range of the values.

    colormap: a name in `COLORMAPS` to use instead, over the same range.
    """
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    diverging = low < 0
    if diverging:
        reach = max(-low, high)
        low, high, default = -reach, reach, _DIVERGING
    else:
        default = _SEQUENTIAL
    if low == high:
        low, high = low - 0.5, high + 0.5
    return Scale(mpl.colormaps[colormap or default].with_extremes(bad=(0, 0, 0, 0)), Normalize(low, high), diverging)


@dataclass(frozen=True)
class ClassColours:
    """Colours of classes: one for each of the most frequent, and one for all others.

    legend: label and RGBA colour, the most frequent class first.
    """

    scale: Scale
    ranks: np.ndarray  # [rows, columns], each cell's position in the legend
    legend: list[tuple[str, Rgba]]


def colours_of_classes(class_map: ClassMap, colormap: str | None = None) -> ClassColours:
    """One colour for each of the most frequent classes, as many as the colour map has."""
    palette = mpl.colormaps[colormap or _CATEGORICAL]
    order = class_map.by_frequency()
    own = min(len(order), 10)
    colours: list[Rgba] = [palette(place if palette.N <= 20 else place / max(own - 1, 1)) for place in range(own)]
    legend = [(class_map.labels[index], colours[place]) for place, index in enumerate(order[:own])]
    if len(order) > own:
        colours.append(to_rgba(_OTHER_CLASSES))
        legend.append((f"{len(order) - own} others", colours[-1]))
    place_of = {index: min(place, len(colours) - 1) for place, index in enumerate(order)}
    ranks = np.vectorize(place_of.__getitem__)(class_map.classes)
    scale = Scale(ListedColormap(colours), Normalize(0, max(len(colours) - 1, 1)))
    return ClassColours(scale, ranks, legend)
