"""Occluscope: what a vision model looks at, and what it does not care about.

Importing this package loads no torch; what needs it is loaded on first use.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from occluscope.attribution import Occlusion

__version__ = version("occluscope")
__all__ = ["Occlusion", "__version__"]

_NEEDS_TORCH = {"Occlusion": "occluscope.attribution"}


def __getattr__(name: str) -> Any:
    if name in _NEEDS_TORCH:
        return getattr(import_module(_NEEDS_TORCH[name]), name)
    raise AttributeError(f"module 'occluscope' has no attribute '{name}'")
