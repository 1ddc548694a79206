"""Rows as CSV that is safe to open in a spreadsheet."""

import csv
import io
from collections.abc import Iterable
from typing import Any, Final

_FORMULA_SIGNS: Final = ("=", "+", "-", "@", "\t", "\n")  # a spreadsheet may run a cell that begins so as a formula


def as_csv(header: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """A header line and a line for each row; None and NaN become empty cells.

    Text that a spreadsheet would run as a formula gets an apostrophe at its start; numbers keep their minus sign.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([_cell(value) for value in header])
    writer.writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        line = value.replace("\r\n", "\n").replace("\r", "\n")  # the writer does not quote a single carriage return
        return f"'{line}" if line.startswith(_FORMULA_SIGNS) else line
    return "" if value is None or value != value else value  # noqa: PLR0124 - NaN alone differs from itself
