"""The encoder in this process: for machines without Triton, and the measure that Triton is held against."""

import numpy as np
from numpy.typing import NDArray

from backend.errors import EncoderFailed
from backend.scoring.encoder import Inputs, Model

MINIBATCH = 32  # more gains nothing on a CPU and holds more memory


class LocalEncoder:
    """Runs an exported encoder by OpenVINO, one thread a stream. An `Encoder`."""

    def __init__(self, model: Model, streams: int = 2) -> None:
        """Compile the model, a second or so. Raises EncoderFailed where the CPU lacks the model's precision."""
        from backend.scoring.engine import Engine, PrecisionUnavailable

        self.digest, self.dims, self.side = model.digest, model.dims, model.side
        try:
            self._engine = Engine(model.path, model.precision, streams)
        except PrecisionUnavailable as error:
            raise EncoderFailed(count=0, shape="any", problem=error) from error

    def encode(self, inputs: Inputs) -> NDArray[np.float32]:
        """Embeddings float32 (b, dims) of b items of one shape."""
        out = np.empty((len(inputs), self.dims), np.float32)
        for start in range(0, len(inputs), MINIBATCH):
            part = inputs[start : start + MINIBATCH]
            try:
                out[start : start + MINIBATCH] = self._engine.encode(part)
            except RuntimeError as error:  # all that OpenVINO raises
                raise EncoderFailed(count=len(part), shape=part.shape[1:], problem=error) from error
        return out

    def close(self) -> None:
        """Nothing to hand back; for the same life cycle as `TritonEncoder`."""
