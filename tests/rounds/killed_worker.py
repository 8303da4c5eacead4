"""A real worker that kills itself once, right after the work of one step and before the step's checkpoint.

python -m tests.rounds.killed_worker STEP MARKER
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.rounds import choose, encoding, learn, restock, source, worker
from backend.rounds import round as the_round

WORK = {
    "sync": (source, "sync"),
    "encode": (encoding, "encode_new"),
    "learn": (learn, "learn"),
    "choose": (choose, "choose"),
    "publish": (source, "publish"),
    "restock": (restock, "restock"),
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


def main(step: str, marker: Path) -> None:
    if step in WORK:
        module, name = WORK[step]
        setattr(module, name, die_after(getattr(module, name), marker))
    else:  # begin and finish do their work in the round's own row
        wanted = {"begin": "begin", "finish": "done"}[step]
        the_round._update = die_after(the_round._update, marker, wanted)
    worker.run()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
