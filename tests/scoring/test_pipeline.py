"""A scan encodes what is new, names what is broken, outlasts outages and can be stopped at any moment."""

import asyncio
import hashlib
import io
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from backend.errors import EncoderDown, EncoderFailed, FetchFailed
from backend.learning.encoders import EncoderSpec
from backend.pool.decode import decode
from backend.scoring import places
from backend.scoring.encoder import Encoder
from backend.scoring.local import LocalEncoder
from backend.scoring.pipeline import Scan, ScanConfig, ScanItem, ScanReport
from backend.scoring.serving import EmbeddedTriton
from backend.scoring.triton import TritonEncoder
from backend.scoring.vectors import VectorStore
from tests.services import images


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """120 distinct image files."""
    return [path.read_bytes() for path in images.files(120)]


@pytest.fixture
def pool(tmp_path: Path, pictures: list[bytes]) -> Path:
    folder = tmp_path / "pool"
    folder.mkdir()
    for number, data in enumerate(pictures):
        (folder / f"{number:03d}").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def encoder(exact: EncoderSpec) -> LocalEncoder:
    return LocalEncoder(exact)


@pytest.fixture
def store(tmp_path: Path, exact: EncoderSpec) -> VectorStore:
    return VectorStore(tmp_path / "vectors", exact.digest, exact.dims)


async def read(uri: str) -> bytes:
    try:
        return await asyncio.to_thread(Path(uri).read_bytes)
    except OSError as error:
        raise FetchFailed(uri=uri, problem=error) from error


def content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Scanned:
    """A scan of a folder's files, and what it told."""

    encoder: Encoder
    store: VectorStore
    config: ScanConfig = field(default_factory=lambda: ScanConfig(fetches=8))
    cancel: threading.Event = field(default_factory=threading.Event)
    done: dict[int, str] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    progress: list[tuple[int, int]] = field(default_factory=list)

    def run(self, paths: Sequence[Path], fetch: Callable[[str], Awaitable[bytes]] | None = None) -> ScanReport:
        scan = Scan(
            fetch or read,
            lambda data: decode(data, self.encoder.side),
            self.encoder,
            self.store,
            self.done.update,
            self.failed.update,
            lambda done, total: self.progress.append((done, total)),
            self.cancel,
            self.config,
        )
        items = (ScanItem(key, str(path)) for key, path in enumerate(paths))
        return asyncio.run(scan.run(items, len(paths)))


class Refusing:
    """The real encoder, which refuses what `is_refused` says of an image, and counts what it is given."""

    def __init__(self, encoder: LocalEncoder, is_refused: Callable[[NDArray[np.uint8]], bool]) -> None:
        self.digest, self.dims, self.side = encoder.digest, encoder.dims, encoder.side
        self.images = 0
        self._encoder = encoder
        self._is_refused = is_refused

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.images += len(images)
        if any(self._is_refused(image) for image in images):
            raise EncoderFailed(count=len(images), shape=images.shape[1:], problem="refused")
        return self._encoder.encode(images)


def test_every_item_is_encoded_once_and_a_second_scan_encodes_nothing(
    pool: Path, encoder: LocalEncoder, store: VectorStore
) -> None:
    paths = sorted(pool.iterdir())
    first, second = Scanned(encoder, store), Scanned(Refusing(encoder, lambda _image: True), store)

    report = first.run(paths)
    again = second.run(paths)

    assert (report.encoded, report.found, report.failed) == (120, 0, 0)
    assert first.done == {key: content(path) for key, path in enumerate(paths)}
    images = np.stack([decode(path.read_bytes(), encoder.side) for path in paths])
    stored = store.gather([first.done[key] for key in range(120)]).astype(np.float32)
    np.testing.assert_allclose(stored, encoder.encode(images), atol=4e-3)
    assert (again.encoded, again.found, again.minibatches) == (0, 120, 0)
    assert second.done == first.done
    assert first.progress[-1] == (120, 120)


def test_broken_items_are_named_and_the_rest_goes_on(pool: Path, encoder: LocalEncoder, store: VectorStore) -> None:
    (pool / "005").write_bytes(b"<html>please log in</html>")
    (pool / "007").unlink()
    (pool / "009").write_bytes((pool / "009").read_bytes()[:60])
    os.mkfifo(pool / "stuck")
    paths = [*sorted(pool.glob("[0-9]*")), pool / "007", pool / "stuck"]

    async def fetch(uri: str) -> bytes:
        if uri.endswith("stuck"):
            await asyncio.sleep(3600)
        return await read(uri)

    scanned = Scanned(encoder, store, ScanConfig(fetches=8, fetch_timeout_s=2))
    started = time.monotonic()
    report = scanned.run(paths, fetch)

    assert time.monotonic() - started < 60
    keys = {path.name: key for key, path in enumerate(paths)}
    assert set(scanned.failed) == {keys[name] for name in ("005", "007", "009", "stuck")}
    assert "web page" in scanned.failed[keys["005"]]
    assert "No such file" in scanned.failed[keys["007"]]
    assert "2 s" in scanned.failed[keys["stuck"]]
    assert report.encoded == len(scanned.done) == len(paths) - 4


