"""Results as figures with axes, numbers and a title, without the original picture."""

from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.transforms import Bbox
from PIL import Image

from occluscope.rendering.scale import Scale, colours_of_classes, scale_of_numbers
from occluscope.results import ClassMap, Curves, GridGeometry, Heatmap, Matrix, Series, Strip, Table

_WIDTH: Final = 6.4  # inches at `_DPI`
_DPI: Final = 100
_LEVEL_LABELS: Final = 6  # if an axis has more names, they are rotated
MAX_TABLE_ROWS: Final = 200  # rows of a table that are drawn; JSON and CSV have all
_LEGEND_LETTERS: Final = 40  # characters of a name above which a figure of curves is wider
_LETTERS_WIDE: Final = 0.075  # inches of a letter in a legend or a table


def heatmap_figure(heatmap: Heatmap, title: str, colormap: str | None = None) -> Figure:
    """A heatmap on the pixels of the model's input, with a colour bar."""
    figure, axes = _canvas(heatmap.geometry, title)
    scale = scale_of_numbers(heatmap.values, colormap)
    _draw_cells(axes, heatmap.geometry, heatmap.values, scale)
    bar = figure.colorbar(ScalarMappable(scale.norm, scale.colormap), ax=axes, fraction=0.046, pad=0.03)
    bar.set_label(f"{heatmap.caption} [{heatmap.unit}]" if heatmap.unit not in heatmap.caption else heatmap.caption)
    return figure


def class_map_figure(class_map: ClassMap, title: str, colormap: str | None = None) -> Figure:
    """A class map on the pixels of the model's input, with a legend that begins with the most frequent class."""
    colours = colours_of_classes(class_map, colormap)
    longest = max(len(label) for label, _ in colours.legend)
    figure, axes = _canvas(class_map.geometry, title, width=_WIDTH + _LETTERS_WIDE * max(longest - 12, 0))
    _draw_cells(axes, class_map.geometry, colours.ranks, colours.scale)
    handles = [Patch(color=colour, label=legend_name(label)) for label, colour in colours.legend]
    figure.legend(handles=handles, loc="outside right upper", title=class_map.caption, fontsize="small")
    return figure


def curves_figure(curves: Curves, title: str) -> Figure:
    """Curves over their axis with their bands, a panel for each unit."""
    units = list(dict.fromkeys(series.unit for series in curves.series))
    heights = [2.9] * len(units)
    if curves.strip:
        heights.insert(0, _strip_height(curves.strip))
    longest = max((len(series.name) for series in curves.series), default=0)
    size = (_WIDTH + 0.5 + _LETTERS_WIDE * min(longest, _LEGEND_LETTERS), 0.9 + sum(heights))
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(heights), height_ratios=heights))
    if curves.strip:
        _draw_strip(panels[0], curves, curves.strip)
        panels = panels[1:]
    for axes in panels[:-1]:
        axes.sharex(panels[-1])
        axes.tick_params(labelbottom=False)
    for axes, unit in zip(panels, units, strict=True):
        together = [series for series in curves.series if series.unit == unit]
        for number, series in enumerate(together):
            _draw_series(axes, curves, series, 0.16 * (number - (len(together) - 1) / 2))
        axes.set_ylabel(unit or "")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5))  # not over a curve
    if curves.labels:
        panels[-1].set_xticks(curves.axis, curves.labels, rotation=30 if len(curves.labels) > _LEVEL_LABELS else 0)
        panels[-1].set_xlim(-0.6, len(curves.labels) - 0.4)
    panels[-1].set_xlabel(f"{curves.axis_name} [{curves.axis_unit}]" if curves.axis_unit else curves.axis_name)
    figure.suptitle(f"{title}\n{curves.caption}" if title else curves.caption, fontsize="medium")
    return figure


def _draw_series(axes: Axes, curves: Curves, series: Series, beside: float) -> None:
    """A line with its band. If points have names: a mark with a bar each, shifted by `beside` from other series."""
    low, high = series.low, series.high
    if curves.labels:
        bars = None if low is None or high is None else np.abs(np.stack([low, high]) - series.values)
        axes.errorbar(
            curves.axis + beside, series.values, bars, fmt="o", capsize=4, markersize=5, label=legend_name(series.name)
        )
        return
    (line,) = axes.plot(curves.axis, series.values, label=legend_name(series.name), marker=".", markersize=3)
    if low is not None and high is not None:
        axes.fill_between(curves.axis, low, high, color=line.get_color(), alpha=0.2, lw=0)


def legend_name(name: str) -> str:
    """A name for the legend. Matplotlib would leave out names that begin with an underscore, as layers' may."""
    return f" {name}" if name.startswith("_") else name


