"""The head: from embeddings to class probabilities, linear or with one hidden layer, and its file.

The web process predicts with it, so this module needs numpy and safetensors and nothing heavier, but for whole pools.
"""

import hashlib
import importlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from backend.artefacts import whole
from backend.errors import HeadUnreadable, WrongEmbeddingSize
from strategies import Task

Floats = NDArray[np.float32]

_HIDDEN = "nextbatch-head-2"
_ELSEWHERE = {
    "nextbatch-head-3": ("backend.learning.set_heads", "SetHead"),
    "nextbatch-head-4": ("backend.learning.number_heads", "NumberHead"),
    "nextbatch-head-5": ("backend.learning.neighbour_heads", "NeighbourHead"),
}
"""Formats of other kinds of heads, whose modules are imported when a file is of theirs."""

_TYPES = {"starts": "<i4", "codes": "|i1"}
"""Of arrays that are not of float32."""

_MAX_FILE_BYTES = 512 * 2**20
_MAX_CLASSES = 100_000
_CHUNK_ROWS = 1_024  # 7 MiB of float32 at 1,792 features: read back from the cache
_MANY_ROWS = 8_192  # from here on it pays to import torch


@dataclass(frozen=True, eq=False)
class Head:
    """Multinomial logistic regression on standardised embeddings or on a hidden layer, calibrated by one temperature.

    ``softmax((z @ weights + bias) / temperature)`` with ``z = (x - mean) / scale``, ``mean`` and ``scale`` (d,),
    ``weights`` (d, K), ``bias`` (K,), all float32 and read-only, for K = ``len(classes)``. A perceptron has ``hidden``
    (d, h) and ``hidden_bias`` (h,) too, and weights (h, K) on ``relu(z @ hidden + hidden_bias)``.
    Equal heads have equal digests.
    """

    task: ClassVar[Task] = Task.CLASSIFICATION
    form: ClassVar[str] = "nextbatch-head-1"
    arrays: ClassVar[tuple[str, ...]] = ("mean", "scale", "weights", "bias")
    """Without a hidden layer: the name of its files' format, and its arrays in the order that makes the digest."""

    classes: tuple[str, ...]
    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats
    temperature: float = 1.0
    hidden: Floats | None = None
    hidden_bias: Floats | None = None

    def __post_init__(self) -> None:
        if (self.hidden is None) != (self.hidden_bias is None):
            raise ValueError("not a head: a hidden layer has weights and a bias")
        for name in self._names():
            array = np.array(getattr(self, name), dtype=_TYPES.get(name, "<f4"), order="C")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        object.__setattr__(self, "temperature", float(np.float32(self.temperature)))
        problem = self._problem()
        if problem:
            raise ValueError(f"not a head: {problem}")

    @property
    def features(self) -> int:
        """d, the size of the embeddings that this head understands."""
        return int(self.mean.shape[0])

    @property
    def own(self) -> "Head":
        """What answers from an embedding alone."""
        return self

    @property
    def parameters(self) -> int:
        """How many numbers were fitted, mean, deviation and temperature included."""
        return sum(array.size for array in self._tensors().values())

    def _names(self) -> tuple[str, ...]:
        return self.arrays if self.hidden is None else _with_hidden(self.arrays)

    @property
    def _format(self) -> str:
        return self.form if self.hidden is None else _HIDDEN

    @cached_property
    def digest(self) -> str:
        """sha256 over classes and tensors (hex): the name of what this head computes."""
        digest = hashlib.sha256(self._format.encode())
        digest.update(_classes_json(self.classes).encode() + b"\0")
        for name, array in self._tensors().items():
            digest.update(f"{name}{array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def logits(self, embeddings: NDArray[Any]) -> Floats:
        """Calibrated logits, (n, K) float32; their softmax is `predict`. A row with a NaN gives NaN."""
        out = np.empty((len(embeddings), len(self.classes)), np.float32)
        for rows, logits in self._chunks(embeddings):
            out[rows] = logits
        return out

    def predict(self, embeddings: NDArray[Any]) -> Floats:
        """Class probabilities, (n, K) float32, of embeddings (n, d), float16 or float32, mapped or not.

        Reads 1,024 rows at a time, so a memory map larger than memory is fine. A row with a NaN gives NaN.
        Raises WrongEmbeddingSize for embeddings of another encoder.
        """
        out = np.empty((len(embeddings), len(self.classes)), np.float32)
        for rows, logits in self._chunks(embeddings):
            logits -= logits.max(axis=1, keepdims=True)
            np.exp(logits, out=logits)
            np.divide(logits, logits.sum(axis=1, keepdims=True), out=out[rows])
        return out

    def label_of(self, said: NDArray[Any]) -> str:
        """The label that probabilities (K,) stand for: the most probable class."""
        return self.classes[int(said.argmax())]

    def confidence(self, said: NDArray[Any]) -> float:
        """The probability, in [0, 1], that `label_of` is the whole truth."""
        return float(said.max())

    def doubts(self, said: NDArray[Any]) -> Floats:
        """How unsure probabilities (n, K) are, (n,) in [0, 1]: 1 less the gap of the two best, 0 for a single class."""
        if len(self.classes) < 2:
            return np.zeros(len(said), np.float32)
        best = np.partition(said, -2, axis=1)[:, -2:]
        return (1 - (best[:, 1] - best[:, 0])).astype(np.float32)

    def reaches(self, embeddings: NDArray[Any]) -> Floats:
        """What `weights` is a linear model of, float32: standardised embeddings (n, d), or the hidden layer (n, h)."""
        standardised = (np.asarray(embeddings, np.float32) - self.mean) / self.scale
        if self.hidden is None or self.hidden_bias is None:
            return np.asarray(standardised, np.float32)
        return np.asarray(np.maximum(standardised @ self.hidden + self.hidden_bias, 0), np.float32)

    def linear_inputs(self, embeddings: NDArray[Any]) -> NDArray[Any]:
        """What `folded` is a linear model of: the embeddings (n, d) as they come, or the hidden layer (n, h)."""
        return embeddings if self.hidden is None else self.reaches(embeddings)

    def save(self, path: Path) -> None:
        """Write a safetensors file in one step: readers see the old file or the whole new one."""
        metadata = {"format": self._format, "classes": _classes_json(self.classes), "digest": self.digest}
        payload = to_safetensors(self._tensors(), metadata=metadata)
        with whole(path) as file:
            file.write(payload)

    @classmethod
    def load(cls, path: Path, digest: str | None = None) -> "Head":
        """Read what `save` wrote, checking sizes, shapes and digest (also against ``digest`` when given).

        Raises HeadUnreadable for anything else, however the file was made; it never runs code from the file.
        """
        try:
            if path.stat().st_size > _MAX_FILE_BYTES:
                raise HeadUnreadable(path=path, problem=f"it is larger than {_MAX_FILE_BYTES >> 20} MiB")
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                kind, arrays = _kind(metadata.get("format", ""))
                names = {*arrays, "temperature"}
                if not arrays or set(file.keys()) != names:
                    raise HeadUnreadable(path=path, problem="it is not a head written by nextbatch")
                tensors = {name: file.get_tensor(name) for name in names}
            head = kind(_classes_from(metadata), **_checked(tensors))
        except (OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise HeadUnreadable(path=path, problem=str(error)) from error
        if head.digest != metadata.get("digest") or digest not in (None, head.digest):
            raise HeadUnreadable(path=path, problem="its content does not match its digest")
        return head

    @cached_property
    def folded(self) -> tuple[Floats, Floats]:
        """Weights (d or h, K) and bias (K,) that give the calibrated logits of `linear_inputs`."""
        if self.hidden is not None:
            return self.weights / np.float32(self.temperature), self.bias / np.float32(self.temperature)
        weights = self.weights.astype(np.float64) / (self.scale[:, None].astype(np.float64) * self.temperature)
        bias = self.bias.astype(np.float64) / self.temperature - self.mean.astype(np.float64) @ weights
        return weights.astype(np.float32), bias.astype(np.float32)

    @cached_property
    def _layers(self) -> tuple[tuple[Floats, Floats], ...]:
        """Weights and bias of each layer, on plain embeddings as they come."""
        if self.hidden is None or self.hidden_bias is None:
            return (self.folded,)
        weights = self.hidden.astype(np.float64) / self.scale[:, None]
        bias = self.hidden_bias - self.mean @ weights
        return (weights.astype(np.float32), bias.astype(np.float32)), self.folded

    def _chunks(self, embeddings: NDArray[Any]) -> Iterator[tuple[slice, Floats]]:
        if embeddings.ndim != 2 or embeddings.shape[1] != self.features:
            raise WrongEmbeddingSize(shape=tuple(embeddings.shape), features=self.features)
        product = _product(embeddings, *self._layers)
        for start in range(0, len(embeddings), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            with np.errstate(invalid="ignore", over="ignore"):  # a broken row is NaN, not a warning
                yield rows, product(embeddings[rows])

    def _tensors(self) -> dict[str, NDArray[Any]]:
        arrays = {name: getattr(self, name) for name in self._names()}
        return arrays | {"temperature": np.array([self.temperature], "<f4")}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """What its arrays must look like, by name."""
        k, d = len(self.classes), self.mean.size
        wanted: dict[str, tuple[int, ...]] = {"mean": (d,), "scale": (d,), "bias": (k,), "weights": (d, k)}
        wanted["temperature"] = (1,)
        if self.hidden_bias is not None:
            h = self.hidden_bias.size
            wanted |= {"weights": (h, k), "hidden": (d, h), "hidden_bias": (h,)}
        return wanted

    def _problem(self) -> str | None:
        """What is wrong with its fields, or None."""
        k, arrays, wanted = len(self.classes), self._tensors(), self._shapes()
        if not 1 <= k <= _MAX_CLASSES or len(set(self.classes)) != k:
            return f"{k} classes, {len(set(self.classes))} different ones"
        if {name: array.shape for name, array in arrays.items()} != wanted or min(map(min, wanted.values())) == 0:
            return f"its arrays have the shapes {[array.shape for array in arrays.values()]} for {k} classes"
        if not all(np.isfinite(array).all() for array in arrays.values()):
            return "a number in it is not finite"
        if not ((self.scale > 0).all() and self.temperature > 0 and np.isfinite(self.temperature)):
            return "scale and temperature must be positive"
        return None


def _product(embeddings: NDArray[Any], *layers: tuple[Floats, Floats]) -> Callable[[NDArray[Any]], Floats]:
    """Makes logits of a chunk. Of many chunks torch does all of it, in one piece of memory: it widens float16 with the
    CPU's own instruction, and numpy's threads beside torch's would wait for one another, which took twenty times as
    long. The web process, which has no torch, never has many.
    """
    (weights, bias), *others = layers
    if len(embeddings) < _MANY_ROWS:

        def plain(rows: NDArray[Any]) -> Floats:
            found = np.asarray(rows, dtype=np.float32) @ weights + bias
            for columns, constant in others:
                found = np.maximum(found, 0) @ columns + constant
            return np.asarray(found, np.float32)

        return plain
    import torch

    wide = torch.empty((_CHUNK_ROWS, embeddings.shape[1]))
    (columns, constant), *deeper = [(torch.from_numpy(one), torch.from_numpy(other)) for one, other in layers]

    def product(rows: NDArray[Any]) -> Floats:
        with warnings.catch_warnings(action="ignore"):  # a read-only memory map; it is only read
            narrow = torch.from_numpy(np.ascontiguousarray(rows))
        found = torch.addmm(constant, wide[: len(rows)].copy_(narrow), columns)
        for next_columns, next_constant in deeper:
            found = torch.addmm(next_constant, found.relu_(), next_columns)
        logits: Floats = found.numpy()
        return logits

    return product


def _kind(name: str) -> tuple[type[Head], tuple[str, ...]]:
    """The kind of head that has files of this format, and its arrays; none where nobody has."""
    if name in _ELSEWHERE:
        module, title = _ELSEWHERE[name]
        kind: type[Head] = getattr(importlib.import_module(module), title)
        return kind, kind.arrays
    return Head, {Head.form: Head.arrays, _HIDDEN: _with_hidden(Head.arrays)}.get(name, ())


def _with_hidden(arrays: tuple[str, ...]) -> tuple[str, ...]:
    return (*arrays, "hidden", "hidden_bias")


def _classes_json(classes: tuple[str, ...]) -> str:
    return json.dumps(list(classes), separators=(",", ":"))


def _classes_from(metadata: dict[str, str]) -> tuple[str, ...]:
    classes = json.loads(metadata["classes"])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("its classes are not a list of names")
    return tuple(classes)


def _checked(tensors: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Tensors as the constructor wants them, so that nothing is converted in silence."""
    wrong = [name for name, array in tensors.items() if array.dtype != np.dtype(_TYPES.get(name, "<f4"))]
    if wrong or tensors["temperature"].shape != (1,):
        raise ValueError(f"the tensors {wrong or ['temperature']} have a wrong type or shape")
    return {**tensors, "temperature": float(tensors["temperature"][0])}
