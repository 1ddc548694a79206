"""Pictures of results, without torch: a figure with axes, or an overlay on the original picture."""

from occluscope.rendering.render import DrawingOptions, render_png
from occluscope.rendering.scale import COLORMAPS

__all__ = ["COLORMAPS", "DrawingOptions", "render_png"]
