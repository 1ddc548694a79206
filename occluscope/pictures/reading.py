"""Reads pictures that anybody may send: first the limits are checked in the header, then pixels become upright RGB."""

import io
import warnings
from typing import Final, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from occluscope.errors import InvalidPictureError

MAX_PIXELS: Final = 64_000_000  # width × height, read from the header before anything is decoded
MAX_ASPECT: Final = 100  # longer ÷ shorter side; resizing would enlarge a very thin picture to gigapixels
FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_BAND_PIXELS: Final = 2**20  # pixels that are converted at a time
_DAMAGED: Final = "the picture is damaged or truncated: its pixels cannot be decoded"
_SIXTEEN_BIT: Final = ("I;16", "I;16L", "I;16B", "I;16N", "I")


def decode(content: bytes, least: int | None = None) -> Image.Image:
    """Decode a picture to upright 8-bit RGB.

    least: pixels of the longer side that suffice. A picture more than twice as large is then reduced by a whole factor,
    to a longer side of at least twice `least`, which takes less memory and time.

    EXIF rotation is applied; the first frame of an animation is used; transparency is drawn over white;
    16-bit grey keeps its upper 8 bits; CMYK and palettes become RGB.

    Raises
    ------
    InvalidPictureError
        The bytes are empty, truncated, of no format in `FORMATS`, or over `MAX_PIXELS` or `MAX_ASPECT`.
    """
    picture = _upright(content, least)
    try:
        return _to_rgb(picture, _factor(picture.size, least))
    # Pillow's decoders raise many kinds (OSError, SyntaxError, ValueError, struct.error, EOFError) for damaged bytes.
    except InvalidPictureError:
        raise
    except Exception as error:
        raise InvalidPictureError(_DAMAGED) from error


def upright_size(content: bytes) -> tuple[int, int]:
    """Width and height of the picture that `decode` returns. Its pixels are decoded to check them, but not converted.

    Raises
    ------
    InvalidPictureError
        As `decode`.
    """
    return _upright(content).size


def pixels_of(content: bytes, least: int | None = None) -> int:
    """Width × height of what `decode` has in memory while it decodes, computed from the header.

    Raises
    ------
    InvalidPictureError
        The header breaks a limit, or is not that of a picture.
    """
    picture = _open(content)
    if not picture.info.get("progressive"):  # a progressive JPEG is in memory at full size, also if it is reduced
        _draft(picture, least)
    return picture.width * picture.height


def _factor(size: tuple[int, int], least: int | None) -> int:
    """The factor by which a picture may be reduced."""
    return max(max(size) // (2 * least), 1) if least else 1


def _draft(picture: Image.Image, least: int | None) -> None:
    """Let a JPEG be decoded at a half, a quarter or an eighth of its size; other formats stay as they are."""
    factor = max(scale for scale in (1, 2, 4, 8) if scale <= _factor(picture.size, least))
    if factor > 1:
        picture.draft(picture.mode, (max(picture.width // factor, 1), max(picture.height // factor, 1)))


def _upright(content: bytes, least: int | None = None) -> Image.Image:
    """The decoded picture in its own mode, rotated in place, as each copy of a large picture takes much memory."""
    picture = _open(content)
    try:
        _draft(picture, least)
        picture.load()
        ImageOps.exif_transpose(picture, in_place=True)
        _refuse_other_grey(picture)
    except InvalidPictureError:
        raise
    except Exception as error:
        raise InvalidPictureError(_DAMAGED) from error
    return picture


def format_of(content: bytes) -> str:
    """The picture's format as Pillow names it (``JPEG``, ``PNG``, …), from its bytes alone."""
    return _open(content).format or "unknown"


def _open(content: bytes) -> Image.Image:
    """Read the header and check it against the limits."""
    if not content:
        raise InvalidPictureError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise InvalidPictureError(f"the picture is over the limit of {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise InvalidPictureError(f"not a picture in a format read here ({', '.join(FORMATS)})") from error
    except Exception as error:
        raise InvalidPictureError("the picture's header is damaged") from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise InvalidPictureError(f"{width} × {height} is {width * height:,} pixels; the limit is {MAX_PIXELS:,}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InvalidPictureError(
            f"{width} × {height} is longer than {MAX_ASPECT} times its shorter side; crop it first"
        )
    return picture


def _refuse_other_grey(picture: Image.Image) -> None:
    """Refuse grey levels that do not fit into 16 bits."""
    if picture.mode == "I":
        low, high = cast("tuple[float, float]", picture.getextrema())
        if low < 0 or high > 0xFFFF:
            raise InvalidPictureError("32-bit grey levels are not read; save it with 8 or 16 bits")
    if picture.mode == "F":
        raise InvalidPictureError("floating-point grey levels are not read; save it with 8 or 16 bits")


def _to_rgb(picture: Image.Image, factor: int) -> Image.Image:
    """Convert to RGB, reduced by a factor."""
    plain = picture.mode not in _SIXTEEN_BIT and not picture.has_transparency_data
    if plain and factor == 1:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    whole = Image.new("RGB", (-(-picture.width // factor), -(-picture.height // factor)))
    rows = max(_BAND_PIXELS // (picture.width * factor), 1) * factor
    for top in range(0, picture.height, rows):  # by bands, so that there is no third copy in memory
        band = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        colours = band.convert("RGB") if plain else _band_to_rgb(band)
        whole.paste(colours.reduce(factor) if factor > 1 else colours, (0, top // factor))
    return whole


def _band_to_rgb(band: Image.Image) -> Image.Image:
    if band.mode in _SIXTEEN_BIT:
        grey = np.asarray(band).astype(np.int64)
        return Image.fromarray((grey >> 8).astype(np.uint8), mode="L").convert("RGB")
    layer = band.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")
