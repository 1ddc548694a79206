"""The one way from a result to a PNG."""

import io
import math
import threading
from dataclasses import dataclass
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from occluscope.rendering.figures import (
    class_map_figure,
    curves_figure,
    heatmap_figure,
    matrix_figure,
    rasterise,
    table_figure,
)
from occluscope.rendering.overlay import overlay_class_map, overlay_heatmap
from occluscope.results import ClassMap, Curves, Heatmap, Matrix, Result, RgbImage, Table

MAX_SIDE: Final = 4096  # pixels; an overlay's picture is drawn smaller beyond this
MAX_PIXELS: Final = MAX_SIDE**2  # width × height; a figure is drawn smaller beyond this
MAX_SIDE_OF_FIGURE: Final = 2**15  # pixels; matplotlib draws none of 2¹⁶ and more
_drawing = threading.Lock()  # matplotlib's text layout is not safe to use from two threads at once


@dataclass(frozen=True)
class DrawingOptions:
    """How to draw.

    overlay: on the original picture instead of alone. alpha: the map's opacity there, 0–1.
    colormap: a name in `COLORMAPS`; none chooses by the values.
    size: longer side of the picture in an overlay (none: the original's own), or width of a figure; pixels.
    Pictures are drawn smaller where they would have more than `MAX_PIXELS`.
    """

    overlay: bool = False
    alpha: float = 0.7
    colormap: str | None = None
    size: int | None = None


def render_png(
    result: Result,
    options: DrawingOptions,
    title: str = "",
    original: Image.Image | None = None,
    full_size: tuple[int, int] | None = None,
) -> bytes:
    """Draw a result.

    title: written over a figure. original: the upright RGB picture that an overlay is laid on.
    full_size: its width and height where `original` is it reduced, as `occluscope.pictures.decode` does.

    Raises
    ------
    ValueError
        An overlay is asked of a kind that lies on no picture, or without the original.
    """
    if isinstance(result, RgbImage) and not options.overlay:
        return _encoded(_scaled(Image.fromarray(result.rgb), options.size))
    with _drawing, mpl.rc_context({"text.parse_math": False, "text.usetex": False}):  # names are no formulas
        if options.overlay:
            picture = _overlay(result, options, original, full_size)
        else:
            picture = rasterise(_figure(result, options, title))
    return _encoded(picture)


def _encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _scaled(picture: Image.Image, width: int | None) -> Image.Image:
    """Of another width, if one is wanted."""
    if width is None:
        return picture
    return picture.resize((width, max(round(picture.height * width / picture.width), 1)), Image.Resampling.LANCZOS)


def _overlay(
    result: Result, options: DrawingOptions, original: Image.Image | None, full_size: tuple[int, int] | None
) -> Image.Image:
    if original is None:
        raise ValueError("this result belongs to no single picture")
    full_size = full_size or original.size
    longer = min(options.size or max(full_size), MAX_SIDE)
    match result:
        case Heatmap():
            return overlay_heatmap(result, original, full_size, longer, options.alpha, options.colormap)
        case ClassMap():
            return overlay_class_map(result, original, full_size, longer, options.alpha, options.colormap)
        case _:
            raise ValueError(f"a {result.kind} cannot be laid over a picture")


def _figure(result: Result, options: DrawingOptions, title: str) -> Figure:
    match result:
        case Heatmap():
            figure = heatmap_figure(result, title, options.colormap)
        case ClassMap():
            figure = class_map_figure(result, title, options.colormap)
        case Curves():
            figure = curves_figure(result, title)
        case Matrix():
            figure = matrix_figure(result, title, options.colormap)
        case Table():
            figure = table_figure(result, title)
        case _:
            raise ValueError(f"nothing here draws a {result.kind}")
    wide, high = figure.get_size_inches()
    wanted = options.size / wide if options.size else figure.get_dpi()
    figure.set_dpi(min(wanted, math.sqrt(MAX_PIXELS / (wide * high)), MAX_SIDE_OF_FIGURE / max(wide, high)))
    return figure
