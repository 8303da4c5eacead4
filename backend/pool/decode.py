"""The one place where bytes become pixels: training, serving and the dashboard see the same image.

An image that is larger than `side` in either direction, or not square, is resized **as a whole** to (side, side):
stretched, not cropped, for what decides the class may sit at the border. The filter is Pillow's BILINEAR, which
widens with the scale and so is antialiased. A JPEG is first decoded at the smallest of libjpeg's DCT scales that
is still at least `side` in both directions. Square images no larger than `side` travel as they are; the encoder's
graph enlarges them. Torch is not imported.
"""

import io
import re
import struct

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from backend.errors import ImageBroken, ImageTooLarge

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000  # 192 MB as RGB; a worker decodes several at once

Pixels = npt.NDArray[np.uint8]

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_ORIENTATION = 0x0112  # EXIF tag
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


def decode(data: bytes, side: int) -> Pixels:
    """Decode JPEG, PNG, WebP, GIF (first frame), BMP or TIFF (first page) to uint8 RGB.

    Returns a contiguous (side, side, 3), or (s, s, 3) with s < side for an image that is square and smaller.
    EXIF orientation is applied, alpha is flattened on white, 16-bit grey keeps its high byte.
    Raises ImageBroken (not one of these formats, truncated, damaged) and ImageTooLarge (bytes, pixels).
    """
    if side < 1:
        raise ValueError(f"side must be at least 1, not {side}")
    if len(data) > MAX_BYTES:
        raise ImageTooLarge(size=f"{len(data)} bytes", limit=f"{MAX_BYTES}")
    pixels = _decode_jpeg(data, side) if data.startswith(b"\xff\xd8\xff") else None
    return _decode_with_pillow(data, side) if pixels is None else pixels


def _decode_jpeg(data: bytes, side: int) -> Pixels | None:
    """Decode the usual JPEG fast; None where Pillow has to look: CMYK, recoverable warnings, damage."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_size(width, height)
    if colorspace in ("CMYK", "YCCK"):
        return None
    # Where one direction is shorter than asked for, simplejpeg 1.9 shrinks it further; 0 asks for the full size.
    least = side if min(width, height) >= side else 0
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=least, min_width=least)
    except ValueError:
        return None
    # The scaled size decides nothing: an image that is too large is so by what its header says.
    fitted = pixels if _travels_as_it_is(width, height, side) else _resize(Image.fromarray(pixels), side)
    return _upright(fitted, _jpeg_orientation(data))


def _decode_with_pillow(data: bytes, side: int) -> Pixels:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(*image.size)
            image.load()
            # Read after load(): Pillow turns TIFFs itself there and drops the tag; a PNG's may follow its pixels.
            orientation = image.getexif().get(_ORIENTATION, 1)
            rgb = _to_rgb(image)
    except (ImageBroken, ImageTooLarge):
        raise
    except Image.DecompressionBombError:  # Pillow's own limit, met before it tells the size
        raise ImageTooLarge(size="far too many pixels", limit=f"{MAX_PIXELS}") from None
    except UnidentifiedImageError:
        raise ImageBroken(problem=_what_it_is(data)) from None
    except Exception as error:
        # Pillow's readers let everything out on damaged bytes: SyntaxError, struct.error, IndexError, zlib.error …
        problem = re.sub(r"<[^>]*>", "", str(error)).strip()[:100] or type(error).__name__
        raise ImageBroken(problem=problem) from error
    pixels = np.array(rgb) if _travels_as_it_is(*rgb.size, side) else _resize(rgb, side)
    return _upright(pixels, orientation)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT or (image.mode == "I" and image.format == "PNG"):
        samples = np.asarray(image).astype(np.uint32) >> 8
        return Image.fromarray(samples.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageBroken(problem="32-bit samples have no defined range; convert it to 8 or 16 bit")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        flat = Image.new("RGB", coloured.size, "white")
        flat.paste(coloured, mask=coloured.getchannel("A"))
        return flat
    return image.convert("RGB")


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise ImageBroken(problem="it has no pixels")
    if width * height > MAX_PIXELS:
        raise ImageTooLarge(size=f"{width} x {height} pixels", limit=f"{MAX_PIXELS}")


def _travels_as_it_is(width: int, height: int, side: int) -> bool:
    return width == height <= side


def _resize(image: Image.Image, side: int) -> Pixels:
    return np.array(image.resize((side, side), Image.Resampling.BILINEAR))


def _upright(pixels: Pixels, orientation: object) -> Pixels:
    """Apply an EXIF orientation; every image is square by now, so turning after resizing loses nothing."""
    match orientation:
        case 2:
            pixels = pixels[:, ::-1]
        case 3:
            pixels = pixels[::-1, ::-1]
        case 4:
            pixels = pixels[::-1]
        case 5:
            pixels = pixels.transpose(1, 0, 2)
        case 6:
            pixels = pixels[::-1].transpose(1, 0, 2)
        case 7:
            pixels = pixels[::-1, ::-1].transpose(1, 0, 2)
        case 8:
            pixels = pixels[:, ::-1].transpose(1, 0, 2)
    return np.ascontiguousarray(pixels)


def _jpeg_orientation(data: bytes) -> object:
    """EXIF orientation of a JPEG whose pixels are decoded; 1 where there is none or it cannot be read."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker, size = struct.unpack_from(">BH", data, position + 1)
        if marker == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0":
            exif = Image.Exif()
            try:
                exif.load(data[position + 4 : position + 2 + size])
                return exif.get(_ORIENTATION, 1)
            except Exception:  # damaged EXIF is common (cameras, editors) and costs at most the orientation
                return 1
        if marker == 0xDA or not 0xC0 <= marker <= 0xFE:  # image data begins, or this is no segment
            break
        position += 2 + size
    return 1


def _what_it_is(data: bytes) -> str:
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not data:
        return "it is empty"
    if b"<svg" in start:
        return "SVG is a drawing; export it as PNG"
    if start.startswith((b"<!doctype", b"<html", b"<head", b"<body")):
        return "it is a web page, perhaps a login page"
    return "it is none of JPEG, PNG, WebP, GIF, BMP, TIFF"
