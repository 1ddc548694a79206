"""Maps drawn over the original picture, with a colour bar or a legend beside it."""

import textwrap
from typing import Final

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from occluscope.rendering.figures import legend_name, rasterise
from occluscope.rendering.scale import colours_of_classes, scale_of_numbers
from occluscope.results import ClassMap, GridGeometry, Heatmap

_MARGIN_DPI_HEIGHT: Final = 480  # pixels; a margin of this height is drawn at 100 dpi, a higher one at more
_LEAST_MARGIN_HEIGHT: Final = 200  # pixels; below it a colour bar's numbers would overlap
_CAPTION_LETTERS: Final = 40  # characters of a line beside a colour bar
_CAPTION_LINE_INCHES: Final = 0.18
_BAND_PIXELS: Final = 2**19  # pixels that are blended at a time
_UNSEEN_DIMMING: Final = 0.45  # brightness of the part outside the crop


def overlay_heatmap(
    heatmap: Heatmap,
    original: Image.Image,
    full_size: tuple[int, int],
    longer: int,
    alpha: float,
    colormap: str | None,
) -> Image.Image:
    """Draw a heatmap over the original.

    full_size: the original's width and height, also if `picture` is reduced.
    longer: pixels of the drawn picture's longer side. alpha: opacity of the map; if values have both signs, of the most
    extreme ones. The part of the picture outside the model's input is dimmed. Cells without a value are transparent.
    """
    scale = scale_of_numbers(heatmap.values, colormap)
    picture = _blend(original, full_size, longer, heatmap.geometry, scale.overlay_rgba(heatmap.values), alpha)
    caption = textwrap.wrap(heatmap.caption, _CAPTION_LETTERS)
    inches = 0.97 + _CAPTION_LINE_INCHES * len(caption)
    margin = _margin_figure(picture.height, inches_wide=inches)
    axes = margin.add_axes((0.09 / inches, 0.06, 0.18 / inches, 0.88))
    bar = margin.colorbar(ScalarMappable(scale.norm, scale.colormap), cax=axes)
    bar.set_label("\n".join(caption))
    return _beside(picture, margin)


def overlay_class_map(
    class_map: ClassMap,
    original: Image.Image,
    full_size: tuple[int, int],
    longer: int,
    alpha: float,
    colormap: str | None,
) -> Image.Image:
    """Draw a class map over the original, with a legend; otherwise as `overlay_heatmap`."""
    colours = colours_of_classes(class_map, colormap)
    picture = _blend(original, full_size, longer, class_map.geometry, colours.scale.rgba(colours.ranks), alpha)
    longest = max(len(label) for label, _ in colours.legend)
    margin = _margin_figure(picture.height, inches_wide=0.75 + 0.085 * max(longest, len(class_map.caption)))
    handles = [Patch(color=colour, label=legend_name(label)) for label, colour in colours.legend]
    margin.legend(handles=handles, loc="upper left", title=class_map.caption, fontsize="small", frameon=False)
    return _beside(picture, margin)


def _blend(
    original: Image.Image,
    full_size: tuple[int, int],
    longer: int,
    geometry: GridGeometry,
    rgba: np.ndarray,
    alpha: float,
) -> Image.Image:
    """Blend the colours of cells, [rows, columns, 4], over the picture; each pixel gets the colour of its cell."""
    full_width, full_height = full_size
    factor = longer / max(full_size)
    size = (max(round(full_width * factor), 1), max(round(full_height * factor), 1))
    picture = original if size == original.size else original.resize(size, Image.Resampling.LANCZOS)

    frame, (height, width) = geometry.frame, geometry.input_size
    y = _input_coordinate(picture.height, full_height, frame.top, frame.bottom, height)
    x = _input_coordinate(picture.width, full_width, frame.left, frame.right, width)
    edges_y, edges_x = geometry.cell_edges()
    rows, in_rows = _cell_of(y, edges_y)
    columns, in_columns = _cell_of(x, edges_x)

    seen_rows, seen_columns = (y >= 0) & (y < height), (x >= 0) & (x < width)
    whole = Image.new("RGB", picture.size)
    band = max(_BAND_PIXELS // picture.width, 1)
    for top in range(0, picture.height, band):  # by bands: all pixels of a large picture would take gigabytes
        some = slice(top, min(top + band, picture.height))
        pixels = np.asarray(picture.crop((0, some.start, picture.width, some.stop)), dtype=np.float32) / 255
        cells = np.ix_(rows[some], columns)
        opacity = alpha * np.where(np.outer(in_rows[some], in_columns), rgba[..., 3][cells], 0)
        blended = pixels + opacity[..., None] * (rgba[..., :3][cells] - pixels)
        blended[~np.outer(seen_rows[some], seen_columns)] *= _UNSEEN_DIMMING
        whole.paste(Image.fromarray((blended * 255).round().astype(np.uint8)), (0, top))
    return whole


def _input_coordinate(drawn: int, original: int, near: float, far: float, length: int) -> np.ndarray:
    """The position of each drawn pixel's centre along one axis of the model's input, pixels."""
    on_original = (np.arange(drawn) + 0.5) * original / drawn
    return (on_original - near) / (far - near) * length


def _cell_of(places: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the cell at each position, and whether there is a cell."""
    index = np.searchsorted(edges, places, side="right") - 1
    return index.clip(0, len(edges) - 2), (index >= 0) & (index <= len(edges) - 2)


def _margin_figure(picture_height: int, inches_wide: float) -> Figure:
    height = max(picture_height, _LEAST_MARGIN_HEIGHT)
    dpi = 100 * max(height / _MARGIN_DPI_HEIGHT, 1.0)
    return Figure(figsize=(inches_wide, height / dpi), dpi=dpi)


def _beside(picture: Image.Image, margin: Figure) -> Image.Image:
    """The picture on the left, the margin on the right, on white."""
    strip = rasterise(margin)
    whole = Image.new("RGB", (picture.width + strip.width, max(picture.height, strip.height)), "white")
    whole.paste(picture, (0, 0))
    whole.paste(strip, (picture.width, 0))
    return whole
