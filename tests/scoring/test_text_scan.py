"""Texts go through the same stages as images: by length, in Triton or here, each with its own vector or reason."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.learning.encoders import EncoderSpec
from backend.pool.texts import Tokenizer
from backend.scoring.local import LocalEncoder
from backend.scoring.pipeline import Scan, ScanConfig, ScanItem, ScanReport
from backend.scoring.serving import EmbeddedTriton
from backend.scoring.triton import TritonEncoder
from backend.scoring.vectors import VectorStore
from tests.services.texts import written
from tests.services.triton import put

Tokens = NDArray[np.int32]


class Counting:
    """The real encoder; remembers the minibatches that it was given."""

    def __init__(self, encoder: LocalEncoder) -> None:
        self.digest, self.dims, self.side = encoder.digest, encoder.dims, encoder.side
        self.minibatches: list[Tokens] = []
        self._encoder = encoder

    def encode(self, inputs: Tokens) -> NDArray[np.float32]:
        self.minibatches.append(inputs)
        return self._encoder.encode(inputs)


@pytest.fixture(scope="module")
def local(minilm: EncoderSpec) -> LocalEncoder:
    return LocalEncoder(minilm)


@pytest.fixture
def store(tmp_path: Path, minilm: EncoderSpec) -> VectorStore:
    return VectorStore(tmp_path / "vectors", minilm.digest, minilm.dims)


def scan(
    texts: Sequence[bytes], spec: EncoderSpec, encoder: Counting, store: VectorStore
) -> tuple[ScanReport, dict[int, str], dict[int, str]]:
    done: dict[int, str] = {}
    failed: dict[int, str] = {}

    async def fetch(uri: str) -> bytes:
        return texts[int(uri)]

    tokenizer = Tokenizer(spec.tokenizer, spec.side)
    config = ScanConfig(fetches=16, minibatch=8)
    stages = Scan(fetch, tokenizer, encoder, store, done.update, failed.update, config=config)
    report = asyncio.run(stages.run((ScanItem(n, str(n)) for n in range(len(texts))), len(texts)))
    return report, done, failed


def test_minibatches_are_of_one_length_and_every_text_gets_its_own_vector(
    minilm: EncoderSpec, local: LocalEncoder, store: VectorStore
) -> None:
    sentences = [text for text, _ in written()]
    texts = [" ".join(sentences[n : n + 1 + n % 5]).encode() for n in range(len(sentences))]
    encoder, tokenizer = Counting(local), Tokenizer(minilm.tokenizer, minilm.side)

    report, done, failed = scan(texts, minilm, encoder, store)

    assert (report.encoded, failed) == (len(texts), {})
    assert done == {n: hashlib.sha256(text).hexdigest() for n, text in enumerate(texts)}
    alone = np.concatenate([local.encode(tokenizer(text)[None]) for text in texts])
    stored = store.gather([done[n] for n in range(len(texts))]).astype(np.float32)
    np.testing.assert_allclose(stored, alone, atol=1e-3)  # float16 in the store
    assert Counter(len(tokenizer(text)) for text in texts) == sum(
        (Counter({batch.shape[1]: len(batch)}) for batch in encoder.minibatches), Counter()
    )
    tokens = sum(batch.size for batch in encoder.minibatches)
    assert sum(np.count_nonzero(batch == 0) for batch in encoder.minibatches) < 0.15 * tokens


def test_hostile_texts_fail_alone_each_with_its_reason(
    minilm: EncoderSpec, local: LocalEncoder, store: VectorStore
) -> None:
    texts = [
        b"a good text",
        b"",
        b"PK\x03\x04\0\0",
        b"caf\xe9",
        b"y" * (2**20 + 1),
        b"\x07\x07",
        b"z" * 2**20,
        b"the last one",
    ]

    report, done, failed = scan(texts, minilm, Counting(local), store)

    assert sorted(done) == [0, 6, 7]
    assert report.failed == 5
    for place, words in {1: "empty", 2: "bytes are zero", 3: "byte 3", 4: "1048577 bytes", 5: "control"}.items():
        assert words in failed[place]


def test_triton_and_this_process_give_the_same(
    triton: EmbeddedTriton, minilm: EncoderSpec, local: LocalEncoder
) -> None:
    put(triton, minilm)
    encoder, tokenizer = TritonEncoder(triton.url, minilm), Tokenizer(minilm.tokenizer, minilm.side)
    by_length: dict[int, list[Tokens]] = {}
    for text, _ in written()[:12]:
        for copies in (1, 3, 20):
            tokens = tokenizer(" ".join([text] * copies).encode())
            by_length.setdefault(len(tokens), []).append(tokens)

    found = {length: encoder.encode(np.stack(rows)) for length, rows in by_length.items()}

    for length, rows in by_length.items():
        np.testing.assert_allclose(found[length], local.encode(np.stack(rows)), atol=1e-5)
    assert max(by_length) == minilm.side
    encoder.close()