def _strip_height(strip: Strip) -> float:
    """Height in inches of the pictures side by side over the width of the figure."""
    _, height, width, _ = strip.pictures.shape
    return float(_WIDTH * 0.87 / len(strip.places) * height / width + 0.2)


def _draw_strip(axes: Axes, curves: Curves, strip: Strip) -> None:
    """The pictures side by side, each above its value on the axis."""
    axes.imshow(np.concatenate(list(strip.pictures), axis=1), aspect="equal")
    width = strip.pictures.shape[2]
    unit = {None: "", "°": "°", "×": "×"}.get(curves.axis_unit, f" {curves.axis_unit}")
    names = [curves.labels[int(place)] if curves.labels else f"{place:g}{unit}" for place in strip.places]
    axes.set_xticks((np.arange(len(strip.places)) + 0.5) * width, names, fontsize="small")
    axes.set_yticks([])
    axes.tick_params(length=0)
    for edge in axes.spines.values():
        edge.set_visible(False)


def matrix_figure(matrix: Matrix, title: str, colormap: str | None = None) -> Figure:
    """Numbers as colours, one strip for each row. Rows of different lengths all have the whole width."""
    rows = [values[np.isfinite(values)] for values in matrix.values]
    ragged = len({len(row) for row in rows}) > 1
    figure = Figure(figsize=(_WIDTH * 1.25, 1.5 + 0.45 * len(rows)), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    scale = scale_of_numbers(matrix.values, colormap)
    for place, row in enumerate(rows):
        edges = np.linspace(0, 1 if ragged else len(row), len(row) + 1)
        axes.pcolormesh(edges, [place - 0.47, place + 0.47], row[None], cmap=scale.colormap, norm=scale.norm)
    names = [f"{name} ({len(row):,})" if ragged else name for name, row in zip(matrix.rows, rows, strict=True)]
    axes.set_yticks(np.arange(len(rows)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set_xlabel(f"share of {matrix.columns}" if ragged else matrix.columns)
    figure.colorbar(ScalarMappable(scale.norm, scale.colormap), ax=axes, fraction=0.046, pad=0.02)
    caption = f"{matrix.caption} [{matrix.unit}]" if matrix.unit else matrix.caption
    axes.set_title("\n".join(text for text in (title, caption) if text), fontsize="medium")
    return figure


def table_figure(table: Table, title: str) -> Figure:
    """A table as a picture, with numbers to three significant digits; only the first rows of a long table."""
    header = [column.name for column in table.columns]
    texts = [[_text(cell) for cell in row] for row in table.rows[:MAX_TABLE_ROWS]]
    caption = title or table.caption
    if len(table.rows) > MAX_TABLE_ROWS:
        caption = f"{caption}\nfirst {MAX_TABLE_ROWS:,} of {len(table.rows):,} rows"
    widths = [max(len(row[index]) for row in [header, *texts]) + 3 for index in range(len(header))]
    figure = Figure(
        figsize=(max(_LETTERS_WIDE * 1.2 * sum(widths), 3.2), 0.3 * (len(texts) + 1) + 0.5),
        dpi=_DPI,
        layout="constrained",
    )
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_title(caption, fontsize="medium")
    drawn = axes.table(
        texts,
        colLabels=header,
        colWidths=[width / sum(widths) for width in widths],
        cellLoc="left",
        colLoc="left",
        bbox=Bbox.unit(),
        edges="horizontal",
    )
    drawn.auto_set_font_size(value=False)
    drawn.set_fontsize(9)
    for index in range(len(header)):
        drawn[0, index].get_text().set_fontweight("bold")
    return figure


def rasterise(figure: Figure) -> Image.Image:
    """Draw a figure as an RGB picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return Image.fromarray(np.asarray(pixels)).convert("RGB")


def _canvas(geometry: GridGeometry, title: str, width: float = _WIDTH) -> tuple[Figure, Axes]:
    height, across = geometry.input_size
    figure = Figure(figsize=(width, _WIDTH * 0.84 * height / across), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(0, across), ylim=(height, 0), xlabel="x [px of the model's input]", ylabel="y [px]")
    axes.set_aspect("equal")
    axes.set_title(title)
    return figure, axes


def _draw_cells(axes: Axes, geometry: GridGeometry, values: np.ndarray, scale: Scale) -> None:
    y, x = geometry.cell_edges()
    axes.pcolormesh(x, y, np.ma.masked_invalid(values), cmap=scale.colormap, norm=scale.norm)


def _text(cell: str | float | None) -> str:
    if cell is None:
        return ""
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)
