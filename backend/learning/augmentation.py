"""Images as a network in training sees them: a little different each time, or as the encoder will see them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.vision import torchvision

Augment = Literal["none", "crop", "full"]
"""none: as they are. crop: a random part, enlarged. full: that, mirrored half of the time, other light and colours."""

_LEAST_PART = 0.4  # of an image's area; a batch's images are whole, so less would show parts that never come
_JITTER = 0.2


def augmented(images: Sequence[NDArray[np.uint8]], side: int, kind: Augment) -> Tensor:
    """uint8 images (s, s, 3) of any sizes as (b, 3, side, side) float32 in 0 … 255, each changed by its own draw.

    torchvision's v2 transforms, which draw from torch's global generator: seeded alike, they give the same bits.
    """
    if kind == "none":
        return resized(images, side)
    change = _transform(side, kind)
    return torch.stack([change(torch.from_numpy(image).permute(2, 0, 1)) for image in images]).float()


def resized(images: Sequence[NDArray[np.uint8]], side: int) -> Tensor:
    """uint8 images (s, s, 3) as (b, 3, side, side) float32 in 0 … 255, by the filter of the exported graph."""
    return torch.cat(
        [
            torch.nn.functional.interpolate(
                torch.from_numpy(image).permute(2, 0, 1)[None].float(), (side, side), mode="bilinear"
            )
            for image in images
        ]
    )


@lru_cache(maxsize=4)
def _transform(side: int, kind: Augment) -> Any:
    v2 = torchvision("transforms.v2")
    crop = v2.RandomResizedCrop(side, scale=(_LEAST_PART, 1.0), antialias=True)
    if kind == "crop":
        return crop
    return v2.Compose([crop, v2.RandomHorizontalFlip(), v2.ColorJitter(_JITTER, _JITTER, _JITTER)])
