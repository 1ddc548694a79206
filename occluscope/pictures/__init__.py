"""Pictures on their way to a model: read from bytes, prepared to its input, and one after the other from a source."""

from occluscope.pictures.reading import FORMATS, MAX_ASPECT, MAX_PIXELS, decode, format_of, pixels_of, upright_size

__all__ = ["FORMATS", "MAX_ASPECT", "MAX_PIXELS", "decode", "format_of", "pixels_of", "upright_size"]
