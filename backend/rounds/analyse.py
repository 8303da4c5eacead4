"""After the batch is out: look closely at the round's version and the champion on the random holdout."""

import asyncio
import datetime as dt
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sqlalchemy as sa
import structlog
from numpy.typing import NDArray

from backend.database import Annotation, Item, ModelAnalysis, ModelVersion, Project, Round, now, reading, transaction
from backend.errors import NextbatchError
from backend.learning import registry, sensitivity, slices
from backend.learning.heads import Head
from backend.learning.look import Look
from backend.learning.targets import Target, target_of
from backend.pool.catalog import Labelled, chunks, labelled
from backend.questions import question
from backend.rounds.encoding import Embeddings, open_embeddings, open_encoder, source_config
from backend.rounds.items import decoder, encoder_of, opened
from backend.studio.labels import LabelTask

log = structlog.get_logger()

FEWEST = 30  # labels of the holdout below which a closer look tells nothing
_MINIBATCH = 32


def analyse(project_id: int, number: int) -> dict[str, Any]:
    """Keep an analysis with the version that this round made and with the champion. Run again, it writes the same.

    What a service that is away makes impossible is left out, with a line in the log: people have their batch, and the
    round is not to fail of it.
    """
    with reading() as session:
        project = session.get_one(Project, project_id)
        mine = sa.select(ModelVersion).join(Round, Round.id == ModelVersion.round_id)
        made = session.scalar(mine.where(Round.project_id == project_id, Round.number == number))
        champion = registry.champion(session, project_id)
        asked = LabelTask.parse(project.label_config).question
        holdout = [row for row in labelled(session, project_id, asked) if row.is_holdout]
    versions = {version.id: version for version in (made, champion) if version is not None}
    if len(holdout) < FEWEST or not versions:
        return {}
    embeddings = open_embeddings(project)
    analysed = []
    for version in versions.values():
        if version.encoder_digest != embeddings.digest or version.state == "deleted":
            continue
        found = _look(project, version, holdout, embeddings)
        if found is not None:
            with transaction() as session:
                session.merge(ModelAnalysis(version_id=version.id, found=found.as_dict(), made_at=now()))
            analysed.append(version.name)
    return {"analysed": analysed}


def _look(project: Project, version: ModelVersion, holdout: Sequence[Labelled], embeddings: Embeddings) -> Look | None:
    """None where the version knows the labels of too few items that have an embedding."""
    head = registry.load_head(version)
    target = target_of(question(head.task, head.classes))
    known = [row for row in holdout if target.question.knows(row.label)]
    is_there = embeddings.store.locate([row.content_hash for row in known]) >= 0
    known = [row for row, there in zip(known, is_there, strict=True) if there]
    if len(known) < FEWEST:
        return None
    truth = target.encode([row.label for row in known])
    said = head.predict(embeddings.gather([row.content_hash for row in known]))
    found = target.look(head, said, truth, _members(known), version.seed)
    try:
        changes = _changes(project, target, head, known, truth, embeddings)
    except (NextbatchError, OSError) as problem:
        log.warning("analyse.sensitivity_unknown", project=project.name, version=version.name, problem=str(problem))
        changes = ()
    return replace(found, changes=changes)


def _members(rows: Sequence[Labelled]) -> list[slices.Members]:
    """The holdout by every field of its tasks' data, by who labelled, and by when, in four parts."""
    data: dict[int, Mapping[str, Any]] = {}
    given: dict[int, dt.datetime] = {}
    for chunk in chunks([row.item_id for row in rows]):
        with reading() as session:
            data |= dict(session.execute(sa.select(Item.id, Item.data).where(Item.id.in_(chunk))).all())
            dated = sa.select(Annotation.item_id, sa.func.max(Annotation.created_at))
            dated = dated.where(Annotation.item_id.in_(chunk), Annotation.deleted_at.is_(None))
            given |= dict(session.execute(dated.group_by(Annotation.item_id)).all())
    fields = sorted({name for known in data.values() for name in known if not name.startswith("nextbatch_")})
    found = [
        one for name in fields for one in slices.members_of(name, [data.get(row.item_id, {}).get(name) for row in rows])
    ]
    people: dict[str, list[int]] = defaultdict(list)
    for at, row in enumerate(rows):
        for person in sorted(set(row.annotations.values())):
            people[person].append(at)
    order = sorted(range(len(rows)), key=lambda at: (given[rows[at].item_id], at))
    times: dict[str, list[int]] = {}
    for part in np.array_split(np.array(order), 4):
        ends = [given[rows[int(at)].item_id].date().isoformat() for at in (part[0], part[-1])]
        times[f"{len(times) + 1} of 4 ({' to '.join(dict.fromkeys(ends))})"] = part.tolist()
    return [
        *found,
        *slices.named_groups("annotator", people, len(rows)),
        *slices.named_groups("labelled", times, len(rows)),
    ]


