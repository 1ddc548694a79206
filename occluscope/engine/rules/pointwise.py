"""The operation for whatever computes each pixel by itself."""

from occluscope.engine.incremental.rules.pointwise import Pointwise

__all__ = ["Pointwise"]
