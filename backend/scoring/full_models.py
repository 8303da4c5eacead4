"""Whole classifiers that users have in Triton, asked for probabilities: several, or one whose dropout stays on."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import EncoderDown, EncoderFailed, FullModelUnfit
from backend.scoring.encoder import Inputs
from backend.scoring.triton import connect, is_unanswered

TIMEOUT_S = 60.0
_LARGEST_SIDE = 224  # of images for a model that takes any size


@dataclass(frozen=True)
class FullModels:
    """Models of one Triton as an `Encoder`: an item's vector is what each says of it, in each of its draws.

    ``dims`` is T x K for T = models x ``draws`` and K = ``classes``: probabilities, class by class, draw after draw.
    Each model takes images, uint8 (b, H, W, 3), and gives float32 (b, K), logits or probabilities, in the order of
    the project's labels. More than one draw is for models that answer differently each time (Gal & Ghahramani,
    *Dropout as a Bayesian approximation*, ICML 2016, 1506.02142); several models are a deep ensemble
    (Lakshminarayanan et al., NeurIPS 2017, 1612.01474).
    """

    url: str
    models: tuple[str, ...]
    draws: int
    classes: int

    @property
    def dims(self) -> int:
        return len(self.models) * self.draws * self.classes

    @cached_property
    def digest(self) -> str:
        """Of the models' names and versions; whoever replaces a model under its version keeps its old answers."""
        facts = [self.models, [served.versions for served in self._served], self.draws, self.classes]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def side(self) -> int:
        """Pixels a side; an image that is smaller is enlarged where a model takes one size only (`is_exact`)."""
        return max((served.side for served in self._served), default=0) or _LARGEST_SIDE

    @property
    def is_exact(self) -> bool:
        return any(served.side for served in self._served)

    def encode(self, inputs: Inputs) -> NDArray[np.float32]:
        """Probabilities float32 (b, dims). Raises EncoderDown, EncoderFailed, FullModelUnfit."""
        answers = [
            _probabilities(self._ask(served, inputs), served.name, len(inputs), self.classes)
            for served in self._served
            for _ in range(self.draws)
        ]
        return np.concatenate(answers, axis=1)

    @cached_property
    def _client(self) -> Any:
        return connect(self.url)

    @cached_property
    def _served(self) -> tuple["_Served", ...]:
        found = tuple(self._look_at(name) for name in self.models)
        if len({served.side for served in found if served.side}) > 1:
            raise FullModelUnfit(name=", ".join(self.models), problem="they take images of different sizes")
        return found

    def _look_at(self, name: str) -> "_Served":
        from tritonclient.utils import InferenceServerException

        try:
            told = self._client.get_model_metadata(name, client_timeout=TIMEOUT_S)
        except InferenceServerException as error:
            if is_unanswered(error):
                raise EncoderDown(url=self.url, problem=error.message()) from error
            raise FullModelUnfit(name=name, problem=error.message()) from error
        if len(told.inputs) != 1 or len(told.outputs) != 1:
            raise FullModelUnfit(name=name, problem=f"{len(told.inputs)} inputs and {len(told.outputs)} outputs")
        given, answer = told.inputs[0], told.outputs[0]
        shape = list(given.shape)[-3:]
        if given.datatype != "UINT8" or len(given.shape) != 4 or shape[2] != 3 or shape[0] != shape[1]:
            problem = f"its input is {given.datatype} {list(given.shape)}"
            raise FullModelUnfit(name=name, problem=problem)
        if list(answer.shape[1:]) not in ([self.classes], [-1]):
            problem = f"it answers {list(answer.shape)} for {self.classes} labels"
            raise FullModelUnfit(name=name, problem=problem)
        return _Served(name, tuple(told.versions), given.name, answer.name, max(0, shape[0]))

    def _ask(self, served: "_Served", inputs: Inputs) -> NDArray[Any]:
        from tritonclient import grpc
        from tritonclient.utils import InferenceServerException

        source = grpc.InferInput(served.input, list(inputs.shape), "UINT8")
        source.set_data_from_numpy(np.ascontiguousarray(inputs))
        try:
            result = self._client.infer(served.name, [source], client_timeout=TIMEOUT_S)
        except InferenceServerException as error:
            if is_unanswered(error):
                raise EncoderDown(url=self.url, problem=error.message()) from error
            raise EncoderFailed(count=len(inputs), shape=inputs.shape[1:], problem=error.message()) from error
        answer: NDArray[Any] = result.as_numpy(served.output)
        return answer


@dataclass(frozen=True)
class _Served:
    """A model as Triton describes it; `side` is 0 where it takes images of any size."""

    name: str
    versions: tuple[str, ...]
    input: str
    output: str
    side: int


def _probabilities(answer: NDArray[Any], name: str, count: int, classes: int) -> NDArray[np.float32]:
    """(b, K), made of logits where they are no probabilities yet."""
    if answer.shape != (count, classes):
        raise FullModelUnfit(name=name, problem=f"it answers {answer.shape} for {count} items and {classes} labels")
    rows = answer.astype(np.float64)
    if (rows < 0).any() or not np.allclose(rows.sum(axis=1), 1, atol=1e-2):
        rows = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(rows / rows.sum(axis=1, keepdims=True), np.float32)
