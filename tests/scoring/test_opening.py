"""What is opened is always opened: nobody waits for a thread that has just gone."""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from backend.scoring.opening import Opened, Opener
from backend.scoring.stages import Stages
from backend.scoring.vectors import VectorStore


@pytest.mark.parametrize(("places", "fetchers"), [(1, 1), (1, 5), (2, 2), (2, 40)])
def test_who_opens_the_next_item_at_once_gets_it_opened_too(tmp_path: Path, places: int, fetchers: int) -> None:
    store = VectorStore(tmp_path, "d" * 64, 4)
    blobs = [f"item {number}".encode() for number in range(200)]

    async def open_all() -> list[Opened]:
        with ThreadPoolExecutor(places) as threads:
            opener = Opener(lambda data: np.frombuffer(data, np.uint8), store, (), threads, places, Stages())

            async def fetch(first: int) -> list[Opened]:
                return [await opener.open(data) for data in blobs[first::fetchers]]

            async with asyncio.timeout(30), asyncio.TaskGroup() as group:
                tasks = [group.create_task(fetch(first)) for first in range(fetchers)]
        return [opened for task in tasks for opened in task.result()]

    opened = asyncio.run(open_all())

    assert {one.content_hash for one in opened} == {hashlib.sha256(data).hexdigest() for data in blobs}
    assert all(one.inputs is not None for one in opened)
