"""One batch of windows on its way through the network."""

from typing import Any

import torch
from torch import Tensor

from occluscope.engine.incremental.buffers import Buffer, Reading


class Batch:
    """Values of all steps for some windows.

    rows, columns: int64 [batch], each window's row and column in the grid. values: by step; for a map its rectangles.
    """

    def __init__(self, rows: Tensor, columns: Tensor, values: list[Any]) -> None:
        self.rows = rows
        self.columns = columns
        self.values = values

    def __len__(self) -> int:
        return len(self.rows)

    def gather(self, reading: Reading) -> Tensor:
        """Read a map with this batch's changes: [batch, channels, y, x], or [batch, y, x, channels] in its own layout.

        One gather by index reads the buffer, which has the unoccluded map followed by the rectangles.
        """
        buffer = reading.buffer
        assert buffer.rows is not None  # noqa: S101 - the plan is complete before a batch runs
        map_y, map_x = reading.tables[0][self.rows], reading.tables[1][self.columns]
        index = (map_y * buffer.padded[1])[:, :, None] + map_x[:, None, :]
        if reading.rectangle is not None:
            height, width = self._write(buffer, buffer.rows)
            in_y, in_x = reading.tables[2][self.rows], reading.tables[3][self.columns]
            first = torch.arange(len(self), device=index.device) * (height * width) + buffer.map_rows
            behind = (first[:, None] + in_y * width)[:, :, None] + in_x[:, None, :]
            index = torch.where((in_y >= 0)[:, :, None] & (in_x >= 0)[:, None, :], behind, index)
        pixels = buffer.rows.index_select(0, index.view(-1)).view(*index.shape, -1)
        return pixels if buffer.layout == "nhwc" else pixels.permute(0, 3, 1, 2)

    def _write(self, buffer: Buffer, rows: Tensor) -> tuple[int, int]:
        """Write this batch's rectangles after the map, once; returns their height and width."""
        value = self.values[buffer.step]
        pixels = value if buffer.layout == "nhwc" else value.permute(0, 2, 3, 1)
        batch, height, width, channels = pixels.shape
        if not buffer.written:
            end = buffer.map_rows + batch * height * width
            rows[buffer.map_rows : end] = pixels.reshape(-1, channels)
            buffer.written = True
        return height, width
