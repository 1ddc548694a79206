"""Draws any result as a PNG."""

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

MAX_SIDE: Final = 4096  # pixels; a larger overlay is drawn at this size
MAX_PIXELS: Final = MAX_SIDE**2  # width × height; a larger figure is drawn smaller
MAX_SIDE_OF_FIGURE: Final = 2**15  # pixels; matplotlib draws no figure of 2¹⁶ or more
_drawing = threading.Lock()  # matplotlib's text layout is not thread-safe


@dataclass(frozen=True)
class DrawingOptions:
    """How to draw.

    overlay: draw over the original picture. alpha: the map's opacity in an overlay, 0–1.
    colormap: a name in `COLORMAPS`; None chooses by the values.
    size: longer side of the picture in an overlay (None: as the original), or width of a figure; pixels.
    A picture that would have more than `MAX_PIXELS` is drawn smaller.
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

    title: above a figure. original: the upright RGB picture below an overlay.
    full_size: width and height of the picture, if `original` was reduced by `occluscope.pictures.decode`.

    Raises
    ------
    ValueError
        An overlay is requested without the original, or of a kind of result that is not on a picture.
    """
    if isinstance(result, RgbImage) and not options.overlay:
        return _encoded(_scaled(Image.fromarray(result.rgb), options.size))
    with _drawing, mpl.rc_context({"text.parse_math": False, "text.usetex": False}):  # names are not formulas
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
    """The picture with the requested width, if there is one."""
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
