"""Environments of their own, for programs whose pins are not ours: in the user's cache, under a hash of the pins.

A second clone finds them ready. An environment is whole when its `.complete` mark is there; a half-built one is
built again, and two processes that want the same one take turns.
"""

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from uv import find_uv_bin

from backend.errors import EnvironmentNotBuilt
from backend.processes import alone, die_with_parent
from backend.settings import settings

LABEL_STUDIO = ("label-studio==1.23.2",)
# numpy 2 in Triton's Python turns every output into an empty tensor and ends in a segmentation fault.
TRITON = ("nvidia-pytriton==0.7.0", "numpy<2", f"openvino=={importlib.metadata.version('openvino').split('-')[0]}")

# nncf brings scikit-learn and reports to its makers; its quantiser runs beside ours and not in it.
QUANTISER = ("nncf==3.4.0", "onnx==1.23.2", "onnxruntime==1.31.1")

Progress = Callable[[str], None]


def place(name: str, pins: Sequence[str]) -> Path:
    """Where the environment is or will be. It depends on the pins and on this Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256("\n".join([version, *sorted(pins)]).encode()).hexdigest()[:12]
    return settings().cache / "envs" / f"{name}-{digest}"


def is_ready(name: str, pins: Sequence[str]) -> bool:
    return (place(name, pins) / ".complete").exists()


def ensure(name: str, pins: Sequence[str], progress: Progress = lambda _line: None) -> Path:
    """The environment's folder, built first if need be. Raises EnvironmentNotBuilt with the end of pip's output."""
    folder = place(name, pins)
    if is_ready(name, pins):
        return folder
    with alone(folder.with_suffix(".lock")):
        if not is_ready(name, pins):
            progress(f"installing {name} into {folder} (once; {', '.join(pins)})")
            _build(folder, pins, progress)
    return folder


def _build(folder: Path, pins: Sequence[str], progress: Progress) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    python = folder / "bin" / "python"
    log = folder.with_suffix(".log")
    _run([sys.executable, "-m", "venv", "--symlinks", "--without-pip", folder], log)
    if torch := [pin for pin in pins if pin.startswith("torch")]:
        # An index that serves a CPU build of torch under an exact version only gives it to pip, not to uv.
        pip: list[str | Path] = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
        _run([*pip, "install", "--quiet", *torch], log)
    # uv installs Label Studio in 8 s where pip takes 94 s (two cores).
    _run([find_uv_bin(), "pip", "install", "--quiet", "--python", python, *pins], log)
    (folder / ".complete").touch()
    progress(f"installed {folder.name} in {time.monotonic() - started:.0f} s")


def _run(command: Sequence[str | Path], log: Path) -> None:
    clean = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}}
    with log.open("a") as output:
        done = subprocess.run(  # noqa: S603 - our own command, with pins that stand in this file
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=clean, check=False,
            preexec_fn=die_with_parent(),
        )  # fmt: skip
    if done.returncode != 0:
        raise EnvironmentNotBuilt(command=" ".join(map(str, command)), log=log, tail=log.read_text()[-1500:])
