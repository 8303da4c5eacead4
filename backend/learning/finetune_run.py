"""A fine-tuning in a child process of its own, which dies with its parent: begun, watched, stopped, begun again.

    python -m backend.learning.finetune_run FOLDER

is the child. It needs torch; the parent does not.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from backend.artefacts import whole
from backend.errors import FineTuneFailed, FineTuneRunning
from backend.learning.architectures import ARCHITECTURES, ImageArchitecture
from backend.learning.finetune_plan import CHECKPOINT, WEIGHTS, Outcome, Plan
from backend.processes import last_words, spawn, stop

Tell = Callable[[int, int, str], None]

CHILD = "backend.learning.finetune_run"
_PLAN, _ITEMS, _IMAGES = "plan.json", "items.safetensors", "images.bin"
_PROGRESS, _DONE, _LOG = "progress.json", "done.json", "train.log"
_LOOK_S = 0.5
_NICE = 10


class Images(Sequence[NDArray[np.uint8]]):
    """Square images uint8 (s, s, 3) of sides (n,) behind one another in a file that is mapped, not read."""

    def __init__(self, path: Path, sides: NDArray[np.int64]) -> None:
        self._sides = sides
        self._ends = np.cumsum(3 * sides**2)
        self._bytes = np.memmap(path, np.uint8, "r", shape=(int(self._ends[-1]),))

    def __len__(self) -> int:
        return len(self._sides)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        side, end = int(self._sides[at]), int(self._ends[at])
        return np.array(self._bytes[end - 3 * side**2 : end]).reshape(side, side, 3)


class Run:
    """A folder in which one plan is carried out; what is there already is not done again."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan

    @property
    def weights(self) -> Path:
        """The trained network, once it is."""
        return self.folder / WEIGHTS

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """One process a run at a time. Raises FineTuneRunning."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FineTuneRunning(run=self.plan.digest[:12]) from None
            yield

    def has_examples(self) -> bool:
        """Whether `keep_examples` came to its end."""
        return (self.folder / _ITEMS).exists()

    def kept(self) -> NDArray[np.int64]:
        """The places (n,) among the planned items of those that could be read."""
        places: NDArray[np.int64] = load_file(self.folder / _ITEMS)["places"]
        return places

    def keep_examples(
        self, images: Iterator[tuple[int, NDArray[np.uint8]]], labels: NDArray[np.int64], is_held_out: NDArray[np.bool_]
    ) -> None:
        """Write the images as they come, each with its place among labels (n,) and is_held_out (n,)."""
        places, sides = [], []
        with whole(self.folder / _IMAGES, is_durable=False) as file:
            for place, image in images:
                file.write(np.ascontiguousarray(image).tobytes())
                places.append(place)
                sides.append(len(image))
        kept = np.array(places, np.int64)
        arrays = {
            "places": kept,
            "sides": np.array(sides, np.int64),
            "labels": labels[kept],
            "is_held_out": is_held_out[kept],
        }
        with whole(self.folder / _PLAN) as file:
            file.write(json.dumps(self.plan.as_json()).encode())
        with whole(self.folder / _ITEMS) as file:
            file.write(save(arrays))

    def carry_out(self, tell: Tell, cancel: threading.Event | None = None) -> Outcome | None:
        """Train in a child until it ends or `cancel` is set; then None, and the next call goes on from there.

        The child is killed with the thread that calls this. Raises FineTuneFailed with the end of its log.
        """
        if (self.folder / _DONE).exists():
            return self._outcome()
        environment = os.environ | {
            "OMP_NUM_THREADS": str(self.plan.threads),
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it cuBLAS may sum in another order each time
        }
        command: list[str | Path] = [sys.executable, "-m", CHILD, self.folder]
        log = self.folder / _LOG
        log.unlink(missing_ok=True)
        child = spawn(command, log, environment, nice=_NICE)
        try:
            while child.poll() is None and not (cancel is not None and cancel.is_set()):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(_LOOK_S)
                with contextlib.suppress(OSError, ValueError):
                    tell(*json.loads((self.folder / _PROGRESS).read_bytes()))
        finally:
            status = stop(child)
        if (self.folder / _DONE).exists():
            return self._outcome()
        if cancel is not None and cancel.is_set():
            return None
        raise FineTuneFailed(problem=last_words(log, status), log=log)

    def clear(self) -> None:
        """Give back the space of what a finished run needs no more."""
        for name in (_IMAGES, CHECKPOINT, WEIGHTS):
            (self.folder / name).unlink(missing_ok=True)

    def _outcome(self) -> Outcome:
        return Outcome.from_json(json.loads((self.folder / _DONE).read_bytes()))


def train(folder: Path) -> None:
    """The child's work, from what `Run` wrote."""
    started = time.monotonic()
    plan = Plan.from_json(json.loads((folder / _PLAN).read_bytes()))
    architecture = ARCHITECTURES[plan.encoder]
    assert isinstance(architecture, ImageArchitecture)
    import torch
    from safetensors.torch import save as save_tensors

    from backend.learning.finetune import Examples, fine_tune

    torch.set_num_threads(plan.threads)
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    network = architecture.read(Path(plan.weights) if plan.weights else None)
    items = load_file(folder / _ITEMS)
    examples = Examples(Images(folder / _IMAGES, items["sides"]), items["labels"], items["is_held_out"])

    def tell(done: int, total: int, what: str) -> None:
        with whole(folder / _PROGRESS, is_durable=False) as file:
            file.write(json.dumps([done, total, what]).encode())

    found = fine_tune(plan, architecture, network, examples, folder, tell)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    outcome = Outcome(found.best_epoch, tuple(found.history), round(time.monotonic() - started, 1), device)
    with whole(folder / WEIGHTS) as file:
        file.write(save_tensors(architecture.weights_of(found.network)))
    with whole(folder / _DONE) as file:
        file.write(json.dumps(asdict(outcome)).encode())


if __name__ == "__main__":
    train(Path(sys.argv[1]))
