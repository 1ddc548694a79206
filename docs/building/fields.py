"""Shows the fields that a docstring explains as a list.

Docstrings in this project explain fields and arguments in running text: ``values: float32 [rows, columns]. unit: what
the numbers count.`` In the source that is short; on a page each field gets a line of its own.
"""

import inspect
import re
from collections.abc import Iterable
from typing import Any

from sphinx.application import Sphinx


def process(_app: Sphinx, what: str, _name: str, found: Any, _options: Any, lines: list[str]) -> None:
    """Change a docstring's lines; Sphinx calls this for each one it reads."""
    if what in ("class", "exception", "function", "method"):
        lines[:] = as_list("\n".join(lines), _names(found)).split("\n")


def _names(found: Any) -> set[str]:
    """Of a class its fields and the arguments of its constructor, of a function its arguments."""
    fields = {name for one in getattr(found, "__mro__", ()) for name in inspect.get_annotations(one)}
    fields |= {name for name in vars(found) if isinstance(found, type) and not name.startswith("_")}
    try:
        return fields | set(inspect.signature(found).parameters)
    except (TypeError, ValueError):  # a class without a signature of its own
        return fields


def as_list(docstring: str, names: Iterable[str]) -> str:
    r"""The docstring with each ``name: explanation`` of these names as an item of a list.

    >>> as_list("A number. unit: what it counts.", ["unit"])
    'A number.\n\n* ``unit``: what it counts.'
    """
    one = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    if not one:
        return docstring
    starts = re.compile(rf"(?:(?<=[.;])\s+|^[ \t]*)((?:{one})(?:, (?:{one}))*): ", re.MULTILINE)
    paragraphs = []
    for paragraph in docstring.split("\n\n"):
        if paragraph.startswith(("    ", "..", ">>>")):  # an example or a directive
            paragraphs.append(paragraph)
            continue
        before, *items = starts.split(paragraph)
        listed = "\n".join(
            f"* ``{name}``: {' '.join(text.split()).removesuffix(';')}"
            for name, text in zip(items[::2], items[1::2], strict=True)
        )
        paragraphs += [part for part in (before.rstrip(), listed) if part]
    return "\n\n".join(paragraphs)
