"""What an encoder is to this room: a digest, a number of dimensions, and images in, embeddings out."""

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]


class Model(Protocol):
    """An exported encoder (`learning.encoders.EncoderSpec` is one): ONNX from `images` to `embeddings`.

    `images` is uint8 (b, H, W, 3) RGB of any H and W, `embeddings` float32 (b, dims); resizing to `side` and
    normalisation are inside the graph.
    """

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def dims(self) -> int: ...
    @property
    def side(self) -> int: ...
    @property
    def precision(self) -> str: ...
    @property
    def path(self) -> Path: ...


class Encoder(Protocol):
    """Turns images into embeddings; may be called from several threads at once."""

    @property
    def digest(self) -> str:
        """Names weights, preprocessing and precision: equal digests, equal vectors."""
        ...

    @property
    def dims(self) -> int: ...

    @property
    def side(self) -> int:
        """Pixels a side that the network sees."""
        ...

    def encode(self, images: Images) -> NDArray[np.float32]:
        """Embeddings float32 (b, dims) of uint8 images (b, H, W, 3), any b ≥ 0.

        Raises EncoderDown where trying again later may help, EncoderFailed where these images are at fault.
        """
        ...
