"""Bytes become pixels in one way, and bad bytes become one kind of error."""

import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from backend.errors import ImageBroken, ImageTooLarge
from backend.pool import decode as module
from backend.pool.decode import MAX_BYTES, MAX_PIXELS, decode

LOSSLESS = ("PNG", "BMP", "TIFF", "GIF")
MODES = {
    "PNG": ("1", "L", "P"),
    "TIFF": ("1", "L", "P", "CMYK", "YCbCr"),
    "JPEG": ("1", "L", "CMYK", "YCbCr"),
    "GIF": ("1", "L", "P"),
}
FORMATS = (*LOSSLESS, "JPEG", "WEBP")
Pixels = npt.NDArray[np.uint8]


def scene(width: int, height: int, seed: int = 0) -> Pixels:
    """Smooth colours, as photographs have them: uint8 (height, width, 3)."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return np.array(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: Any, format_: str, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def difference(one: Any, other: Any) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def png_header(width: int, height: int, body: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("format_", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("size", [1, 8, 32, 64])
def test_a_small_square_image_travels_as_it_is(format_: str, size: int) -> None:
    pixels = scene(size, size)

    np.testing.assert_array_equal(decode(encoded(pixels, format_), 64), pixels)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(("width", "height"), [(65, 65), (300, 200), (20, 40), (64, 65), (1, 500), (2000, 3)])
def test_any_other_is_resized_whole_to_a_square(format_: str, width: int, height: int) -> None:
    data = encoded(scene(width, height), format_)

    pixels = decode(data, 64)

    expected = Image.open(io.BytesIO(data)).convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)
    assert pixels.shape == (64, 64, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert difference(pixels, expected) < 2.5  # JPEG's DCT scaling is a filter of its own


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("width", "height"), [(140, 100), (32, 32)])
def test_exif_orientation_is_applied(format_: str, orientation: int, width: int, height: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if format_ in ("JPEG", "WEBP") else {}
    data = encoded(scene(width, height), format_, exif=exif, **options)

    pixels = decode(data, 64)

    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    expected = upright if width == height else upright.resize((64, 64), Image.Resampling.BILINEAR)
    assert difference(pixels, expected) < 1.5


def test_transparency_becomes_white() -> None:
    pixels = np.dstack([scene(16, 16), np.zeros((16, 16), np.uint8)])
    palette = Image.fromarray(scene(16, 16)).quantize(16)
    grey = np.dstack([scene(16, 16)[..., 0], np.zeros((16, 16), np.uint8)])

    for data in (
        encoded(pixels, "PNG"),
        encoded(pixels, "WEBP", lossless=True),
        encoded(grey, "PNG"),
        encoded(palette, "PNG", transparency=bytes(16)),
    ):
        np.testing.assert_array_equal(decode(data, 16), 255)


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    data = encoded(np.full((4, 4, 4), (0, 0, 0, 128), np.uint8), "PNG")

    assert difference(decode(data, 4), 127) <= 1


def test_sixteen_bit_grey_keeps_its_high_byte() -> None:
    deep = np.arange(0, 65_536, 256, dtype=np.uint16).reshape(16, 16)

    for format_ in ("PNG", "TIFF"):
        pixels = decode(encoded(deep, format_), 16)
        np.testing.assert_array_equal(pixels[..., 0], np.arange(256).reshape(16, 16))
        np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


@pytest.mark.parametrize(
    ("format_", "mode"),
    [(format_, mode) for format_, modes in MODES.items() for mode in modes],
)
def test_every_colour_mode_becomes_rgb(format_: str, mode: str) -> None:
    image = Image.fromarray(scene(48, 48)).convert(mode)
    data = encoded(image, format_, **({"quality": 95} if format_ == "JPEG" else {}))

    pixels = decode(data, 48)

    assert pixels.shape == (48, 48, 3)
    assert difference(pixels, Image.open(io.BytesIO(data)).convert("RGB")) < 1


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]

    for format_ in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], format_, save_all=True, append_images=frames[1:])
        assert difference(decode(data, 8), np.full((8, 8, 3), (255, 0, 0))) < 2


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
def test_a_truncated_image_is_broken(format_: str) -> None:
    data = encoded(scene(200, 150), format_)

    for share in (0.1, 0.5, 0.9):
        with pytest.raises(ImageBroken):
            decode(data[: int(len(data) * share)], 64)


def test_what_no_decoder_minds_is_not_held_against_a_jpeg() -> None:
    data = encoded(scene(64, 64), "JPEG", quality=90)

    with_tail = decode(data + b"\0" * 100, 64)

    np.testing.assert_array_equal(with_tail, decode(data, 64))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<svg/>", "SVG"),
        (b"<!DOCTYPE html><html>Log in</html>", "web page"),
        (b"%PDF-1.7", "none of"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(ImageBroken, match=reason):
        decode(data, 64)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(ImageBroken, match="32-bit"):
        decode(encoded(Image.new(mode, (8, 8)), "TIFF"), 8)


def test_more_pixels_than_allowed_are_refused_by_the_header() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    jpeg = bytearray(encoded(scene(16, 16), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)

    for data in (png_header(side, side), png_header(2**31 - 1, 2**31 - 1), bytes(jpeg)):
        with pytest.raises((ImageTooLarge, ImageBroken)):
            decode(data, 64)
    with pytest.raises(ImageTooLarge, match="pixels"):
        decode(png_header(side, side), 64)
    with pytest.raises(ImageTooLarge, match="pixels"):
        decode(bytes(jpeg), 64)


def test_a_bomb_of_few_bytes_costs_no_memory() -> None:
    program = """
