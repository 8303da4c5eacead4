"""Triton's model repository: what an encoder looks like on disk, written whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from backend.processes import alone

MAX_BATCH = 64
QUEUE_DELAY_US = 2000  # how long a small request waits for others to share its pass; far below one pass
_HERE = Path(__file__).parent

_CONFIG = """\
# Written by nextbatch. One encoder: items of one shape in, embeddings out.
name: "{model}"
backend: "python"
max_batch_size: {max_batch}
input [ {{ {input} }} ]
output [ {{ name: "embeddings" data_type: TYPE_FP32 dims: [ {dims} ] }} ]
instance_group [ {{ kind: KIND_CPU count: {instances} }} ]
dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}
parameters {{ key: "digest" value {{ string_value: "{digest}" }} }}
parameters {{ key: "precision" value {{ string_value: "{precision}" }} }}
"""

_INPUTS = {
    "image": 'name: "images" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ]',
    "text": 'name: "tokens" data_type: TYPE_INT32 dims: [ -1 ]',
}


def model_name(name: str, digest: str) -> str:
    """What Triton calls this encoder. It names the digest, so that no client gets another encoder's embeddings."""
    return f"{name}-{digest[:16]}"


def write_model(
    repository: Path,
    name: str,
    onnx: Path,
    digest: str,
    dims: int,
    precision: str,
    kind: str = "image",
    instances: int = 2,
) -> str:
    """Put an encoder of images or texts into the repository and return its model name. What is there is left alone.

    `instances` of one thread each: measured as fast as any other split, and steadier on shared cores. Safe to run at
    once in several processes. It appears whole, by a rename; loading it is the client's part.
    """
    model = model_name(name, digest)
    config = _CONFIG.format(
        model=model,
        max_batch=MAX_BATCH,
        input=_INPUTS[kind],
        dims=dims,
        instances=instances,
        delay_us=QUEUE_DELAY_US,
        digest=digest,
        precision=precision,
    )
    texts = {
        "config.pbtxt": config,
        "1/model.py": (_HERE / "triton_model.py").read_text(),
        "1/engine.py": (_HERE / "engine.py").read_text(),
    }
    place(repository / model, texts, onnx)
    return model


def place(target: Path, texts: Mapping[str, str], onnx: Path) -> None:
    """A model's folder with these texts and the ONNX file as version 1: whole, by a rename, or left as it is."""
    with alone(target.parent / ".lock"):
        if not _is_written(target, texts, onnx):
            _replace(target, texts, onnx)


def _is_written(target: Path, texts: Mapping[str, str], onnx: Path) -> bool:
    """The digest is in the folder's name; texts are compared, since a newer nextbatch may write others."""
    try:
        is_same = all((target / path).read_text() == text for path, text in texts.items())
        return is_same and (target / "1" / "model.onnx").stat().st_size == onnx.stat().st_size
    except OSError:
        return False


def _replace(target: Path, texts: Mapping[str, str], onnx: Path) -> None:
    building = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        fresh = building / "fresh"
        (fresh / "1").mkdir(parents=True)
        for path, text in texts.items():
            (fresh / path).write_text(text)
        _copy(onnx, fresh / "1" / "model.onnx")
        if target.exists():
            target.rename(building / "old")
        fresh.rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)
