"""Whether a model stands small changes of its input: light, noise, a crop, compression."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from backend.learning.evaluate import Comparison, Interval, Measure, wilson

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Change:
    """What one change of the input did to ``items`` items.

    ``kept`` is the share whose prediction stayed (a number: within 1.96 of its deviations); ``difference`` the
    ``measure`` on the changed minus on the plain items, paired. ``is_worse`` as in `evaluate.Comparison`.
    """

    name: str
    items: int
    kept: float
    kept_interval: Interval
    difference: float
    difference_interval: Interval
    is_worse: bool
    measure: Measure = "accuracy"


def _light(factor: float) -> Callable[[Pixels, np.random.Generator], Pixels]:
    return lambda pixels, _generator: _pixels(pixels * factor)


def _noisy(pixels: Pixels, generator: np.random.Generator) -> Pixels:
    return _pixels(pixels + generator.normal(0, 10, pixels.shape))


def _cropped(pixels: Pixels, _generator: np.random.Generator) -> Pixels:
    """Nine tenths of each side, from the middle, enlarged again."""
    height, width = pixels.shape[:2]
    box = (width * 0.05, height * 0.05, width * 0.95, height * 0.95)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box))


def _compressed(pixels: Pixels, _generator: np.random.Generator) -> Pixels:
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "JPEG", quality=30)
        with Image.open(file) as image:
            return np.asarray(image)


CHANGES: Mapping[str, Callable[[Pixels, np.random.Generator], Pixels]] = {
    "30 % darker": _light(0.7),
    "30 % brighter": _light(1.3),
    "noise (σ 10 of 255)": _noisy,
    "cropped to 90 %": _cropped,
    "JPEG quality 30": _compressed,
}


def change(name: str, pixels: Pixels, seed: int) -> Pixels:
    """An image, uint8 (height, width, 3), changed in the way of that name; noise is the same for the same seed."""
    return CHANGES[name](pixels, np.random.default_rng(seed))


def measure(name: str, is_kept: NDArray[np.bool_], found: Comparison) -> Change:
    """What is told of the changed items (n,): where it is what is told of the plain ones, and how good beside that."""
    kept, n = int(is_kept.sum()), len(is_kept)
    interval = wilson(kept, n)
    return Change(name, n, kept / n, interval, found.difference, found.interval, found.is_worse, found.measure)


def _pixels(values: NDArray[Any]) -> Pixels:
    pixels: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels
