"""The grid of an occluding window's positions over a picture."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Size = tuple[int, int]  # height, width; pixels of the model's input
Box = tuple[int, int, int, int]  # top, left, bottom, right; pixels, the last two just outside


@dataclass(frozen=True)
class WindowGrid:
    """Every position of one window over one picture, row by row.

    window: (height, width), pixels.
    origins_y, origins_x: the top and left pixel of each row and column of positions: 0, s, 2s, … and a last
    one at the far edge, if the steps do not end there.
    """

    window: Size
    origins_y: tuple[int, ...]
    origins_x: tuple[int, ...]

    @classmethod
    def over(cls, size: Size, window: Size, stride: Size) -> "WindowGrid":
        """The grid over a picture of `size`.

        Raises
        ------
        ValueError
            The window is larger than the picture, or a length is not positive.
        """
        return cls(
            window,
            _origins(size[0], window[0], stride[0]),
            _origins(size[1], window[1], stride[1]),
        )

    @classmethod
    def within(cls, box: Box, window: Size, stride: Size) -> "WindowGrid":
        """The grid over a part of a picture.

        Raises
        ------
        ValueError
            The window is larger than the box, or a length is not positive.
        """
        top, left, bottom, right = box
        grid = cls.over((bottom - top, right - left), window, stride)
        return cls(window, tuple(top + y for y in grid.origins_y), tuple(left + x for x in grid.origins_x))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of positions."""
        return len(self.origins_y), len(self.origins_x)

    def __len__(self) -> int:
        return len(self.origins_y) * len(self.origins_x)

    def origins(self) -> np.ndarray:
        """All positions: int64 [positions, 2], (y, x), row by row."""
        y, x = np.meshgrid(self.origins_y, self.origins_x, indexing="ij")
        return np.stack([y.ravel(), x.ravel()], axis=1)

    def tiles(self, most: int) -> Iterator[tuple["WindowGrid", np.ndarray]]:
        """Split the grid into parts of at most `most` windows, each of some rows and some columns.

        Rows (and columns) with the same distance to the nearest edge come together, the innermost first. A change near
        an edge spreads less, so the changes of the windows of one part have about the same size.
        Yields each part as a grid, and its windows' positions in this grid: int64 [windows], row by row of the part.
        """
        columns = min(len(self.origins_x), max(math.isqrt(most), most // len(self.origins_y)))
        rows = min(len(self.origins_y), max(most // columns, 1))
        for y in _parts_by_depth(self.origins_y, rows):
            for x in _parts_by_depth(self.origins_x, columns):
                part = WindowGrid(self.window, _picked(self.origins_y, y), _picked(self.origins_x, x))
                yield part, (y[:, None] * len(self.origins_x) + x).ravel()

    def centre(self, position: int) -> tuple[float, float]:
        """Centre (y, x) of the position-th window, pixels of the input."""
        row, column = divmod(position, len(self.origins_x))
        return (
            self.origins_y[row] + self.window[0] / 2,
            self.origins_x[column] + self.window[1] / 2,
        )

    def mean_per_pixel(self, values: np.ndarray, size: Size) -> np.ndarray:
        """For each pixel the mean of the values of all windows that cover it.

        values: [rows, columns], one for each position. size: the picture's (height, width).
        Returns float64 [height, width], NaN for pixels that no window covers, as the stride may be larger than the
        window. Computed with a 2-D difference array.
        """
        mean: np.ndarray = _spread(self, values, size) / _covering(self, size)
        return mean


def count_positions(length: int, window: int, stride: int) -> int:
    """Number of positions along one axis, without computing them."""
    steps, rest = divmod(length - window, stride)
    return steps + 1 + (rest > 0)


def _parts_by_depth(origins: tuple[int, ...], most: int) -> list[np.ndarray]:
    """Indices of the origins in parts of at most `most`, ascending in each part, the innermost part first."""
    places = np.asarray(origins)
    depth = np.minimum(places - places[0], places[-1] - places)
    inwards = np.argsort(-depth, kind="stable")
    return [np.sort(part) for part in np.array_split(inwards, -(-len(origins) // most))]


def _picked(origins: tuple[int, ...], places: np.ndarray) -> tuple[int, ...]:
    return tuple(origins[place] for place in places)


def _origins(length: int, window: int, stride: int) -> tuple[int, ...]:
    if min(length, window, stride) < 1:
        raise ValueError(f"length {length}, window {window} and stride {stride} must be positive")
    if window > length:
        raise ValueError(f"the window ({window}) is larger than the picture ({length})")
    last = length - window
    steps = range(0, last + 1, stride)
    return (*steps, last) if steps[-1] != last else tuple(steps)


def _spread(grid: WindowGrid, values: np.ndarray, size: Size) -> np.ndarray:
    edges = np.zeros((size[0] + 1, size[1] + 1))
    y, x = np.asarray(grid.origins_y), np.asarray(grid.origins_x)
    height, width = grid.window
    for rows, row_sign in ((y, 1.0), (y + height, -1.0)):
        for columns, column_sign in ((x, 1.0), (x + width, -1.0)):
            np.add.at(edges, np.ix_(rows, columns), row_sign * column_sign * values)
    return edges.cumsum(axis=0).cumsum(axis=1)[:-1, :-1]


def _covering(grid: WindowGrid, size: Size) -> np.ndarray:
    """How many windows cover each pixel, NaN for 0; sums of whole numbers are exact."""
    counts = _spread(grid, np.ones(grid.shape), size)
    return np.where(counts > 0, counts, np.nan)
