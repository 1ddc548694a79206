"""The analyses: each folder here is one, found by its name.

`spec.py` loads without torch and defines ``SPEC``. `compute.py` needs torch and defines ``compute`` for the first
stage, and for each later stage a function with the stage's name.
"""

import pkgutil
from functools import cache
from importlib import import_module
from typing import cast

from occluscope.analyses.contract import FIRST, AnalysisSpec, Compute, ComputeLater


@cache
def names() -> tuple[str, ...]:
    """Every analysis there is, in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg))


@cache
def spec(name: str) -> AnalysisSpec:
    """The torch-free half of an analysis.

    Raises
    ------
    KeyError
        No analysis has this name.
    """
    if name not in names():
        raise KeyError(name)
    return cast("AnalysisSpec", import_module(f"{__name__}.{name}.spec").SPEC)


def compute(name: str) -> Compute:
    """The half of an analysis that runs the model; imports torch."""
    return cast("Compute", import_module(f"{__name__}.{name}.compute").compute)


def compute_later(name: str, stage: str) -> ComputeLater:
    """What computes the units of a later stage of an analysis; imports torch."""
    return cast("ComputeLater", getattr(import_module(f"{__name__}.{name}.compute"), stage))


def computation(name: str, stage: str) -> ComputeLater:
    """What computes the units of any stage of an analysis; imports torch. The first stage's units have the model."""
    if stage != FIRST:
        return compute_later(name, stage)
    first = compute(name)
    return lambda work, report: first(work.model(), work.pictures, work.params, work.unit, report)
