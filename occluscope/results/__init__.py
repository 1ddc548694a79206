"""The kinds of results: each has a JSON form, a picture, and the downloads its kind allows.

API, store, worker and pages handle these kinds and never name an analysis.
"""

from occluscope.results.class_map import ClassMap
from occluscope.results.curves import Curves, Series, Strip
from occluscope.results.grid import GridGeometry
from occluscope.results.heatmap import Heatmap
from occluscope.results.image import RgbImage
from occluscope.results.kind import Metric, NamedResult, Packed, Result
from occluscope.results.matrix import Matrix
from occluscope.results.table import Column, Table
from occluscope.results.variant import ONLY, Variant

KINDS: dict[str, type[Result]] = {kind.kind: kind for kind in (Heatmap, ClassMap, Curves, Matrix, Table, RgbImage)}


def unpack(kind: str, packed: Packed) -> Result:
    """Rebuild a result from what `Result.pack` gave."""
    return KINDS[kind].unpack(packed)


__all__ = [
    "KINDS",
    "ONLY",
    "ClassMap",
    "Column",
    "Curves",
    "GridGeometry",
    "Heatmap",
    "Matrix",
    "Metric",
    "NamedResult",
    "Packed",
    "Result",
    "RgbImage",
    "Series",
    "Strip",
    "Table",
    "Variant",
    "unpack",
]