import resource, sys
from backend.errors import NextbatchError
from backend.pool.decode import decode
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode(sys.stdin.buffer.read(), 64)
except NextbatchError as error:
    print(type(error).__name__, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    bomb = png_header(40_000, 40_000, zlib.compress(bytes(64 * 2**20), 9))

    done = subprocess.run([sys.executable, "-c", program], input=bomb, capture_output=True, check=True)

    name, grown_kib = done.stdout.split()
    assert name == b"ImageTooLarge"
    assert int(grown_kib) < 32 * 1024


def test_more_bytes_than_allowed_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 100)

    with pytest.raises(ImageTooLarge, match="bytes"):
        decode(bytes(101), 64)
    assert MAX_BYTES == 64 * 2**20


MAGIC = (
    *(b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*"),
    *(b"RIFF\x24\0\0\0WEBPVP8 ", b"RIFF\x24\0\0\0WEBPVP8L", b"RIFF\x24\0\0\0WEBPVP8X"),
)


@settings(max_examples=300)
@given(body=st.binary(max_size=300), magic=st.sampled_from(MAGIC))
def test_random_bytes_end_in_pixels_or_in_the_typed_error(body: bytes, magic: bytes) -> None:
    try:
        pixels = decode(magic + body, 16)
    except (ImageBroken, ImageTooLarge) as error:
        reason = str(error)
        assert 0 < len(reason) < 250
    else:
        assert pixels.shape[0] == pixels.shape[1] <= 16


@settings(max_examples=300)
@example(format_="JPEG", at=0.0, value=0, seed=0)
@given(
    format_=st.sampled_from(FORMATS),
    at=st.floats(0, 1, exclude_max=True),
    value=st.integers(0, 255),
    seed=st.integers(0, 9),
)
def test_a_damaged_image_ends_in_pixels_or_in_the_typed_error(format_: str, at: float, value: int, seed: int) -> None:
    data = bytearray(encoded(scene(40, 30, seed), format_))
    data[int(at * len(data))] = value

    try:
        pixels = decode(bytes(data), 16)
    except (ImageBroken, ImageTooLarge):
        return

    assert pixels.shape == (16, 16, 3) or pixels.shape[0] == pixels.shape[1] < 16


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    side=st.integers(1, 256),
    format_=st.sampled_from(["JPEG", "PNG"]),
)
def test_the_shape_follows_from_the_size_alone(width: int, height: int, side: int, format_: str) -> None:
    pixels = decode(encoded(scene(width, height), format_), side)

    expected = width if width == height <= side else side
    assert pixels.shape == (expected, expected, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


def test_torch_is_not_imported() -> None:
    program = (
        "import sys, backend.pool.decode, backend.pool.sources, backend.pool.folders; print('torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert done.stdout.strip() == b"False"
