"""Plain numbers of an item, without any network: how large, how bright, how sharp, how long."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from backend.errors import ImageBroken
from backend.pool.decode import decode
from backend.settings import Kind

_SIDE = 96
"""Larger images are measured at this size, so that sharpness means the same for all of one size."""


def facts(data: bytes, kind: Kind) -> Mapping[str, float]:
    """By name: bytes; of an image width and height in pixels, brightness in [0, 1] and sharpness; of a text characters.

    Sharpness is the mean absolute Laplacian of the grey image, scaled to 96 x 96 at most: blur lowers it.
    Raises ImageBroken, ImageTooLarge.
    """
    if kind == "text":
        return {"bytes": float(len(data)), "characters": float(len(data.decode("utf-8", "replace")))}
    grey = decode(data, _SIDE).mean(axis=2) / 255
    try:
        with Image.open(io.BytesIO(data)) as image:  # decoded above, so within its limits
            width, height = image.size
    except OSError as error:
        raise ImageBroken(problem=str(error)) from error
    middle = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return {
        "bytes": float(len(data)),
        "width": float(width),
        "height": float(height),
        "brightness": float(grey.mean()),
        "sharpness": float(np.abs(around - 4 * middle).mean()) if middle.size else 0.0,
    }
