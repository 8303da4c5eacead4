"""An exported repository is one that a stock Triton serves, and its clients cannot tell it from the embedded one."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from backend.errors import PrecisionNotStock
from backend.learning.encoders import EncoderSpec
from backend.pool.texts import Tokenizer
from backend.scoring.encoder import Encoder
from backend.scoring.local import LocalEncoder
from backend.scoring.repository import MAX_BATCH, write_model
from backend.scoring.stock import write_stock_model


def parsed(folder: Path) -> ModelConfig:
    return text_format.Parse((folder / "config.pbtxt").read_text(), ModelConfig())


def lowest_cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


@pytest.fixture(scope="module")
def embedded(exact: EncoderSpec) -> Encoder:
    return LocalEncoder(exact)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_config_is_tritons_own_and_names_what_the_embedded_one_names(
    tmp_path: Path, exact: EncoderSpec, device: Literal["cpu", "gpu"]
) -> None:
    embedded = write_model(tmp_path / "embedded", exact.name, exact.path, exact.digest, exact.dims, exact.precision)

    name = write_stock_model(tmp_path / "stock", exact, device, instances=3)

    stock, ours = parsed(tmp_path / "stock" / name), parsed(tmp_path / "embedded" / embedded)
    assert stock.name == name == embedded
    assert (stock.backend, stock.max_batch_size) == ("onnxruntime", MAX_BATCH)
    assert list(stock.input) == list(ours.input)
    assert list(stock.output) == list(ours.output)
    assert stock.dynamic_batching.max_queue_delay_microseconds == ours.dynamic_batching.max_queue_delay_microseconds
    assert stock.parameters["digest"].string_value == exact.digest
    (group,) = stock.instance_group
    assert group.kind == (ModelInstanceGroup.KIND_CPU if device == "cpu" else ModelInstanceGroup.KIND_GPU)
    assert group.count == 3
    assert sorted(one.batch_size for one in stock.model_warmup) == [1, MAX_BATCH]
    for one in stock.model_warmup:
        assert list(one.inputs["images"].dims) == [exact.side, exact.side, 3]
        assert one.inputs["images"].data_type == DataType.TYPE_UINT8
    cuda = [one for one in stock.optimization.execution_accelerators.gpu_execution_accelerator if one.name == "cuda"]
    assert [one.parameters["use_tf32"] for one in cuda] == (["0"] if device == "gpu" else [])


def test_it_is_the_same_file_and_onnx_runtime_gives_the_embedded_engines_embeddings(
    tmp_path: Path, exact: EncoderSpec, embedded: Encoder, images: NDArray[np.uint8]
) -> None:
    name = write_stock_model(tmp_path, exact, "cpu", instances=1)
    path = tmp_path / name / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    large = images.repeat(6, axis=1).repeat(6, axis=2)[:8]

    (small_rows,) = session.run(["embeddings"], {"images": images})
    (large_rows,) = session.run(["embeddings"], {"images": large})

    assert path.read_bytes() == exact.path.read_bytes()
    assert lowest_cosine(small_rows, embedded.encode(images)) >= 0.9999
    assert lowest_cosine(large_rows, embedded.encode(large)) >= 0.9999


def test_a_text_encoder_is_served_by_its_tokens(tmp_path: Path, minilm: EncoderSpec) -> None:
    name = write_stock_model(tmp_path, minilm, "cpu", instances=1)
    tokenizer = Tokenizer(minilm.tokenizer, minilm.side)
    texts = [tokenizer(text.encode()) for text in ("a bird in the hand", "two in the bush, and a much longer sentence")]
    tokens = np.zeros((len(texts), max(map(len, texts))), np.int32)
    for place, text in enumerate(texts):
        tokens[place, : len(text)] = text
    session = onnxruntime.InferenceSession(tmp_path / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])

    (rows,) = session.run(["embeddings"], {"tokens": tokens})

    config = parsed(tmp_path / name)
    assert [(one.name, one.data_type, list(one.dims)) for one in config.input] == [
        ("tokens", DataType.TYPE_INT32, [-1])
    ]
    assert [list(one.inputs["tokens"].dims) for one in config.model_warmup] == [[minilm.side]] * 2
    assert lowest_cosine(rows, LocalEncoder(minilm).encode(tokens)) >= 0.9999


def test_another_precision_is_refused_because_its_vectors_would_be_others(tmp_path: Path, exact: EncoderSpec) -> None:
    with pytest.raises(PrecisionNotStock, match="NEXTBATCH_PRECISION=fp32"):
        write_stock_model(tmp_path, dataclasses.replace(exact, precision="bf16"), "cpu", instances=1)
