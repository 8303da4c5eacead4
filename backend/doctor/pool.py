"""The pool of a project: that it can be read, what could not be, and how the last round ended."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import sqlalchemy as sa

from backend.database import Item, reading, transaction
from backend.doctor.finding import Finding, fault, note, ok, told
from backend.doctor.site import ProjectSite
from backend.errors import ItemUnreadable
from backend.pool import catalog, texts
from backend.pool.decode import decode
from backend.rounds.encoding import source_config
from backend.rounds.items import opened
from backend.studio.labels import LabelTask

FAILED_SHARE = 0.05
TRIED = 3  # one broken item among them is no broken source
TIMEOUT_S = 10.0
_SIDE = 32
_ADDRESS = re.compile(r"\S*[/\\]\S*")


def source(here: ProjectSite) -> Iterator[Finding]:
    """A few items, fetched and decoded as a round does it: a login page instead of an image is found, too."""
    some = sa.select(Item.uri).where(Item.project_id == here.project.id, Item.state.in_(("new", "encoded")))
    with reading() as session:
        uris = session.scalars(some.order_by(Item.id.desc()).limit(TRIED)).all()
    if not uris:
        mend = f"Run: nextbatch round {here.project.name} (it reads the tasks), or nextbatch seed for a folder"
        yield note("there is no item to read", "A batch is chosen from the pool, which is empty.", mend)
        return
    reasons = asyncio.run(_read(here, uris))
    if None in reasons:
        yield ok(f"read {_short(uris[reasons.index(None)])}")
    else:
        why = "What cannot be read is not encoded, and never picked."
        yield fault(f"none of {len(uris)} items can be read: {reasons[0]}", why, "See the message.")


async def _read(here: ProjectSite, uris: Sequence[str]) -> list[str | None]:
    """Why each cannot be read; None for one that can."""
    task = LabelTask.parse(here.project.label_config)
    open_ = partial(decode, side=_SIDE) if task.kind == "image" else texts.decode
    config = replace(source_config(here.project.settings), timeout_s=TIMEOUT_S, retries=1)
    async with opened(config, task.is_inline) as fetch:

        async def read(uri: str) -> str | None:
            try:
                await asyncio.to_thread(open_, await fetch(uri))
            except ItemUnreadable as error:
                return told(error)
            return None

        return await asyncio.gather(*(read(uri) for uri in uris))


def items(here: ProjectSite) -> Iterator[Finding]:
    of_project = sa.select(sa.func.count()).select_from(Item).where(Item.project_id == here.project.id)
    is_failed = (Item.project_id == here.project.id, Item.state == "failed")
    with reading() as session:
        count = session.scalar(of_project) or 0
        failed = session.execute(sa.select(Item.id, Item.failure).where(*is_failed)).all()
    if len(failed) <= FAILED_SHARE * count:
        yield ok(f"{count}, of which {len(failed)} could not be read")
        return
    # Reasons begin with the item's own address: without it, alike is alike.
    kinds = Counter(_ADDRESS.sub("…", reason or "") for _, reason in failed)
    kind, times = kinds.most_common(1)[0]
    example = next(reason for _, reason in failed if _ADDRESS.sub("…", reason or "") == kind)
    ids = [number for number, _ in failed]
    reason = _short(example or "no reason", 300)
    yield fault(
        f"{len(failed)} of {count} items could not be read; most often ({times}): {reason}",
        "They are never picked.",
        "Mend that, then run: nextbatch doctor --fix (the next round reads them again)",
        lambda: _read_again(ids),
    )


def _read_again(ids: Sequence[int]) -> None:
    with transaction() as session:
        catalog.forget_embeddings(session, ids)


def rounds(here: ProjectSite) -> Iterator[Finding]:
    last = here.last_round()
    again = f"nextbatch round {here.project.name}"
    if last is None:
        yield note("there was none", "The first one publishes the first batch.", f"Run: {again}")
    elif last.state == "failed":
        why = "The batch is not renewed, and the model does not learn."
        yield fault(f"round {last.number} failed: {last.failure}", why, f"Mend that, then run: {again}")
    else:
        yield ok(f"round {last.number} is {last.state}{f' ({last.step})' if last.step else ''}")


def _short(text: str, longest: int = 120) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
