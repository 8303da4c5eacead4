"""Several Tritons are one encoder: the least loaded takes a request, one that dies is left out and taken back."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from backend.errors import EncoderDown
from backend.learning.encoders import EncoderSpec
from backend.pool.decode import decode
from backend.processes import free_port, wait_until
from backend.scoring.local import LocalEncoder
from backend.scoring.pipeline import Scan, ScanConfig, ScanItem
from backend.scoring.repository import model_name
from backend.scoring.servers import TritonServers, addresses, open_triton
from backend.scoring.serving import EmbeddedTriton
from backend.scoring.triton import TritonEncoder
from backend.scoring.vectors import VectorStore
from tests.services.images import files
from tests.services.triton import inferences


@pytest.fixture
def both(triton: EmbeddedTriton, second_triton: EmbeddedTriton, exact: EncoderSpec) -> Iterator[TritonServers]:
    encoder = open_triton(f"{triton.url}, grpc://{second_triton.url}", exact)
    assert isinstance(encoder, TritonServers)
    yield encoder
    encoder.close()


def encoded_by(server: EmbeddedTriton, spec: EncoderSpec) -> int:
    """Images that this server encoded since it started."""
    return inferences(server, model_name(spec.name, spec.digest))


def test_addresses_are_read_as_people_write_them() -> None:
    assert addresses("a:8001, grpc://b:8001,a:8001,") == ("a:8001", "b:8001")


def test_one_address_is_one_server(triton: EmbeddedTriton, exact: EncoderSpec) -> None:
    assert isinstance(open_triton(triton.url, exact), TritonEncoder)


def test_idle_servers_share_the_work(
    both: TritonServers, triton: EmbeddedTriton, second_triton: EmbeddedTriton, exact: EncoderSpec,
    images: NDArray[np.uint8],
) -> None:  # fmt: skip
    before = [encoded_by(server, exact) for server in (triton, second_triton)]

    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda _: both.encode(images[:6]), range(8)))

    def taken() -> list[int]:
        after = [encoded_by(server, exact) for server in (triton, second_triton)]
        return [end - start for start, end in zip(before, after, strict=True)]

    assert wait_until(lambda: sum(taken()) == 48, 60), taken()
    assert min(taken()) >= 12
    expected = LocalEncoder(exact).encode(images[:6])
    for part in rows:
        np.testing.assert_allclose(part, expected, atol=1e-3)


def test_a_busy_server_gets_no_request_while_another_is_idle(
    both: TritonServers, triton: EmbeddedTriton, second_triton: EmbeddedTriton, exact: EncoderSpec,
    images: NDArray[np.uint8],
) -> None:  # fmt: skip
    both.encode(images[:1])
    both.encode(images[:1])
    before = encoded_by(second_triton, exact)
    frozen = psutil.Process(triton.pid)
    frozen.suspend()
    try:
        with ThreadPoolExecutor(1) as pool:
            stuck = pool.submit(both.encode, images[:4])
            if not wait_until(lambda: both._servers[0].under_way == 4 or stuck.done(), 60) or stuck.done():
                stuck.result()  # the idle one had it
                stuck = pool.submit(both.encode, images[:4])
            assert wait_until(lambda: both._servers[0].under_way == 4, 60)
            for _ in range(5):
                both.encode(images[:2])
            frozen.resume()
            assert stuck.result().shape == (4, exact.dims)
    finally:
        frozen.resume()

    assert wait_until(lambda: encoded_by(second_triton, exact) >= before + 10, 60)


def test_a_scan_outlives_a_killed_server_and_takes_it_back(
    both: TritonServers, triton: EmbeddedTriton, second_triton: EmbeddedTriton, exact: EncoderSpec, tmp_path: Path
) -> None:
    paths = files(160)
    store = VectorStore(tmp_path / "vectors", exact.digest, exact.dims)
    done: dict[int, str] = {}
    failed: dict[int, str] = {}
    killed = threading.Event()

    def note(hashes: dict[int, str]) -> None:
        done.update(hashes)
        if not killed.is_set():
            assert second_triton.pid is not None
            os.kill(second_triton.pid, signal.SIGKILL)
            killed.set()

    async def read(uri: str) -> bytes:
        return await asyncio.to_thread(Path(uri).read_bytes)

    config = ScanConfig(minibatch=8, outage_s=20)
    scan = Scan(read, lambda data: decode(data, exact.side), both, store, note, failed.update, config=config)
    report = asyncio.run(scan.run([ScanItem(n, str(path)) for n, path in enumerate(paths)]))
    assert both._servers[1].is_left_out
    second_triton.restart()
    is_back = wait_until(lambda: not both._servers[1].is_left_out, 90)
    before = encoded_by(second_triton, exact)
    both.encode(np.zeros((2, 8, 8, 3), np.uint8))
    both.encode(np.zeros((2, 8, 8, 3), np.uint8))

    assert killed.is_set()
    assert (report.encoded + report.found, failed) == (160, {})
    assert sorted(done) == list(range(160))
    assert (store.locate(list(done.values())) >= 0).all()
    assert is_back
    assert wait_until(lambda: encoded_by(second_triton, exact) == before + 2, 60)


def test_when_all_are_away_the_error_passes(exact: EncoderSpec, images: NDArray[np.uint8]) -> None:
    encoder = open_triton(f"127.0.0.1:{free_port()},127.0.0.1:{free_port()}", exact)

    with pytest.raises(EncoderDown) as first:
        encoder.encode(images[:1])
    with pytest.raises(EncoderDown, match="left out") as second:
        encoder.encode(images[:1])

    assert first.value.is_passing
    assert second.value.is_passing
    encoder.close()


def test_nothing_is_looked_at_after_closing(exact: EncoderSpec, images: NDArray[np.uint8]) -> None:
    encoder = open_triton(f"127.0.0.1:{free_port()},127.0.0.1:{free_port()}", exact)
    with pytest.raises(EncoderDown):
        encoder.encode(images[:1])

    encoder.close()

    looking = lambda: any(thread.name == "triton-look" for thread in threading.enumerate())  # noqa: E731
    assert wait_until(lambda: not looking(), 60)
