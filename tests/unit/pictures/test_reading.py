import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from occluscope import pictures
from occluscope.errors import InvalidPictureError
from occluscope.pictures import reading
from tests.conftest import encode, random_picture

RED, BLUE = (255, 0, 0), (0, 0, 255)


def near(picture: Image.Image, place: tuple[int, int], colour: tuple[int, int, int]) -> bool:
    """Whether a pixel has a colour, but for what a lossy format changes. place: x, y."""
    return bool(np.abs(np.asarray(picture, dtype=int)[place[1], place[0]] - colour).max() <= 12)


def halves(left: tuple[int, ...], right: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    picture = Image.new(mode, (40, 20), left)
    picture.paste(right, (20, 0, 40, 20))
    return picture


def test_an_rgb_picture_comes_back_as_it_was() -> None:
    picture = random_picture(1)
    assert np.array_equal(np.asarray(pictures.decode(encode(picture))), np.asarray(picture))


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "TIFF", "WEBP", "JPEG"])
def test_every_format_is_read(form: str) -> None:
    content = encode(halves(RED, BLUE), form)
    decoded = pictures.decode(content)
    assert pictures.format_of(content) == form
    assert decoded.mode == "RGB"
    assert near(decoded, (5, 5), RED)
    assert near(decoded, (35, 5), BLUE)


def test_sixteen_bit_grey_keeps_its_upper_eight_bits() -> None:
    grey = np.array([[0, 0x1234, 0xFFFF]], dtype=np.uint16).repeat(3, axis=0)
    decoded = np.asarray(pictures.decode(encode(Image.fromarray(grey))))
    assert decoded[0, :, 0].tolist() == [0, 0x12, 0xFF]


def test_cmyk_is_drawn_in_its_colours() -> None:
    cmyk = Image.new("CMYK", (20, 20), (0, 255, 255, 0))  # magenta and yellow: red
    assert near(pictures.decode(encode(cmyk, "JPEG")), (5, 5), RED)


def test_transparency_is_laid_over_white() -> None:
    layer = halves((255, 0, 0, 255), (0, 0, 255, 0), "RGBA")
    decoded = pictures.decode(encode(layer))
    assert (decoded.getpixel((5, 5)), decoded.getpixel((35, 5))) == (RED, (255, 255, 255))


@pytest.mark.parametrize("shape", [(1500, 1700), (2_000, 900)])
def test_large_transparency_is_laid_over_white_as_a_small_one_is(shape: tuple[int, int]) -> None:
    layer = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*shape, 4), dtype=np.uint8))
    whole = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    assert np.array_equal(np.asarray(pictures.decode(encode(layer))), np.asarray(whole))


