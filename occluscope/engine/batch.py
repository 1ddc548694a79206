"""One batch of windows on its way through the network."""

from typing import Any

import torch
from torch import Tensor

from occluscope.engine.fields import Layout
from occluscope.engine.planning import Buffer, Reading


class Batch:
    """Values of all steps for some windows.

    rows, columns: int64 [batch], each window's place in the grid. values: by step; of a map its rectangles.
    """

    def __init__(self, number: int, rows: Tensor, columns: Tensor, values: list[Any]) -> None:
        self.number = number
        self.rows = rows
        self.columns = columns
        self.values = values

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, reading: Reading, layout: Layout) -> Tensor:
        """Read a map with this batch's changes: [batch, channels, y, x], or [batch, y, x, channels].

        One gather by index from the buffer that holds the unoccluded map and the rectangles behind it.
        """
        buffer = reading.buffer
        assert buffer.rows is not None  # noqa: S101 - the plan is complete before a batch runs
        base_y, base_x, inside_y, inside_x = reading.tables
        map_y, map_x = base_y[self.rows], base_x[self.columns]
        index = (map_y * buffer.padded[1])[:, :, None] + map_x[:, None, :]
        size = self._write(buffer, layout)
        if size is not None:
            in_y, in_x = inside_y[self.rows], inside_x[self.columns]
            first = torch.arange(len(self), device=index.device) * (size[0] * size[1]) + buffer.map_rows
            behind = (first[:, None] + in_y * size[1])[:, :, None] + in_x[:, None, :]
            index = torch.where((in_y >= 0)[:, :, None] & (in_x >= 0)[:, None, :], behind, index)
        batch, height, width = index.shape
        pixels = buffer.rows.index_select(0, index.view(-1)).view(batch, height, width, -1)
        return pixels if layout == "nhwc" else pixels.permute(0, 3, 1, 2)

    def _write(self, buffer: Buffer, layout: Layout) -> tuple[int, int] | None:
        """Put this batch's rectangles behind the map, once; gives their height and width, none for a steady map."""
        value = self.values[buffer.step]
        if buffer.rows is None or buffer.rows.shape[0] == buffer.map_rows:
            return None
        pixels = value if layout == "nhwc" else value.permute(0, 2, 3, 1)
        _, height, width, channels = pixels.shape
        if buffer.written != self.number:
            end = buffer.map_rows + len(self) * height * width
            buffer.rows[buffer.map_rows : end] = pixels.reshape(-1, channels)
            buffer.written = self.number
        return height, width