def test_reads_that_hang_do_not_keep_the_others_from_being_read(
    pool: Path, encoder: LocalEncoder, store: VectorStore
) -> None:
    paths, at_once = sorted(pool.iterdir())[:60], [0]
    others_are_read, left = asyncio.Event(), set(paths[12:])

    async def fetch(uri: str) -> bytes:
        """The first twelve answer when all the others have been read."""
        at_once.append(at_once[-1] + 1)
        try:
            if Path(uri) in paths[:12]:
                await others_are_read.wait()
            left.discard(Path(uri))
            if not left:
                others_are_read.set()
            return await read(uri)
        finally:
            at_once.append(at_once[-1] - 1)

    scanned = Scanned(encoder, store, ScanConfig(fetches=8, fetch_timeout_s=60))
    report = scanned.run(paths, fetch)

    assert not scanned.failed
    assert report.encoded == 60
    assert 12 < max(at_once) <= 16


def test_of_reads_that_hang_no_more_leave_their_place_than_there_are_places(
    pool: Path, encoder: LocalEncoder, store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "HANGS_S", 0.01)
    at_once, are_many = [0], asyncio.Event()

    async def fetch(uri: str) -> bytes:
        at_once.append(at_once[-1] + 1)
        if at_once[-1] == 16:
            are_many.set()
        await are_many.wait()
        await asyncio.sleep(0.05)  # time enough for others to begin, if they may
        at_once.append(at_once[-1] - 1)
        return await read(uri)

    scanned = Scanned(encoder, store, ScanConfig(fetches=8, fetch_timeout_s=60))
    scanned.run(sorted(pool.iterdir())[:60], fetch)

    assert len(scanned.done) == 60
    assert max(at_once) == 16


def test_a_source_that_is_slow_as_a_rule_is_not_taken_for_one_that_hangs() -> None:
    all_places = places.Places(8)
    for _ in range(200):
        all_places.read_in(3.0)

    assert places.Places(8).patience_s == places.HANGS_S
    assert 9 < all_places.patience_s < 12.1


def test_equal_contents_are_encoded_once(pool: Path, encoder: LocalEncoder, store: VectorStore) -> None:
    counting = Refusing(encoder, lambda _image: False)
    paths = [path for path in sorted(pool.iterdir())[:20] for _ in range(5)]

    scanned = Scanned(counting, store)
    report = scanned.run(paths)

    assert counting.images == 20 == len(store)
    assert (report.encoded, report.found) == (20, 80)
    assert scanned.done == {key: content(path) for key, path in enumerate(paths)}


def test_one_image_that_the_encoder_refuses_fails_alone(pool: Path, encoder: LocalEncoder, store: VectorStore) -> None:
    black = io.BytesIO()
    Image.new("RGB", (32, 32)).save(black, "PNG")
    (pool / "010").write_bytes(black.getvalue())
    paths = sorted(pool.iterdir())

    scanned = Scanned(Refusing(encoder, lambda image: not image.any()), store)
    report = scanned.run(paths)

    assert list(scanned.failed) == [10]
    assert "refused" in scanned.failed[10]
    assert report.encoded == 119


def test_an_encoder_that_refuses_everything_condemns_no_item(
    pool: Path, encoder: LocalEncoder, store: VectorStore
) -> None:
    scanned = Scanned(Refusing(encoder, lambda _image: True), store)

    with pytest.raises(EncoderFailed):
        scanned.run(sorted(pool.iterdir()))

    assert len(store) == 0


def test_images_of_many_shapes_share_a_scan(tmp_path: Path, encoder: LocalEncoder, store: VectorStore) -> None:
    paths = []
    for side in range(20, 60):
        for copy in range(2):
            paths.append(tmp_path / f"{side}-{copy}.png")
            pixels = np.random.default_rng(side + 100 * copy).integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(pixels).save(paths[-1])

    report = Scanned(encoder, store).run(paths)

    assert report.encoded == 80
    assert store.verify().damaged == ()


