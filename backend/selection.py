"""One-round selection on this machine: from a pool to the items to label, without a service and without Label Studio.

The round runs in this process, over the steps that a worker runs. What it encodes is kept, so that the same pool again
costs a listing and a choice.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa

from backend.database import Batch, Item, Pick, Project, Round, now, project_named, reading, transaction
from backend.errors import QueryFailed
from backend.pool.listing import LOCAL_FILES, is_named
from backend.pool.manifest import SUFFIXES as MANIFESTS
from backend.processes import alone
from backend.rounds.labelling import NewProject, make_project
from backend.rounds.pushes import Pushed, push_named
from backend.rounds.queries import Query, check
from backend.rounds.queue import HERE, QUERY, insert_round, prepare_database
from backend.settings import Kind, PoolSection, settings

Tell = Callable[[str, int, int], None]
_LOOK_S = 0.5


@dataclass(frozen=True)
class Pool:
    """What was named: a source to list, or addresses; and the folder below which local files may be read."""

    section: PoolSection
    uris: tuple[str, ...] = ()
    root: Path | None = None

    @property
    def name(self) -> str:
        """A project's name that is the same whenever the same is named."""
        named = json.dumps([self.section.model_dump(mode="json"), sorted(self.uris)], sort_keys=True)
        return f"select-{hashlib.sha256(named.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Selected:
    """One item to label: `score` is the strategy's utility, `prediction` what a model says, where there is one."""

    rank: int
    uri: str
    score: float | None
    reason: str
    prediction: str | None


@dataclass(frozen=True)
class Selection:
    """The items in order; which strategy chose, and why that one; how many items there are and could not be read."""

    project: str
    query: int
    strategy: str
    policy: str
    items: int
    failed: int
    failures: list[str]
    picks: list[Selected]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def pool_of(named: Sequence[str], kind: Kind, hosts: Sequence[str] = (), endpoint: str | None = None) -> Pool:
    """What the words name: a folder, a manifest, an s3:// prefix, an ftp:// folder, or single addresses and files.

    What is named may be read: its bucket and prefix, its host, its folder. What a manifest names must be public, or
    below `hosts` and the manifest's own folder.
    """
    first = named[0]
    place = urlsplit(first)
    allowed = (*hosts, *sorted({urlsplit(one).netloc.rpartition("@")[2] for one in named if _is_web(one)}))
    common = {"allow_hosts": allowed, "s3_endpoint": endpoint}
    local = Path(first).expanduser().absolute()
    buckets = tuple(sorted({one.removeprefix("s3://").rstrip("/") for one in named if one.startswith("s3://")}))
    if len(named) == 1 and Path(place.path).suffix.lower() in MANIFESTS:
        path = first if place.scheme else str(local)
        section = PoolSection(source="manifest", path=path, allow_buckets=_folders(buckets), **common)
        return Pool(section, root=None if place.scheme else local.parent)
    if len(named) == 1 and not place.scheme and local.is_dir():
        return Pool(PoolSection(source="folder", path=str(local)), root=local)
    if len(named) == 1 and place.scheme in ("s3", "ftp") and not is_named(place.path, kind):
        source = "s3" if place.scheme == "s3" else "ftp"
        return Pool(PoolSection(source=source, path=first.rstrip("/"), allow_buckets=buckets, **common))
    files = [Path(one).expanduser().absolute() for one in named if "://" not in one]
    root = Path(os.path.commonpath([file.parent for file in files])) if files else None
    uris = tuple(one if "://" in one else str(Path(one).expanduser().absolute()) for one in named)
    return Pool(PoolSection(source="api", allow_buckets=_folders(buckets), **common), uris, root)


