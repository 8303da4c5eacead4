"""The SDK script: from a YAML to a project in which people can label. Running it twice changes nothing."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import unquote

import numpy as np
import sqlalchemy as sa

from backend.database import Item, Project, Round, project_named, reading, transaction
from backend.errors import MissingSetting, NextbatchError, NothingToSeed, PoolUnreadable, RoundFailed, UnknownProject
from backend.pool import catalog, texts
from backend.pool.folders import read_folder
from backend.pool.listing import LOCAL_FILES, local_uri
from backend.pool.refresh import refresh
from backend.rounds import configured
from backend.rounds.items import refuse_unchecked
from backend.rounds.queue import prepare_database, request_round
from backend.rounds.restock import list_items
from backend.rounds.source import import_tasks, open_studio, studio_project_id_of
from backend.settings import ProjectConfig, settings
from backend.studio import connect
from backend.studio.client import Studio
from backend.studio.labels import LabelTask, image_config, text_config

Progress = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class SeedReport:
    """What stands after seeding. `added` items are new; `round` is the one that publishes the first batch, if any."""

    project_id: int
    name: str
    studio_project_id: int
    studio_url: str
    items: int
    holdout: int
    added: int
    round: int | None

    def lines(self) -> list[str]:
        first = f"round {self.round} will publish the first batch" if self.round else "its batches go on as they were"
        return [
            f"{self.name}: {self.items} items ({self.added} new), {self.holdout} of them holdout; {first}",
            f"label at {self.studio_url}/projects/{self.studio_project_id}/data",
        ]


def seed(config: ProjectConfig, progress: Progress = lambda _line: None) -> SeedReport:
    """Create or find the project on both sides, import its items, connect the backend and our webhook."""
    if config.label_source == "api":
        raise NothingToSeed(name=config.name)
    prepare_database()
    url = settings().url
    if url is None:
        raise MissingSetting(
            name="NEXTBATCH_URL", mend="Set it to the address at which Label Studio reaches nextbatch."
        )
    with open_studio() as studio:
        project, task = _find_or_create(studio, config)
        added = _add_items(studio, project, config, task, progress)
        progress("connecting the backend and the webhook")
        _connect(studio, project, config, url)
    return _report(project, studio.url, added)


def apply(config: ProjectConfig, replace: bool) -> str:
    """How `config` differs from what is stored (a unified diff, empty where it does not); stored if `replace`."""
    with transaction() as session:
        project = project_named(session, config.name)
        return configured.replace(session, project, config) if replace else configured.difference(project, config)


def wait_for_round(
    project_id: int, number: int | None = None, progress: Progress = lambda _line: None, timeout_s: float = 3_600
) -> Round:
    """Wait until the round (the newest by default) ended, telling its steps. Raises RoundFailed."""
    deadline = time.monotonic() + timeout_s
    told = ""
    while time.monotonic() < deadline:
        with reading() as session:
            query = sa.select(Round).where(Round.project_id == project_id).order_by(Round.number.desc()).limit(1)
            round_ = session.scalar(query if number is None else query.where(Round.number == number))
        if round_ is not None and round_.state == "done":
            return round_
        if round_ is not None and round_.state in ("failed", "cancelled"):
            raise RoundFailed(number=round_.number, reason=round_.failure or round_.state)
        if round_ is not None and (line := _where(round_)) != told:
            progress(line)
            told = line
        time.sleep(0.25)
    raise RoundFailed(number=number or "?", reason=f"it did not end within {timeout_s:.0f} s; does a worker run?")


def _where(round_: Round) -> str:
    done, total = round_.progress.get("done"), round_.progress.get("total")
    return f"round {round_.number}: {round_.step or round_.state}" + (f" {done}/{total}" if total else "")


def _find_or_create(studio: Studio, config: ProjectConfig) -> tuple[Project, LabelTask]:
    try:
        with reading() as session:
            known: Project | None = project_named(session, config.name)
    except UnknownProject:
        known = None
    section = config.label_studio
    wanted = section.label_config or (_label_config(config) if section.labels else None)
    existing = known.studio_project_id if known and known.studio_project_id else section.project_id
    found = connect.ensure_project(studio, section.title or config.name, wanted, project_id=existing)
    task = LabelTask.parse(found.label_config)
    configured.check_strategy(known.settings if known else config, found.label_config)
    with transaction() as session:
        project = session.get_one(Project, known.id) if known else Project(name=config.name, config={})
        if not known:
            project.config = config.model_dump(mode="json")
            project.config_version = 1
            session.add(project)
        project.studio_project_id = found.id
        project.label_config = found.label_config
        refuse_unchecked(project)
        session.flush()
        if not known:
            session.add(configured.settings_row(project))
    return project, task


def _label_config(config: ProjectConfig) -> str:
    section = config.label_studio
    if section.kind == "image":
        return image_config(section.labels)
    return text_config(section.labels, is_inline=config.pool.source in ("tasks", "manifest"))


def _add_items(studio: Studio, project: Project, config: ProjectConfig, task: LabelTask, progress: Progress) -> int:
    """What the pool lists becomes tasks at once (reorder) or when it is picked (create); the holdout always does."""
    listing = list_items(config, task)
    if listing is None:
        return 0  # tasks that are in Label Studio already are pulled by the first round's sync
    root = settings().data_root
    holdout = _sample(_labelled(config.pool.holdout_path), config.pool.holdout_items, config.seed + 1)
    labels = {_address(path, root, task): label for path, label in holdout}
    with transaction() as session:
        held = [catalog.NewItem(uri, is_holdout=True) for uri in labels]
        added = catalog.add_items(session, project.id, held)
    progress(f"listing {config.pool.path}")
    added += refresh(project.id, listing, config.pool.max_items, config.seed, only_new=True).added
    for line in listing.skipped.lines():
        progress(line)
    if not task.is_inline:
        _show(studio, project, config, progress)
    tasks = [connect.TaskToImport(catalog.item_key(uri), {task.data_key: uri}, label) for uri, label in labels.items()]
    if config.publish == "reorder":
        with reading() as session:
            listed = catalog.listed_items(session, project.id)
        tasks += [
            connect.TaskToImport(key, {**data, task.data_key: uri}, None)
            for key, uri, data in listed
            if uri not in labels
        ]
    progress(f"importing {len(tasks)} tasks into Label Studio")
    import_tasks(studio, project, tasks, task, progress)
    return added


def _show(studio: Studio, project: Project, config: ProjectConfig, progress: Progress) -> None:
    """See to it that Label Studio's pages can show the items; where only a person can, say so."""
    studio_id = studio_project_id_of(project)
    pool_folder = Path(config.pool.path or ".") if config.pool.source == "folder" else _named_folder(project)
    folders = (pool_folder, config.pool.holdout_path)
    for folder in folders:
        if folder is not None:
            connect.ensure_local_files(studio, studio_id, Path(folder).resolve())
    if config.pool.source == "ftp":
        progress("Label Studio's pages do not show ftp addresses: put the files behind http for people to label them")
    if config.pool.source == "s3":
        bucket = (config.pool.path or "").removeprefix("s3://").partition("/")[0]
        if bucket not in {storage["bucket"] for storage in studio.get("/api/storages/s3", {"project": studio_id})}:
            progress(
                f"Label Studio does not show items of the bucket {bucket} yet: give it keys of its own, "
                "in the project under Settings, Cloud Storage, Add Source Storage (no sync is needed)"
            )


