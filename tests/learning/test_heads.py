"""The head's arithmetic, its file, and what a hostile file may not do."""

import json
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from scipy.special import softmax

from backend.errors import HeadUnreadable, WrongEmbeddingSize
from backend.learning import heads
from backend.learning.heads import Head


def a_head(seed: int = 0, d: int = 12, k: int = 4, temperature: float = 1.3, hidden: int = 0) -> Head:
    """Linear, or with a hidden layer of that size."""
    random = np.random.default_rng(seed)
    return Head(
        tuple(f"class {index} é" for index in range(k)),
        random.normal(size=d),
        random.uniform(0.1, 3, d),
        random.normal(size=(hidden or d, k)),
        random.normal(size=k),
        temperature,
        *((random.normal(size=(d, hidden)), random.normal(size=hidden)) if hidden else ()),
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 50),
    d=st.integers(1, 40),
    k=st.integers(1, 9),
    size=st.sampled_from([1e-3, 1.0, 1e3]),
    dtype=st.sampled_from([np.float16, np.float32]),
)
def test_probabilities_are_the_definition_and_sum_to_one(
    seed: int, n: int, d: int, k: int, size: float, dtype: type
) -> None:
    head = a_head(seed, d, k)
    x = (np.random.default_rng(seed + 1).normal(size=(n, d)) * size).astype(dtype)

    found = head.predict(x)

    plain = (x.astype(np.float64) - head.mean) / head.scale @ head.weights.astype(np.float64) + head.bias
    assert found.shape == (n, k)
    assert found.dtype == np.float32
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found, softmax(plain / head.temperature, axis=1), atol=2e-5 * max(1, size))
    np.testing.assert_allclose(softmax(head.logits(x), axis=1), found, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_the_chunk_size_does_not_change_the_answer(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    head, x = a_head(), np.random.default_rng(3).normal(size=(100, 12)).astype(np.float16)
    whole = head.predict(x)
    monkeypatch.setattr(heads, "_CHUNK_ROWS", rows)

    chunked = head.predict(x)

    np.testing.assert_allclose(chunked, whole, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), n=st.integers(0, 40), d=st.integers(1, 20), h=st.integers(1, 9), k=st.integers(1, 5))
def test_a_perceptrons_probabilities_are_the_definition(seed: int, n: int, d: int, h: int, k: int) -> None:
    head = a_head(seed, d, k, hidden=h)
    x = np.random.default_rng(seed + 1).normal(size=(n, d)).astype(np.float16)
    assert head.hidden is not None

    found = head.predict(x)

    inside = np.maximum((x.astype(np.float64) - head.mean) / head.scale @ head.hidden + head.hidden_bias, 0)
    np.testing.assert_allclose(
        found, softmax((inside @ head.weights + head.bias) / head.temperature, axis=1), atol=1e-4
    )
    np.testing.assert_allclose(head.reaches(x), inside, atol=1e-3)
    weights, bias = head.folded
    np.testing.assert_allclose(softmax(head.linear_inputs(x) @ weights + bias, axis=1), found, atol=1e-4)
    assert head.parameters == 2 * d + d * h + h + h * k + k + 1


def test_a_linear_head_reaches_standardised_embeddings_and_folds_them_in() -> None:
    head, x = a_head(), np.random.default_rng(1).normal(size=(6, 12)).astype(np.float32)

    logits = head.linear_inputs(x) @ head.folded[0] + head.folded[1]

    np.testing.assert_allclose(logits, (head.reaches(x) @ head.weights + head.bias) / head.temperature, atol=1e-4)
    assert head.parameters == 2 * 12 + 12 * 4 + 4 + 1


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_whole_pool_is_predicted_as_its_parts_are(hidden: int) -> None:
    head, x = a_head(hidden=hidden), np.random.default_rng(3).normal(size=(9_001, 12)).astype(np.float16)
    x[4_000, 1] = np.nan

    found = head.predict(x)

    parts = np.concatenate([head.predict(x[start : start + 500]) for start in range(0, len(x), 500)])
    np.testing.assert_allclose(found, parts, atol=1e-6)
    assert np.isnan(found[4_000]).all()


def test_a_broken_row_is_nan_and_leaves_the_others_alone() -> None:
    head, x = a_head(), np.random.default_rng(3).normal(size=(5, 12)).astype(np.float16)
    clean = head.predict(x)
    x[2, 4], x[3, 0] = np.nan, np.inf

    found = head.predict(x)

    assert np.isnan(found[2:4]).all()
    np.testing.assert_array_equal(found[[0, 1, 4]], clean[[0, 1, 4]])


def test_embeddings_of_another_encoder_are_refused() -> None:
    with pytest.raises(WrongEmbeddingSize, match="12 features"):
        a_head().predict(np.zeros((3, 13), np.float16))


@pytest.mark.parametrize("hidden", [0, 5])
def test_a_saved_head_comes_back_bit_for_bit(hidden: int, tmp_path: Path) -> None:
    head = a_head(hidden=hidden)

    head.save(tmp_path / "new" / "head.safetensors")
    again = Head.load(tmp_path / "new" / "head.safetensors", digest=head.digest)

    x = np.random.default_rng(0).normal(size=(9, 12)).astype(np.float32)
    assert (again.digest, again.classes) == (head.digest, head.classes)
    np.testing.assert_array_equal(again.predict(x), head.predict(x))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["head.safetensors"]


def test_the_digest_tells_heads_apart() -> None:
    head = a_head()
    other = [
        Head(head.classes[::-1], head.mean, head.scale, head.weights, head.bias, head.temperature),
        Head(head.classes, head.mean, head.scale, head.weights, head.bias, head.temperature + 0.01),
        Head(head.classes, head.mean, head.scale, -head.weights, head.bias, head.temperature),
    ]

    assert a_head().digest == head.digest
    assert len({head.digest, *(one.digest for one in other)}) == 4


def test_a_head_cannot_be_changed_through_the_arrays_it_was_made_of() -> None:
    weights = np.ones((2, 2), np.float32)
    head = Head(("a", "b"), np.zeros(2), np.ones(2), weights, np.zeros(2))

    weights[:] = 5

    assert (head.weights == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        head.weights[0, 0] = 2


def spoil(path: Path, how: str) -> None:
    tensors = {
        "mean": np.zeros(3, np.float32),
        "scale": np.ones(3, np.float32),
        "weights": np.zeros((3, 2), np.float32),
        "bias": np.zeros(2, np.float32),
        "temperature": np.ones(1, np.float32),
    }
    metadata = {"format": "nextbatch-head-1", "classes": '["a","b"]', "digest": "0" * 64}
    match how:
        case "pickle":
            path.write_bytes(pickle.dumps({"weights": [1, 2]}))
            return
        case "empty":
            path.write_bytes(b"")
            return
        case "huge header":
            path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
            return
        case "cut":
            a_head().save(path)
            path.write_bytes(path.read_bytes()[:-40])
            return
        case "bit flip":
            a_head().save(path)
            payload = bytearray(path.read_bytes())
            payload[-3] ^= 1
            path.write_bytes(bytes(payload))
            return
        case "foreign":
            metadata = {}
        case "missing tensor":
            del tensors["bias"]
        case "wrong shape":
            tensors["weights"] = np.zeros((2, 3), np.float32)
        case "wrong type":
            tensors["mean"] = np.zeros(3, np.float64)  # type: ignore[assignment]  # the point of the case
        case "nan":
            tensors["bias"][0] = np.nan
        case "zero scale":
            tensors["scale"][0] = 0
        case "classes no list":
            metadata["classes"] = '{"a": 1}'
        case "deep classes":
            metadata["classes"] = "[" * 100_000
        case "double classes":
            metadata["classes"] = '["a","a"]'
    save_file(tensors, path, metadata=metadata)


@pytest.mark.parametrize(
    "how",
    [
        "pickle",
        "empty",
        "huge header",
        "cut",
        "bit flip",
        "foreign",
        "missing tensor",
        "wrong shape",
        "wrong type",
        "nan",
        "zero scale",
        "classes no list",
        "deep classes",
        "double classes",
        "wrong digest",
    ],
)
def test_a_hostile_or_broken_file_is_a_clear_error(how: str, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    spoil(path, how)

    with pytest.raises(HeadUnreadable, match=r"head\.safetensors"):
        Head.load(path)


def test_a_missing_file_and_an_unexpected_digest_are_clear_errors(tmp_path: Path) -> None:
    a_head().save(tmp_path / "head")

    with pytest.raises(HeadUnreadable):
        Head.load(tmp_path / "nothing")
    with pytest.raises(HeadUnreadable, match="digest"):
        Head.load(tmp_path / "head", digest=a_head(1).digest)


def test_predicting_imports_no_torch_and_no_sklearn(tmp_path: Path) -> None:
    a_head().save(tmp_path / "head")
    program = (
        "import sys, json, numpy as np; from pathlib import Path; from backend.learning.heads import Head\n"
        f"Head.load(Path({str(tmp_path / 'head')!r})).predict(np.zeros((2, 12), np.float16))\n"
        "print(json.dumps([name for name in ('torch', 'sklearn', 'scipy') if name in sys.modules]))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert json.loads(done.stdout) == []
