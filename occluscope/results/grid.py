"""The geometry of a map: where its cells lie on the model's input and on the original picture."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from occluscope.pictures.preparation import Frame
from occluscope.windows import Size, WindowGrid


@dataclass(frozen=True)
class GridGeometry:
    """The windows of a map's cells, the size of the model's input, and the input's rectangle on the original.

    grid: the windows; a map of single pixels has windows of 1 × 1.
    input_size: (height, width) of the model's input, pixels.
    frame: the input's rectangle on the original picture.
    """

    grid: WindowGrid
    input_size: Size
    frame: Frame

    @classmethod
    def of_pixels(cls, input_size: Size, frame: Frame) -> Self:
        """A geometry with one cell for each pixel of the input."""
        return cls(WindowGrid.over(input_size, (1, 1), (1, 1)), input_size, frame)

    def cell_edges(self) -> tuple[np.ndarray, np.ndarray]:
        """Borders of the cells along y and x, pixels of the input: float64 [rows + 1], [columns + 1].

        A cell reaches halfway to its neighbours' window centres; the outermost reach as far outwards as
        inwards, and a single row or column is as large as its window.
        """
        height, width = self.grid.window
        return _edges(self.grid.origins_y, height), _edges(self.grid.origins_x, width)

    def to_json(self) -> dict[str, Any]:
        """The geometry as JSON: window, origins, input size, frame."""
        return {
            "window": list(self.grid.window),
            "origins_y": list(self.grid.origins_y),
            "origins_x": list(self.grid.origins_x),
            "input_size": list(self.input_size),
            "frame": asdict(self.frame),
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Rebuild from `to_json`."""
        height, width = content["window"]
        input_height, input_width = content["input_size"]
        return cls(
            WindowGrid((height, width), tuple(content["origins_y"]), tuple(content["origins_x"])),
            (input_height, input_width),
            Frame(**content["frame"]),
        )

    def csv_rows(self, values: np.ndarray) -> list[str]:
        """One row ``y,x,value`` for each cell with a value; y, x: the top left pixel of the cell's window."""
        texts = values.astype(str)
        return [
            f"{y},{x},{'' if texts[row, column] == 'nan' else texts[row, column]}"
            for row, y in enumerate(self.grid.origins_y)
            for column, x in enumerate(self.grid.origins_x)
        ]


def _edges(origins: tuple[int, ...], window: int) -> np.ndarray:
    if len(origins) == 1:
        return np.array([origins[0], origins[0] + window], dtype=float)
    centres = np.asarray(origins) + window / 2
    between = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - between[0]], between, [2 * centres[-1] - between[-1]]])
