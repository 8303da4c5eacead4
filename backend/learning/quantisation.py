"""The int8 form of an image encoder: made by nncf in a child process, known by its own digest, kept once it passed.

It is the exported graph with quantised values in it, calibrated on one project's images. Nothing uses it before `keep`
has noted it as that project's, and only what passed its check is kept.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend import environments
from backend.artefacts import whole
from backend.errors import EncoderUnreadable, QuantisationFailed
from backend.learning.encoders import EncoderSpec, adopt, pointer
from backend.learning.finetune_plan import RECORD as FINE_TUNING
from backend.learning.finetune_plan import TRAINED
from backend.processes import last_words, see_through, spawn

REPORT = "int8.json"
RECIPE: Mapping[str, Any] = {"preset": "mixed", "fast_bias_correction": True}
"""nncf's options. Mixed: activations that are not symmetric, as behind every ReLU6, keep all 256 steps."""
_MODEL, _PLAN, _IMAGES, _LOG = "model.onnx", "plan.json", "images.npz", "quantise.log"
_NICE = 10


def quantise(
    parent: EncoderSpec,
    images: Iterable[NDArray[np.uint8]],
    folder: Path,
    threads: int,
    progress: environments.Progress,
) -> EncoderSpec:
    """The int8 form of an fp32 encoder, in `folder` and nowhere else: some 20 s for 300 images; what is there is taken.

    `images` are (h, w, 3) each, as they travel to the encoder. The child dies with the thread that calls this. Raises
    EnvironmentNotBuilt the first time, QuantisationFailed with the end of the child's log.
    """
    made = folder / _MODEL
    if not made.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / _IMAGES, *images)
        with whole(folder / _PLAN) as file:
            file.write(json.dumps({"parent": str(parent.path.absolute()), **RECIPE}).encode())
        _carry_out(folder, threads, progress)
        (folder / _IMAGES).unlink()
    with made.open("rb") as model:
        content = hashlib.file_digest(model, "sha256").hexdigest()
    facts = {"name": parent.name, "precision": "int8", "parent": parent.digest, "onnx": content}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return replace(parent, digest=digest, precision="int8", onnx_sha256=content, path=made)


def _carry_out(folder: Path, threads: int, progress: environments.Progress) -> None:
    environment = environments.ensure("quantiser", environments.QUANTISER, progress)
    variables = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
    script = Path(__file__).with_name("quantiser.py")
    log = folder / _LOG
    log.unlink(missing_ok=True)
    command: list[str | Path] = [environment / "bin" / "python", script, folder.absolute()]
    child = spawn(command, log, variables | {"OMP_NUM_THREADS": str(threads)}, nice=_NICE)
    status = see_through(child)
    if status or not (folder / _MODEL).exists():
        raise QuantisationFailed(problem=last_words(log, status), log=log)


def keep(
    spec: EncoderSpec, used: EncoderSpec, weights: Path | None, directory: Path, owner: str, report: Mapping[str, Any]
) -> EncoderSpec:
    """Put what passed among the encoders below `directory`, with its report, and note it as `owner`'s.

    What the encoder in use was fine-tuned on stays known: those labels are not held out with the int8 form either.
    """
    facts = {**report, "digest": spec.digest, "recipe": dict(RECIPE), "nncf": list(environments.QUANTISER)}
    facts["openvino"] = importlib.metadata.version("openvino")
    beside = {REPORT: json.dumps(facts, indent=1).encode()}
    for name in (TRAINED, FINE_TUNING):
        with contextlib.suppress(FileNotFoundError):
            beside[name] = used.path.with_name(name).read_bytes()
    kept = adopt(spec, directory, beside)
    noted = pointer(spec.name, weights, directory, "int8", owner)
    assert noted is not None  # its weights were read a moment ago
    with whole(noted) as file:
        file.write(spec.digest.encode())
    return kept


def report_of(folder: Path) -> dict[str, Any] | None:
    """What the check of the encoder in that folder said; None for one that is not int8. Raises EncoderUnreadable."""
    path = folder / REPORT
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise EncoderUnreadable(path=path, problem=error) from error
    return found
