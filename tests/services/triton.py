"""A real Triton and real encoders once a session; images of CIFAR-10 where they are at hand."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from backend.learning.encoders import EncoderSpec, export
from backend.scoring import repository, serving
from backend.scoring.triton import connect
from tests.services.images import files


@pytest.fixture(scope="session")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="session")
def exact(encoders: Path) -> EncoderSpec:
    return export("efficientnet-lite0", None, encoders, "fp32")


@pytest.fixture(scope="session")
def minilm(encoders: Path) -> EncoderSpec:
    """The text encoder."""
    return export("all-minilm-l6-v2", None, encoders, "fp32")


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """(24, 32, 32, 3) RGB."""
    return np.stack([np.asarray(Image.open(path).convert("RGB").resize((32, 32))) for path in files(24)])


@pytest.fixture(scope="session")
def shared_triton(tmp_path_factory: pytest.TempPathFactory, exact: EncoderSpec) -> Iterator[serving.EmbeddedTriton]:
    """Triton with the fp32 encoder in its repository. Missing, it fails in CI and skips elsewhere."""
    is_fit, reason = serving.is_supported()
    if not is_fit and not os.environ.get("CI"):
        pytest.skip(reason)
    server = serving.EmbeddedTriton(tmp_path_factory.mktemp("triton"))
    server.start()
    put(server, exact)
    yield server
    server.stop()


@pytest.fixture
def triton(shared_triton: serving.EmbeddedTriton) -> serving.EmbeddedTriton:
    """It runs, whatever the test before did to it."""
    if not shared_triton.is_alive():
        shared_triton.restart()
    return shared_triton


@pytest.fixture(scope="session")
def other_triton(tmp_path_factory: pytest.TempPathFactory, exact: EncoderSpec) -> Iterator[serving.EmbeddedTriton]:
    server = serving.EmbeddedTriton(tmp_path_factory.mktemp("second"))
    put(server, exact)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def second_triton(other_triton: serving.EmbeddedTriton) -> serving.EmbeddedTriton:
    """Another one with the same encoder; it runs, whatever the test before did to it."""
    if not other_triton.is_alive():
        other_triton.restart()
    return other_triton


def inferences(server: serving.EmbeddedTriton, model: str) -> int:
    """What this server has counted for the model. It counts an answer shortly after sending it: wait for a number."""
    with closing(connect(server.url)) as client:
        if not client.is_model_ready(model):
            return 0
        (found,) = client.get_inference_statistics(model).model_stats
        return int(found.inference_count)


def put(server: serving.EmbeddedTriton, spec: EncoderSpec) -> str:
    return repository.write_model(
        server.repository, spec.name, spec.path, spec.digest, spec.dims, spec.precision, spec.kind
    )