def select(
    pool: Pool | str, query: Query, kind: Kind = "image", tell: Tell = lambda _step, _done, _total: None
) -> Selection:
    """Answer the query over a pool, or over the project of that name with its labels. `tell`: (step, done, total).

    Killed, it goes on where it was when it is called again. Raises QueryFailed, NoSuchStrategy.
    """
    check(query)
    root = pool.root if isinstance(pool, Pool) else None
    if root is not None and settings().data_root is None:
        settings().data_root = root  # whoever named the folder may read it
    prepare_database()
    project, pushed = _filled(pool, kind)
    with _alone(project):
        with transaction() as session:
            round_ = insert_round(session, project.id, trigger=QUERY, query=asdict(query), state="running")
        with _telling(project.id, round_.number, tell):
            _run(project, round_.number)
        return _read(project, round_.number, pushed)


def _filled(pool: Pool | str, kind: Kind) -> tuple[Project, Pushed]:
    nothing = Pushed(0, 0, 0, [])
    if isinstance(pool, str):
        with reading() as session:
            return project_named(session, pool), nothing
    with transaction() as session:
        project = make_project(session, NewProject(name=pool.name, kind=kind, pool=pool.section))
    return project, push_named(project, pool.uris, ()) if pool.uris else nothing


@contextmanager
def _alone(project: Project) -> Iterator[None]:
    """One command at a time for a project; what a killed one left running has failed."""
    with alone(settings().home / "select" / f"{project.name}.lock"):
        with transaction() as session:
            left = sa.update(Round).where(Round.project_id == project.id, Round.workflow_id.startswith(HERE))
            end = {"state": "failed", "failure": "its process ended", "finished_at": now()}
            session.execute(left.where(Round.state == "running").values(end))
        yield


@contextmanager
def _telling(project_id: int, number: int, tell: Tell) -> Iterator[None]:
    done = threading.Event()

    def look() -> None:
        mine = sa.select(Round.step, Round.progress).where(Round.project_id == project_id, Round.number == number)
        while not done.wait(_LOOK_S):
            with reading() as session:
                step, progress = session.execute(mine).one()
            tell(step, progress.get("done") or 0, progress.get("total") or 0)

    thread = threading.Thread(target=look, name="tell", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _run(project: Project, number: int) -> None:
    from backend.rounds.round import answer_query  # brings torch

    try:
        answer_query(project.id, number)
    except Exception as failure:
        with reading() as session:
            mine = sa.select(Round.failure).where(Round.project_id == project.id, Round.number == number)
            reason = session.scalar(mine)
        raise QueryFailed(number=number, project=project.name, reason=reason or type(failure).__name__) from failure


def _read(project: Project, number: int, pushed: Pushed) -> Selection:
    of_project = Item.project_id == project.id
    with reading() as session:
        batch = session.scalars(
            sa.select(Batch)
            .join(Round, Round.id == Batch.round_id)
            .where(Round.project_id == project.id, Round.number == number)
        ).one()
        rows = session.execute(
            sa.select(Pick, Item.uri).join(Item).where(Pick.batch_id == batch.id).order_by(Pick.rank)
        ).all()
        states = session.execute(sa.select(Item.state, sa.func.count()).where(of_project).group_by(Item.state)).all()
        failed = sa.select(Item.failure).where(of_project, Item.state == "failed").limit(3)
        failures = [str(reason) for reason in session.scalars(failed)]
    counts = {state: count for state, count in states if state != "gone"}
    picks = [
        Selected(pick.rank, _shown(uri), pick.utility, pick.reason, (pick.prediction or {}).get("label"))
        for pick, uri in rows
    ]
    lost = counts.get("failed", 0) + pushed.refused
    total = sum(counts.values()) + pushed.refused
    return Selection(
        project.name, number, batch.strategy, batch.policy, total, lost, [*pushed.reasons, *failures], picks
    )


def _shown(uri: str) -> str:
    """A local file by its path, as a person names it."""
    root = settings().data_root
    if root is None or not uri.startswith(LOCAL_FILES):
        return uri
    return str(root / unquote(uri.removeprefix(LOCAL_FILES)))


def _is_web(address: str) -> bool:
    return address.startswith(("http://", "https://", "ftp://"))


def _folders(buckets: Sequence[str]) -> tuple[str, ...]:
    """Where the named objects lie: their bucket and prefix."""
    return tuple(sorted({one.rpartition("/")[0] or one for one in buckets}))
