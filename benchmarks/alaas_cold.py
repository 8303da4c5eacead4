"""From files to picks where nothing is stored: our scan, and the loop that one writes around a library of picks."""

import asyncio
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import selection

SCANNED, LOOPED = 8_000, 640
_MINIBATCH = 16


def measure(out: Path, budget: int, has_peers: bool) -> dict[str, Any]:
    """images_s of our scan; for each peer images_s of a loop and select_s of its least confidence over 40,000."""
    kept = out / ("cold.json" if has_peers else "cold-alone.json")
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    found = {"images_s": _alone("scan", SCANNED), "images": SCANNED, "peers": {}}
    if has_peers:
        rate = _alone("loop", LOOPED)
        with tempfile.TemporaryDirectory() as scratch:
            selection.make(Path(scratch), 40_000)
            for name, one in selection.measure_peers(Path(scratch), budget, ":least_confidence").items():
                if "seconds" in one:
                    found["peers"][name.split(":")[0]] = {"images_s": rate, "select_s": one["seconds"]}
        found["looped"] = LOOPED
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found))
    return found


def _alone(what: str, images: int) -> float:
    """Images a second, by a process of its own that stores nothing for the next."""
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"NEXTBATCH_HOME": home}
        command = [sys.executable, "-m", "benchmarks.alaas_cold", what, str(images)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-1500:])
    return float(done.stdout.split()[-1])


def _files(images: int) -> list[Path]:
    from backend.pool.folders import cifar10, open_dataset
    from backend.settings import settings

    cache, given = settings().cache / "datasets", os.environ.get("NEXTBATCH_DATA")
    dataset = open_dataset(Path(given).expanduser(), cache) if given else cifar10(cache)
    chosen = np.random.default_rng(0).permutation(len(dataset.train))[:images]
    return [dataset.train.paths[at] for at in chosen]


def scan(images: int) -> float:
    """Images a second of a round's scan, after the encoder is exported, compiled and run once."""
    from backend.rounds.encoding import embeddings_of, open_encoder
    from backend.rounds.items import decoder, encoder_for
    from backend.scoring.pipeline import Scan, ScanItem
    from backend.settings import EncoderSection

    section = encoder_for("image", EncoderSection())
    embeddings, encoder, files = embeddings_of(section), open_encoder(section), _files(images)
    decode, hashes = decoder(embeddings.spec), dict[int, str]()
    encoder.encode(np.stack([decode(files[0].read_bytes())]))

    async def fetch(uri: str) -> bytes:
        return await asyncio.to_thread(Path(uri).read_bytes)

    started = time.perf_counter()
    scanning = Scan(fetch, decode, encoder, embeddings.store, hashes.update, lambda _reasons: None)
    asyncio.run(scanning.run([ScanItem(at, str(file)) for at, file in enumerate(files)], images))
    return len(hashes) / (time.perf_counter() - started)


def loop(images: int) -> float:
    """Images a second of read, decode and encode, one minibatch after the other, the same network in torch (fp32)."""
    import torch
    from PIL import Image

    from backend.learning.architectures import ARCHITECTURES

    architecture = ARCHITECTURES["efficientnet-lite0"]
    graph = architecture.graph(architecture.read(None)).eval()
    files = _files(images)
    with torch.inference_mode():
        graph(architecture.example())
        started = time.perf_counter()
        for first in range(0, len(files), _MINIBATCH):
            blobs = [file.read_bytes() for file in files[first : first + _MINIBATCH]]
            pixels = [np.asarray(Image.open(io.BytesIO(blob)).convert("RGB")) for blob in blobs]
            graph(torch.from_numpy(np.stack(pixels)))
        return len(files) / (time.perf_counter() - started)


if __name__ == "__main__":
    print({"scan": scan, "loop": loop}[sys.argv[1]](int(sys.argv[2])))
