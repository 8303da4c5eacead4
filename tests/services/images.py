"""Real image files for tests: those that NEXTBATCH_DATA names (folder or archive), else scikit-learn's digits."""

import os
from pathlib import Path

from backend.pool.folders import digits, open_dataset

CACHE = Path("~/.cache/nextbatch/datasets").expanduser()


def files(count: int) -> list[Path]:
    """`count` distinct ones, spread over the classes."""
    given = os.environ.get("NEXTBATCH_DATA")
    data = open_dataset(Path(given), CACHE) if given else digits(CACHE)
    paths = data.test.paths or data.train.paths
    return list(paths[:: len(paths) // count][:count])