def _named_folder(project: Project) -> Path | None:
    """The folder that holds every local file which a manifest names, if it names any."""
    root = settings().data_root
    with reading() as session:
        listed = catalog.listed_items(session, project.id)
    paths = [
        PurePosixPath(unquote(uri.removeprefix(LOCAL_FILES))) for _, uri, _ in listed if uri.startswith(LOCAL_FILES)
    ]
    folders = {path.parent for path in paths if not path.is_absolute() and ".." not in path.parts}
    return root / os.path.commonpath(folders) if root is not None and folders else None


def _labelled(folder: str | None) -> list[tuple[Path, str]]:
    """Files of a folder of class folders, each with its class."""
    if folder is None:
        return []
    dataset = read_folder(Path(folder))
    return [
        (path, dataset.classes[label])
        for files in (dataset.train, dataset.test)
        for path, label in zip(files.paths, files.labels, strict=True)
    ]


def _address(path: Path, root: Path | None, task: LabelTask) -> str:
    """What names a labelled file: its address or, where tasks hold texts, its text. Raises PoolUnreadable."""
    if not task.is_inline:
        return local_uri(path, root)
    try:
        return texts.decode(path.read_bytes())
    except (OSError, NextbatchError) as error:
        raise PoolUnreadable(path=path, problem=error) from error


def _sample(rows: Sequence[T], size: int | None, seed: int) -> list[T]:
    if size is None or size >= len(rows):
        return list(rows)
    chosen = np.random.default_rng(seed).choice(len(rows), size, replace=False)
    return [rows[row] for row in sorted(chosen)]


def _connect(studio: Studio, project: Project, config: ProjectConfig, url: str) -> None:
    process = settings()
    connect.ensure_backend(
        studio,
        studio_project_id_of(project),
        url,
        title=connect.backend_title(config.name),
        username=process.username,
        password=process.password.get_secret_value() if process.password else None,
    )
    secret = process.webhook_secret.get_secret_value() if process.webhook_secret else None
    connect.ensure_webhook(studio, studio_project_id_of(project), f"{url}/webhook", secret)


def _report(project: Project, studio_url: str, added: int) -> SeedReport:
    with transaction() as session:
        count = sa.select(sa.func.count()).select_from(Item).where(Item.project_id == project.id)
        items = session.scalar(count) or 0
        holdout = session.scalar(count.where(Item.is_holdout)) or 0
        has_rounds = session.scalar(sa.select(sa.exists().where(Round.project_id == project.id)))
        first = None if has_rounds and not added else request_round(session, project.id, "seed").number
    return SeedReport(project.id, project.name, studio_project_id_of(project), studio_url, items, holdout, added, first)
