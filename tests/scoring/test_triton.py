"""Triton gives what the network gives, to many callers, and says what went wrong."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from backend.errors import EncoderDown, EncoderNotLoaded
from backend.learning.encoders import EncoderSpec, Precision, export
from backend.processes import free_port, wait_until
from backend.scoring import shared_memory
from backend.scoring.local import LocalEncoder
from backend.scoring.serving import EmbeddedTriton
from backend.scoring.triton import TritonEncoder, connect
from tests.services.networks import cosines, lite0_in_torch
from tests.services.triton import put

Images = NDArray[np.uint8]


def regions(server: EmbeddedTriton) -> set[str]:
    client = grpc.InferenceServerClient(server.url)
    try:
        return set(client.get_system_shared_memory_status().regions)
    finally:
        client.close()


def test_embeddings_equal_the_network_in_torch(triton: EmbeddedTriton, exact: EncoderSpec, images: Images) -> None:
    encoder = TritonEncoder(triton.url, exact)

    embeddings = encoder.encode(images)

    assert embeddings.dtype == np.float32
    assert cosines(embeddings, lite0_in_torch(images)).min() > 0.9999
    encoder.close()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_embeddings_are_those_of_the_encoder_in_the_process(
    triton: EmbeddedTriton, encoders: Path, images: Images, precision: Precision
) -> None:
    spec = export("efficientnet-lite0", None, encoders, precision)
    put(triton, spec)
    encoder = TritonEncoder(triton.url, spec)

    np.testing.assert_allclose(encoder.encode(images), LocalEncoder(spec).encode(images), atol=1e-4)
    encoder.close()


@pytest.mark.parametrize("count", [0, 1, 64, 65])
def test_any_number_of_images_comes_back_in_order(
    triton: EmbeddedTriton, exact: EncoderSpec, images: Images, count: int
) -> None:
    encoder = TritonEncoder(triton.url, exact)
    alone = encoder.encode(images)
    order = np.random.default_rng(count).integers(0, len(images), count)

    embeddings = encoder.encode(images[order])

    assert embeddings.shape == (count, exact.dims)
    np.testing.assert_allclose(embeddings, alone[order], atol=1e-4)
    encoder.close()


def test_callers_at_once_with_images_of_all_sizes_each_get_their_own(
    triton: EmbeddedTriton, exact: EncoderSpec
) -> None:
    random = np.random.default_rng(1)
    sizes = [(1, 32, 32), (3, 40, 24), (2, 32, 32), (5, 200, 180), (1, 64, 64), (4, 32, 32), (1, 9, 300), (2, 64, 64)]
    requests = [random.integers(0, 256, (*size, 3), np.uint8) for size in sizes] * 2
    encoder, local = TritonEncoder(triton.url, exact), LocalEncoder(exact)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(encoder.encode, requests))

    for images, embeddings in zip(requests, answers, strict=True):
        np.testing.assert_allclose(embeddings, local.encode(images), atol=1e-3)
    encoder.close()


def test_data_in_the_request_gives_the_same_as_shared_memory(
    triton: EmbeddedTriton, exact: EncoderSpec, images: Images, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared = TritonEncoder(triton.url, exact)
    expected = shared.encode(images)
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)  # as on another host: Triton does not see our segments
    sent = TritonEncoder(triton.url, exact)

    embeddings = sent.encode(images)

    assert shared._connection is not None
    assert shared._connection._is_shared
    assert sent._connection is not None
    assert not sent._connection._is_shared
    np.testing.assert_allclose(embeddings, expected, atol=1e-4)
    shared.close()
    sent.close()


def test_a_call_during_an_outage_waits_for_triton_to_come_back(
    triton: EmbeddedTriton, exact: EncoderSpec, images: Images
) -> None:
    encoder = TritonEncoder(triton.url, exact)
    before = encoder.encode(images)
    assert triton.pid is not None
    os.kill(triton.pid, signal.SIGKILL)
    assert wait_until(lambda: not triton.is_alive(), timeout_s=60)
    back = threading.Thread(target=triton.restart)
    back.start()

    after = encoder.encode(images)

    back.join()
    np.testing.assert_allclose(after, before, atol=1e-4)
    encoder.close()


def test_models_whose_processes_were_killed_are_replaced(
    triton: EmbeddedTriton, exact: EncoderSpec, images: Images
) -> None:
    others = regions(triton)
    encoder = TritonEncoder(triton.url, exact)
    before = encoder.encode(images)
    stubs = [p for p in psutil.Process(triton.pid).children() if exact.digest[:16] in str(p.cmdline())]
    for stub in stubs:
        stub.kill()

    after = encoder.encode(images)

    assert len(stubs) == 2
    np.testing.assert_allclose(after, before, atol=1e-4)
    encoder.close()
    assert regions(triton) <= others


def test_no_triton_is_a_passing_error_within_the_time_given(exact: EncoderSpec, images: Images) -> None:
    encoder = TritonEncoder(f"127.0.0.1:{free_port()}", exact, timeout_s=1)
    started = time.monotonic()

    with pytest.raises(EncoderDown, match="TRITON_URL") as caught:
        encoder.encode(images)

    assert caught.value.is_passing
    assert time.monotonic() - started < 15  # without it, 30


def test_a_frozen_triton_is_a_passing_error_within_the_time_given(
    triton: EmbeddedTriton, exact: EncoderSpec, images: Images
) -> None:
    encoder = TritonEncoder(triton.url, exact)
    expected = encoder.encode(images)
    encoder.timeout_s = 1.0
    frozen = psutil.Process(triton.pid)
    frozen.suspend()
    started = time.monotonic()
    try:
        with pytest.raises(EncoderDown) as caught:
            encoder.encode(images)
        took_s = time.monotonic() - started
    finally:
        frozen.resume()

    assert caught.value.is_passing
    assert took_s < 15  # without it, 30
    encoder.timeout_s = 30.0
    np.testing.assert_allclose(encoder.encode(images), expected, atol=1e-4)
    encoder.close()


def test_a_model_that_is_not_in_the_repository_is_named(
    triton: EmbeddedTriton, exact: EncoderSpec, images: Images
) -> None:
    encoder = TritonEncoder(triton.url, dataclasses.replace(exact, digest="0" * 64))

    with pytest.raises(EncoderNotLoaded, match="efficientnet-lite0-0000000000000000") as caught:
        encoder.encode(images)

    assert caught.value.is_passing  # a scan waits for it, and does not call every item broken


def test_another_encoder_under_this_name_is_refused(triton: EmbeddedTriton, exact: EncoderSpec, images: Images) -> None:
    put(triton, exact)
    encoder = TritonEncoder(triton.url, dataclasses.replace(exact, digest=exact.digest[:16] + "0" * 48))

    with pytest.raises(EncoderNotLoaded, match=exact.digest):
        encoder.encode(images)


def test_closing_gives_back_all_shared_memory(triton: EmbeddedTriton, exact: EncoderSpec, images: Images) -> None:
    encoder = TritonEncoder(triton.url, exact)
    before = regions(triton)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: encoder.encode(images[: n % 5 + 1]), range(12)))
    during = regions(triton)

    encoder.close()

    assert len(during - before) in range(1, 8)  # one a request at once, of four, used again by the next of twelve
    assert regions(triton) <= before
    assert not list(shared_memory.FOLDER.glob(f"{shared_memory.PREFIX}{os.getpid()}-*"))


def test_memory_that_a_request_still_uses_is_given_back_when_that_ends(
    triton: EmbeddedTriton, exact: EncoderSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_memory, "RELEASE_S", 120.0)  # the request takes a second, on a busy machine many
    encoder = TritonEncoder(triton.url, exact)
    pixels = np.zeros((32, 64, 64, 3), np.uint8)
    output_bytes = len(pixels) * exact.dims * 4
    encoder.encode(pixels)
    client = connect(triton.url)

    def under_way() -> shared_memory.Segment:
        segment = shared_memory.Segment(client, output_bytes, output_bytes + pixels.nbytes)
        segment.write(pixels)
        source = grpc.InferInput("images", list(pixels.shape), "UINT8")
        source.set_shared_memory(segment.name, pixels.nbytes, segment.output_bytes)
        client.async_infer(encoder.model, [source], callback=lambda **_: None)
        return segment

    def is_in_use(segment: shared_memory.Segment) -> bool:
        """By its refusal; whoever asks before the request has arrived takes its memory away."""
        try:
            client.unregister_system_shared_memory(segment.name)
        except InferenceServerException as error:
            return "in use" in str(error)
        return False

    segment = next(segment for segment in (under_way() for _ in range(20)) if is_in_use(segment))

    segment.release(client)

    assert segment.name not in regions(triton)
    client.close()
    encoder.close()


def test_a_killed_client_leaves_no_file_and_its_memory_is_swept(
    triton: EmbeddedTriton, exact: EncoderSpec, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import os, signal, sys, numpy as np; from pathlib import Path; from backend.learning.encoders import load; "
        "from backend.scoring.triton import TritonEncoder; encoder = TritonEncoder(sys.argv[1], "
        "load(Path(sys.argv[2]), sys.argv[3])); encoder.encode(np.zeros((2, 32, 32, 3), np.uint8)); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    arguments = [triton.url, str(exact.path.parent.parent), exact.digest]
    with subprocess.Popen([sys.executable, "-c", program, *arguments]) as client:
        assert client.wait(120) == -signal.SIGKILL
        prefix = f"{shared_memory.PREFIX}{client.pid}-"
    left = {name for name in regions(triton) if name.startswith(prefix)}
    files = list(shared_memory.FOLDER.glob(f"{prefix}*"))
    monkeypatch.setattr(shared_memory, "SWEEP_S", 0.0)
    encoder = TritonEncoder(triton.url, exact)

    encoder.encode(images[:1])
    mine = {name for name in regions(triton) if name.startswith(f"{shared_memory.PREFIX}{os.getpid()}-")}

    assert left
    assert not files
    assert mine  # the living keep theirs
    assert not left & regions(triton)
    encoder.close()
