"""What an encoder is to this room: a digest, a number of dimensions, and arrays of items in, embeddings out."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Inputs = NDArray[Any]
"""Items as they travel to an encoder, b of one shape: images uint8 (b, H, W, 3), or tokens int32 (b, length)."""


class Model(Protocol):
    """An exported encoder (`learning.encoders.EncoderSpec` is one): ONNX from one input to `embeddings`.

    `embeddings` is float32 (b, dims); what an item needs beyond its decoding is inside the graph.
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
    """Turns items into embeddings; may be called from several threads at once."""

    @property
    def digest(self) -> str:
        """Names weights, preprocessing and precision: equal digests, equal vectors."""
        ...

    @property
    def dims(self) -> int: ...

    @property
    def side(self) -> int:
        """How much of an item the network sees: pixels a side, or tokens."""
        ...

    def encode(self, inputs: Inputs) -> NDArray[np.float32]:
        """Embeddings float32 (b, dims) of b ≥ 0 items of one shape.

        Raises EncoderDown where trying again later may help, EncoderFailed where these items are at fault.
        """
        ...
