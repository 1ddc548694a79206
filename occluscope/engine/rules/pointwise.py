"""The operation for functions that compute each pixel independently."""

from occluscope.engine.incremental.rules.pointwise import Pointwise

__all__ = ["Pointwise"]
