"""A real worker that kills itself once, right after the work of one step and before the step's checkpoint."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from backend.rounds import changes, choose, encoding, learn, restock, source, worker
from backend.rounds import round as the_round

WORK = {
    "sync": (source, "sync"),
    "encode": (encoding, "encode_new"),
    "learn": (learn, "learn"),
    "choose": (choose, "choose"),
    "publish": (source, "publish"),
    "restock": (restock, "restock"),
    "scan": (encoding, "scan"),
    "switch": (changes, "switch"),
}


def die_after(work: Callable[..., Any], marker: Path, step: str | None = None) -> Callable[..., Any]:
    """`work`, then SIGKILL; only the first time, which leaves `marker`."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = work(*args, **kwargs)
        if not marker.exists() and step in (None, kwargs.get("step"), kwargs.get("state")):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def start(step: str, marker: Path, log: Path) -> BaseProcess:
    """A process of its own, forked from one that has imported all that a worker needs, which takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch"])
    process = context.Process(target=_work, args=(step, marker, log, dict(os.environ)), daemon=True)
    process.start()
    return process


def _work(step: str, marker: Path, log: Path, environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    if step in WORK:
        module, name = WORK[step]
        setattr(module, name, die_after(getattr(module, name), marker))
    elif step in ("begin", "finish"):  # they do their work in the round's own row
        wanted = {"begin": "begin", "finish": "done"}[step]
        the_round._update = die_after(the_round._update, marker, wanted)
    worker.run()
