"""Where a backtest's labels come from: class folders, a project of ours, or a Label Studio JSON export."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.backtest.bench import Bench
from backend.database import project_named, reading
from backend.errors import BacktestNotForTask, BenchUnusable
from backend.pool.catalog import labelled
from backend.pool.folders import Dataset, open_dataset
from backend.rounds.encoding import embeddings_of, open_embeddings, open_encoder, source_config
from backend.rounds.items import Fetch, decoder, encoder_for, opened
from backend.scoring.pipeline import Scan, ScanItem
from backend.settings import EncoderSection, Kind, ProjectConfig, settings
from backend.studio.labels import LabelTask
from strategies import Task

TEST_SHARE = 0.3
FEWEST_HOLDOUT = 100
_MAX_EXPORT_BYTES = 2**30

Progress = Callable[[str], None]
_ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*:/|/)\S+|\S+\.[a-z0-9]{2,5}", re.IGNORECASE)


@dataclass(frozen=True)
class Example:
    """An item with its label; `is_test` None where nothing says which side it is on. moment: its place in time."""

    uri: str
    label: str
    is_test: bool | None = None
    moment: int = 0


def open_bench(given: str, out: Path, encoder: EncoderSection, progress: Progress) -> Bench:
    """`given` is a folder or archive of class folders, a Label Studio JSON export, or a project's name."""
    path = Path(given).expanduser()
    if path.suffix.lower() == ".json" and path.is_file():
        examples = _exported(path)
        is_inline = not all(_ADDRESS.fullmatch(example.uri) for example in examples)
        kind: Kind = "text" if is_inline or encoder.name == "all-minilm-l6-v2" else "image"
        opening = opened(source_config(ProjectConfig(name="backtest")), is_inline)
        return _encoded(examples, encoder_for(kind, encoder), opening, out, progress)
    if path.exists():
        dataset = open_dataset(path, settings().cache / "datasets")
        return _encoded(_filed(dataset), encoder_for(dataset.kind, encoder), _files(), out, progress)
    return _of_project(given, out)


def _of_project(name: str, out: Path) -> Bench:
    """The project's labelled items under its own encoder; its holdout is the test set where it is large enough."""
    with reading() as session:
        project = project_named(session, name)
        asked = LabelTask.parse(project.label_config)
        rows = labelled(session, project.id, asked.question)
    if asked.task != Task.CLASSIFICATION:
        raise BacktestNotForTask(name=name, task=asked.task)
    classes = asked.choices
    rows = [row for row in rows if row.label in classes]
    x = open_embeddings(project).gather([row.content_hash for row in rows])
    y = np.array([classes.index(row.label) for row in rows], dtype=np.int64)
    is_test = np.array([row.is_holdout for row in rows], dtype=bool)
    if is_test.sum() < FEWEST_HOLDOUT:
        is_test = _drawn(len(rows))
    return Bench.write(out / "bench", classes, (x[~is_test], y[~is_test]), (x[is_test], y[is_test]))


def _filed(dataset: Dataset) -> list[Example]:
    is_test: tuple[bool | None, bool | None] = (False, True) if len(dataset.test) else (None, None)
    examples = [
        Example(str(path), dataset.classes[label], side)
        for part, side in zip((dataset.train, dataset.test), is_test, strict=True)
        for path, label in zip(part.paths, part.labels, strict=True)
    ]
    by_name = sorted(range(len(examples)), key=lambda at: Path(examples[at].uri).name)
    moments = {at: moment for moment, at in enumerate(by_name)}
    return [replace(example, moment=moments[at]) for at, example in enumerate(examples)]


def _exported(path: Path) -> list[Example]:
    """Tasks of Label Studio's JSON export with one choice each; its latest annotation that was not a skip counts."""
    if path.stat().st_size > _MAX_EXPORT_BYTES:
        raise BenchUnusable(problem=f"an export of {path.stat().st_size} bytes, of which 1 GiB at most is read")
    try:
        tasks = json.loads(path.read_bytes())
        found = [example for task in tasks if (example := _example(task)) is not None]
        examples = [replace(example, moment=moment) for moment, example in enumerate(found)]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        problem = f"a file that is no JSON export of Label Studio ({type(error).__name__})"
        raise BenchUnusable(problem=problem) from None
    return examples


def _example(task: dict[str, Any]) -> Example | None:
    given = [a for a in task.get("annotations", []) if not a.get("was_cancelled") and a.get("result")]
    for annotation in sorted(given, key=lambda a: str(a.get("updated_at", "")), reverse=True):
        for region in annotation["result"]:
            choices = region.get("value", {}).get("choices", [])
            if region.get("type") == "choices" and len(choices) == 1:
                found = task["data"].get(_data_field(task, region))
                return Example(str(found), str(choices[0])) if found else None
    return None


def _data_field(task: dict[str, Any], region: dict[str, Any]) -> str:
    """The field that the labelled tag shows: of its name, or else the only one that holds an address, or any text."""
    name = str(region.get("to_name", ""))
    if name in task["data"]:
        return name
    texts = {key: value for key, value in task["data"].items() if isinstance(value, str)}
    addresses = [key for key, value in texts.items() if "/" in value]
    found = addresses if len(addresses) == 1 else list(texts)
    return found[0] if len(found) == 1 else name


def _encoded(
    examples: Sequence[Example],
    section: EncoderSection,
    opening: AbstractAsyncContextManager[Fetch],
    out: Path,
    progress: Progress,
) -> Bench:
    embeddings = embeddings_of(section)
    hashes: dict[int, str] = {}
    failures: dict[int, str] = {}
    items = [ScanItem(at, example.uri) for at, example in enumerate(examples)]

    def count(done: int, total: int) -> None:
        progress(f"encoded {done} of {total}")

    async def run() -> None:
        encoder, decode = open_encoder(section), decoder(embeddings.spec)
        async with opening as fetch:
            scan = Scan(fetch, decode, encoder, embeddings.store, hashes.update, failures.update, count)
            await scan.run(items, len(items))

    asyncio.run(run())
    if failures:
        progress(f"{len(failures)} items could not be read, such as: {next(iter(failures.values()))}")
    kept = [examples[at] for at in sorted(hashes)]
    classes = sorted({example.label for example in kept})
    y = np.array([classes.index(example.label) for example in kept], dtype=np.int64)
    x = embeddings.gather([hashes[at] for at in sorted(hashes)])
    sides = [example.is_test for example in kept]
    is_test = _drawn(len(kept)) if None in sides else np.array(sides, dtype=bool)
    moments = np.array([example.moment for example in kept], dtype=np.int64)[~is_test]
    return Bench.write(out / "bench", classes, (x[~is_test], y[~is_test]), (x[is_test], y[is_test]), moments)


@asynccontextmanager
async def _files() -> AsyncIterator[Fetch]:
    """Reads paths of files that `open_dataset` found."""

    async def fetch(uri: str) -> bytes:
        return await asyncio.to_thread(Path(uri).read_bytes)

    yield fetch


def _drawn(count: int) -> NDArray[np.bool_]:
    """A test set drawn uniformly at random, always the same."""
    is_test = np.zeros(count, dtype=bool)
    is_test[np.random.default_rng(0).permutation(count)[: round(TEST_SHARE * count)]] = True
    return is_test