def _changes(
    project: Project,
    target: Target,
    head: Head,
    rows: Sequence[Labelled],
    truth: NDArray[Any],
    embeddings: Embeddings,
) -> tuple[sensitivity.Change, ...]:
    """What small changes do to a sample that stays: the images of the smallest hashes. Texts are not changed.

    The vectors of changed images are kept in the store under names of their own, so a later version costs no encoder.
    """
    most = project.settings.analysis.sensitivity_items
    if embeddings.spec.kind != "image" or most < FEWEST:
        return ()
    chosen = sorted(range(len(rows)), key=lambda at: rows[at].content_hash)[:most]
    missing = [
        rows[at]
        for at in chosen
        if (embeddings.store.locate([_named(rows[at].content_hash, name) for name in sensitivity.CHANGES]) < 0).any()
    ]
    if missing:
        with embeddings.store.held():
            _encode_changed(project, missing, embeddings)
    hashes = [rows[at].content_hash for at in chosen]
    is_here = np.all(
        [embeddings.store.locate([_named(hash_, name) for hash_ in hashes]) >= 0 for name in sensitivity.CHANGES],
        axis=0,
    )
    chosen = [at for at, here in zip(chosen, is_here, strict=True) if here]
    if len(chosen) < FEWEST:
        return ()
    plain = head.predict(embeddings.gather([rows[at].content_hash for at in chosen]))
    changed = {
        name: head.predict(embeddings.gather([_named(rows[at].content_hash, name) for at in chosen]))
        for name in sensitivity.CHANGES
    }
    return tuple(target.change(name, head, (said, plain), truth[chosen]) for name, said in changed.items())


def _encode_changed(project: Project, rows: Sequence[Labelled], embeddings: Embeddings) -> None:
    """Store the vectors of these items' changed images. An item that cannot be read any more is left out."""
    with reading() as session:
        named = sa.select(Item.content_hash, Item.uri).where(Item.id.in_([row.item_id for row in rows]))
        uris = {hash_: uri for hash_, uri in session.execute(named) if hash_ is not None}
    decode = decoder(embeddings.spec)
    by_shape: dict[tuple[int, ...], list[tuple[str, NDArray[np.uint8]]]] = defaultdict(list)
    for hash_, blob in asyncio.run(_fetched(project, uris)):
        if hashlib.sha256(blob).hexdigest() != hash_:  # its source has something else by now
            continue
        pixels = decode(blob)
        for name in sensitivity.CHANGES:
            changed = sensitivity.change(name, pixels, seed=int(hash_[:8], 16))
            by_shape[changed.shape].append((_named(hash_, name), changed))
    encoder = open_encoder(encoder_of(project))
    for same in by_shape.values():
        for part in chunks(same, _MINIBATCH):
            rows_ = encoder.encode(np.stack([pixels for _, pixels in part]))
            embeddings.store.put([key for key, _ in part], rows_)


async def _fetched(project: Project, uris: Mapping[str, str]) -> Iterable[tuple[str, bytes]]:
    """Bytes by content hash of those that can still be read."""
    is_inline = LabelTask.parse(project.label_config).is_inline
    async with opened(source_config(project.settings), is_inline) as fetch:
        blobs = await asyncio.gather(*(fetch(uri) for uri in uris.values()), return_exceptions=True)
    return [(hash_, blob) for hash_, blob in zip(uris, blobs, strict=True) if isinstance(blob, bytes)]


def _named(content_hash: str, change: str) -> str:
    """The name of a changed content in the vector store: a sha256, as all names there."""
    return hashlib.sha256(f"{content_hash}:{change}".encode()).hexdigest()