def test_a_source_that_is_away_for_a_while_condemns_no_item(
    pool: Path, encoder: LocalEncoder, store: VectorStore
) -> None:
    away = pool.with_name("away")
    paths = sorted(pool.iterdir())
    pool.rename(away)
    back = threading.Timer(1.0, away.rename, [pool])
    back.start()

    scanned = Scanned(encoder, store)
    report = scanned.run(paths)

    back.join()
    assert (report.encoded, report.failed) == (120, 0)


def test_a_source_that_stays_away_ends_the_scan_with_its_reason(
    pool: Path, encoder: LocalEncoder, store: VectorStore
) -> None:
    scanned = Scanned(encoder, store, ScanConfig(fetches=8, outage_s=0.5))

    with pytest.raises(FetchFailed, match="No such file"):
        scanned.run([pool / f"missing-{n}" for n in range(50)])

    assert scanned.failed == {}


def test_a_scan_outlasts_a_triton_that_is_killed(
    pool: Path, triton: EmbeddedTriton, exact: EncoderSpec, store: VectorStore
) -> None:
    encoder = TritonEncoder(triton.url, exact, timeout_s=5)
    scanned = Scanned(encoder, store, ScanConfig(fetches=8, minibatch=8))
    killed = threading.Event()

    def kill() -> None:
        deadline = time.monotonic() + 120
        while len(store) < 16 and time.monotonic() < deadline:
            killed.wait(0.02)
        assert triton.pid is not None
        os.kill(triton.pid, 9)
        triton.restart()
        killed.set()

    killer = threading.Thread(target=kill)
    killer.start()
    report = scanned.run(sorted(pool.iterdir()))
    killer.join()
    encoder.close()

    assert killed.is_set()
    assert (report.encoded, report.failed) == (120, 0)
    assert store.verify().damaged == ()


@pytest.mark.parametrize("stuck", ["source", "encoder", "nothing"])
def test_a_cancelled_scan_ends_at_once_and_the_next_goes_on(
    pool: Path, encoder: LocalEncoder, store: VectorStore, stuck: str
) -> None:
    paths = sorted(pool.iterdir())

    async def fetch(uri: str) -> bytes:
        if stuck == "source" and uri > str(paths[40]):
            await asyncio.sleep(3600)
        return await read(uri)

    class Away(Refusing):
        def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            if stuck == "encoder" and self.images > 30:
                raise EncoderDown(url="127.0.0.1:1", problem="nobody listens")
            return super().encode(images)

    scanned = Scanned(Away(encoder, lambda _image: False), store, ScanConfig(fetches=8, minibatch=8, in_flight=2))
    cancelled_at: list[float] = []

    def cancel() -> None:
        deadline = time.monotonic() + 120
        while len(store) < 16 and time.monotonic() < deadline:
            scanned.cancel.wait(0.02)
        cancelled_at.append(time.monotonic())
        scanned.cancel.set()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    report = scanned.run(paths, fetch)
    ended = time.monotonic()
    canceller.join()

    assert report.is_cancelled
    assert ended - cancelled_at[0] < 5  # a second on a machine that does nothing else; what is stuck is for an hour
    assert (store.locate(list(scanned.done.values())) >= 0).all()
    assert store.verify().damaged == ()
    again = Scanned(encoder, store).run(paths)
    assert (again.encoded + again.found, again.failed) == (120, 0)
    assert again.found >= len(scanned.done) > 0


def test_what_is_held_does_not_grow_with_the_pool(pool: Path, encoder: LocalEncoder, store: VectorStore) -> None:
    config = ScanConfig(fetches=4, minibatch=4, in_flight=1)
    paths = sorted(pool.iterdir())
    scanned = Scanned(encoder, store, config)
    drawn = 0
    most = 0

    def draw() -> Iterator[ScanItem]:
        nonlocal drawn, most
        for key, path in enumerate(paths):
            drawn += 1
            most = max(most, drawn - len(store))
            yield ScanItem(key, str(path))

    scan = Scan(
        read, lambda data: decode(data, 192), encoder, store, scanned.done.update, scanned.failed.update, config=config
    )
    asyncio.run(scan.run(draw()))

    assert len(scanned.done) == 120
    # The queue before the fetchers, the fetchers, the queue behind them, one open minibatch and one under way.
    assert most <= 4 + 4 + 4 + 2 * 4 + 2


def test_an_error_of_the_caller_ends_the_scan(pool: Path, encoder: LocalEncoder, store: VectorStore) -> None:
    def broken(_hashes: dict[int, str]) -> None:
        raise RuntimeError("the database is gone")

    scan = Scan(read, lambda data: decode(data, 192), encoder, store, broken, lambda _reasons: None)

    with pytest.raises(RuntimeError, match="the database is gone"):
        asyncio.run(scan.run(ScanItem(n, str(path)) for n, path in enumerate(sorted(pool.iterdir()))))