def block_means(picture: np.ndarray, factor: int) -> np.ndarray:
    """Means of squares of pixels; those at the right and lower edges of what is left there."""
    rows, columns = (range(0, length, factor) for length in picture.shape[:2])
    return np.array([
        [picture[y : y + factor, x : x + factor].mean(axis=(0, 1)) for x in columns] for y in rows
    ])  # fmt: skip


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "I;16"])
@pytest.mark.parametrize("size", [(601, 402), (402, 601)])
def test_a_picture_larger_than_needed_comes_reduced_by_means(
    mode: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_BAND_PIXELS", 8000)  # several bands
    random = np.random.default_rng(1)
    if mode == "I;16":
        picture = Image.fromarray(random.integers(0, 2**16, size[::-1], dtype=np.uint16))
    else:
        layers = Image.fromarray(random.integers(0, 256, (*size[::-1], 4), dtype=np.uint8), "RGBA")
        picture = layers if mode == "RGBA" else layers.convert("RGB").convert(mode)
    content = encode(picture)
    reduced = np.asarray(pictures.decode(content, least=100), dtype=float)
    assert max(reduced.shape[:2]) == 201  # a third: no less than twice as large as needed
    whole = np.asarray(pictures.decode(content), dtype=float)
    assert np.abs(reduced - block_means(whole, 3)).max() <= 1


def test_a_picture_no_more_than_twice_too_large_comes_whole() -> None:
    content = encode(random_picture(1, (300, 200)))
    for least in (101, 150, 300, 4000):
        assert np.array_equal(np.asarray(pictures.decode(content, least)), np.asarray(pictures.decode(content)))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_larger_than_needed_comes_reduced_and_upright(progressive: bool, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = random_picture(1, (12, 8)).resize((1200, 800), Image.Resampling.BICUBIC)
    content = encode(smooth, "JPEG", exif=exif, quality=95, progressive=progressive)
    whole, reduced = pictures.decode(content), pictures.decode(content, least=60)
    assert 120 <= max(reduced.size) < 240
    assert (reduced.width > reduced.height) == (orientation == 1)
    expected = np.asarray(whole.resize(reduced.size, Image.Resampling.BOX), dtype=int)
    assert np.abs(np.asarray(reduced, dtype=int) - expected).mean() < 2


def test_what_is_held_while_decoding_is_told_by_the_header() -> None:
    picture = Image.new("RGB", (1600, 1200))
    assert pictures.pixels_of(encode(picture, "JPEG")) == 1600 * 1200
    assert pictures.pixels_of(encode(picture, "JPEG"), least=100) == 200 * 150
    assert pictures.pixels_of(encode(picture, "JPEG", progressive=True), least=100) == 1600 * 1200
    assert pictures.pixels_of(encode(picture), least=100) == 1600 * 1200


def test_its_size_is_told_upright_without_converting_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert pictures.upright_size(encode(halves(RED, BLUE), "JPEG", exif=exif)) == (20, 40)


def test_a_palette_with_a_transparent_entry_is_laid_over_white() -> None:
    palette = halves(RED, BLUE).quantize(2)
    clear = palette.getpixel((35, 5))
    decoded = pictures.decode(encode(palette, transparency=clear))
    assert (decoded.getpixel((5, 5)), decoded.getpixel((35, 5))) == (RED, (255, 255, 255))


def test_of_an_animation_the_first_frame_is_taken() -> None:
    first, second = Image.new("RGB", (20, 20), RED), Image.new("RGB", (20, 20), BLUE)
    content = encode(first, "GIF", save_all=True, append_images=[second])
    assert pictures.decode(content).getpixel((5, 5)) == RED


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned a quarter clockwise: the left half comes to lie on top
    decoded = pictures.decode(encode(halves(RED, BLUE), "JPEG", exif=exif, quality=95))
    assert decoded.size == (20, 40)
    assert near(decoded, (10, 5), RED)
    assert near(decoded, (10, 35), BLUE)


def test_one_pixel_is_a_picture() -> None:
    assert pictures.decode(encode(Image.new("RGB", (1, 1), RED))).getpixel((0, 0)) == RED


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


BAD = {
    "empty": (b"", "empty"),
    "random bytes": (np.random.default_rng(0).bytes(4096), "not a picture"),
    "text": (b"hello, I am a JPEG", "not a picture"),
    "a format not read here": (b"%PDF-1.7 ...", "not a picture"),
    "truncated": (encode(random_picture(2, (200, 200)))[:5000], "damaged or truncated"),
    "truncated header": (encode(random_picture(2))[:20], "not a picture|damaged"),
    "bomb": (png_header(8001, 8001), "64,016,001 pixels; the limit is 64,000,000"),
    "huge bomb": (png_header(60_000, 60_000), "limit of 64,000,000 pixels"),
    "thread": (encode(Image.new("RGB", (1, 101))), "longer than 100 times"),
    "32-bit grey": (encode(Image.fromarray(np.array([[70_000]], dtype=np.int32)), "TIFF"), "8 or 16 bits"),
    "float grey": (encode(Image.fromarray(np.array([[0.5]], dtype=np.float32)), "TIFF"), "8 or 16 bits"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_bytes_are_refused_with_the_reason(name: str) -> None:
    content, reason = BAD[name]
    with pytest.raises(InvalidPictureError, match=reason):
        pictures.decode(content)


@pytest.mark.parametrize("name", BAD)
def test_what_decode_refuses_has_no_size(name: str) -> None:
    with pytest.raises(InvalidPictureError):
        pictures.upright_size(BAD[name][0])
