"""Rows as CSV that a spreadsheet opens without running anything."""

import csv
import io
from collections.abc import Iterable
from typing import Any, Final

_FORMULA_SIGNS: Final = ("=", "+", "-", "@", "\t", "\n")  # a cell that begins so may be run as a formula


def as_csv(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """A header line and a line for each row; none and NaN are empty cells.

    Text that a spreadsheet would take for a formula gets an apostrophe before it; numbers keep their minus.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_cell(value) for value in header])
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        line = value.replace("\r\n", "\n").replace("\r", "\n")  # the writer puts no quotes about a lone return
        return f"'{line}" if line.startswith(_FORMULA_SIGNS) else line
    return "" if value is None or value != value else value  # noqa: PLR0124 - NaN alone differs from itself
