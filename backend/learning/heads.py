"""The head: a linear model from embeddings to class probabilities, and its file.

The web process predicts with it, so this module needs numpy and safetensors and nothing heavier, but for whole pools.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from backend.artefacts import whole
from backend.errors import HeadUnreadable, WrongEmbeddingSize

Floats = NDArray[np.float32]

_FORMAT = "nextbatch-head-1"
_TENSORS = ("mean", "scale", "weights", "bias", "temperature")
_MAX_FILE_BYTES = 512 * 2**20
_MAX_CLASSES = 100_000
_CHUNK_ROWS = 1_024  # 7 MiB of float32 at 1,792 features: read back from the cache
_MANY_ROWS = 8_192  # from here on it pays to import torch


@dataclass(frozen=True, eq=False)
class Head:
    """Multinomial logistic regression on standardised embeddings, calibrated by one temperature.

    ``softmax(((x - mean) / scale @ weights + bias) / temperature)`` with ``mean`` and ``scale`` (d,),
    ``weights`` (d, K), ``bias`` (K,), all float32 and read-only, for K = ``len(classes)``.
    Equal heads have equal digests.
    """

    classes: tuple[str, ...]
    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mean", "scale", "weights", "bias"):
            array = np.array(getattr(self, name), dtype="<f4", order="C")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        object.__setattr__(self, "temperature", float(np.float32(self.temperature)))
        problem = _problem(self)
        if problem:
            raise ValueError(f"not a head: {problem}")

    @property
    def features(self) -> int:
        """d, the size of the embeddings that this head understands."""
        return int(self.mean.shape[0])

    @cached_property
    def digest(self) -> str:
        """sha256 over classes and tensors (hex): the name of what this head computes."""
        digest = hashlib.sha256(_FORMAT.encode())
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

    def save(self, path: Path) -> None:
        """Write a safetensors file in one step: readers see the old file or the whole new one."""
        metadata = {"format": _FORMAT, "classes": _classes_json(self.classes), "digest": self.digest}
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
                if metadata.get("format") != _FORMAT or set(file.keys()) != set(_TENSORS):
                    raise HeadUnreadable(path=path, problem="it is not a head written by nextbatch")
                tensors = {name: file.get_tensor(name) for name in _TENSORS}
            head = cls(_classes_from(metadata), **_checked(tensors))
        except (OSError, SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise HeadUnreadable(path=path, problem=str(error)) from error
        if head.digest != metadata.get("digest") or digest not in (None, head.digest):
            raise HeadUnreadable(path=path, problem="its content does not match its digest")
        return head

    @cached_property
    def folded(self) -> tuple[Floats, Floats]:
        """Weights (d, K) and bias (K,) that give the calibrated logits of plain embeddings, as they come."""
        weights = self.weights.astype(np.float64) / (self.scale[:, None].astype(np.float64) * self.temperature)
        bias = self.bias.astype(np.float64) / self.temperature - self.mean.astype(np.float64) @ weights
        return weights.astype(np.float32), bias.astype(np.float32)

    def _chunks(self, embeddings: NDArray[Any]) -> Iterator[tuple[slice, Floats]]:
        if embeddings.ndim != 2 or embeddings.shape[1] != self.features:
            raise WrongEmbeddingSize(shape=tuple(embeddings.shape), features=self.features)
        product = _product(embeddings, *self.folded)
        for start in range(0, len(embeddings), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            with np.errstate(invalid="ignore", over="ignore"):  # a broken row is NaN, not a warning
                yield rows, product(embeddings[rows])

    def _tensors(self) -> dict[str, Floats]:
        arrays = {name: getattr(self, name) for name in _TENSORS[:-1]}
        return arrays | {"temperature": np.array([self.temperature], "<f4")}


def _product(embeddings: NDArray[Any], weights: Floats, bias: Floats) -> Callable[[NDArray[Any]], Floats]:
    """Makes logits of a chunk. Of many chunks torch does all of it, in one piece of memory: it widens float16 with the
    CPU's own instruction, and numpy's threads beside torch's would wait for one another, which took twenty times as
    long. The web process, which has no torch, never has many.
    """
    if len(embeddings) < _MANY_ROWS:
        return lambda rows: np.asarray(np.asarray(rows, dtype=np.float32) @ weights + bias, np.float32)
    import torch

    wide = torch.empty((_CHUNK_ROWS, embeddings.shape[1]))
    columns, constant = torch.from_numpy(weights), torch.from_numpy(bias)

    def product(rows: NDArray[Any]) -> Floats:
        with warnings.catch_warnings(action="ignore"):  # a read-only memory map; it is only read
            narrow = torch.from_numpy(np.ascontiguousarray(rows))
        logits: Floats = torch.addmm(constant, wide[: len(rows)].copy_(narrow), columns).numpy()
        return logits

    return product


def _classes_json(classes: tuple[str, ...]) -> str:
    return json.dumps(list(classes), separators=(",", ":"))


def _classes_from(metadata: dict[str, str]) -> tuple[str, ...]:
    classes = json.loads(metadata["classes"])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("its classes are not a list of names")
    return tuple(classes)


def _checked(tensors: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Tensors as the constructor wants them; float32 only, so that nothing is converted in silence."""
    wrong = [name for name, array in tensors.items() if array.dtype != np.float32]
    if wrong or tensors["temperature"].shape != (1,):
        raise ValueError(f"the tensors {wrong or ['temperature']} have a wrong type or shape")
    return {**tensors, "temperature": float(tensors["temperature"][0])}


def _problem(head: Head) -> str | None:
    """What is wrong with a head's fields, or None."""
    k, d = len(head.classes), head.mean.size
    if not 1 <= k <= _MAX_CLASSES or len(set(head.classes)) != k:
        return f"{k} classes, {len(set(head.classes))} different ones"
    shapes = (head.mean.shape, head.scale.shape, head.weights.shape, head.bias.shape)
    if shapes != ((d,), (d,), (d, k), (k,)) or d == 0:
        return f"mean, scale, weights and bias have the shapes {shapes} for {k} classes"
    if not all(np.isfinite(array).all() for array in (head.mean, head.scale, head.weights, head.bias)):
        return "a number in it is not finite"
    if not ((head.scale > 0).all() and head.temperature > 0 and np.isfinite(head.temperature)):
        return "scale and temperature must be positive"
    return None
