"""Encode what is new, and read embeddings back: the joint of pool, encoder and vector store."""

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
import structlog
from numpy.typing import NDArray

from backend.database import Item, Project, lock_project, reading, transaction
from backend.errors import EncoderUnreadable, Int8Missing, JobMismatch, NextbatchError
from backend.learning.encoders import EncoderSpec, export, load
from backend.pool import catalog
from backend.pool.sources import SourceConfig
from backend.rounds.items import Named, decoder, encoder_of, opened, wanted_encoder
from backend.scoring.encoder import Encoder
from backend.scoring.minibatches import Store
from backend.scoring.pipeline import Scan, ScanConfig, ScanItem, ScanReport
from backend.scoring.servers import addresses
from backend.scoring.stages import Stages
from backend.scoring.vectors import VectorStore
from backend.settings import EncoderSection, ProjectConfig, settings
from backend.studio.labels import LabelTask

log = structlog.get_logger()

Progress = Callable[[int, int], None]
# Objects between two searches for cycles, for this process from its first scan on. After every 700, as Python has it,
# they took a fifth of the scan's thread: each item makes dozens, and no cycle.
GC_OBJECTS = 10_000


@dataclass(frozen=True)
class Embeddings:
    """The stored vectors of a project's encoder."""

    spec: EncoderSpec
    store: VectorStore

    @property
    def digest(self) -> str:
        return self.spec.digest

    def gather(self, hashes: Sequence[str]) -> NDArray[Any]:
        """Embeddings (n, d) float16 of these contents, in this order."""
        if not hashes:
            return np.empty((0, self.spec.dims), np.float16)
        return self.store.gather(hashes)


@lru_cache(maxsize=8)
def embeddings_of(section: EncoderSection) -> Embeddings:
    """The embeddings of that encoder, which `items.encoder_for` has named; it is exported the first time.

    Raises JobMismatch where it is known by another digest than its weights have here.
    """
    spec = spec_of(section)
    return Embeddings(spec, VectorStore(settings().home / "vectors", spec.digest, spec.dims))


def spec_of(section: EncoderSection) -> EncoderSpec:
    """An encoder that is known by its digest is what was exported then, whatever its weights' file holds now."""
    folder = settings().home / "encoders"
    digest = section.digest if isinstance(section, Named) else ""
    if digest:
        with contextlib.suppress(EncoderUnreadable):
            return load(folder, digest)
    if section.precision == "int8":
        problem = f"its form {digest[:12] or 'without a digest'} is not in {folder}"
        raise Int8Missing(problem=problem, mend="Copy that folder from the home where it was made, or set it to auto.")
    wanted = settings().precision if section.precision == "auto" else section.precision
    spec = export(section.name, section.weights, folder, None if wanted == "auto" else wanted)
    if digest and spec.digest != digest:
        raise JobMismatch(mine=spec.digest[:12], wanted=digest[:12])
    return spec


def open_embeddings(project: Project) -> Embeddings:
    """The embeddings of the encoder that the project uses."""
    return embeddings_of(encoder_of(project))


def settle(project_id: int) -> None:
    """The first scan decides which encoder is in use; from then on `changes` replaces it. Idempotent."""
    with reading() as session:
        project = session.get_one(Project, project_id)
    section = Named.model_validate(encoder_of(project).model_dump())
    if section.digest:
        return
    known = section.model_copy(update={"digest": embeddings_of(section).digest}).model_dump(mode="json")
    with transaction() as session:
        lock_project(session, project_id)
        now = session.get_one(Project, project_id)
        if now.encoder == project.encoder and (project.encoder is not None or wanted_encoder(now) == section):
            now.encoder = known


def encode_now(project_id: int, encoder_digest: str, uris: list[str]) -> dict[str, NDArray[Any]]:
    """Embeddings (d,) float32 by URI of a few items that a person has open, through Triton; what fails is left out.

    For the web process: no torch, and nothing where there is no Triton, because a network would be loaded here.
    """
    url = settings().triton_url
    if url is None:
        return {}
    with reading() as session:
        project = session.get_one(Project, project_id)
    is_inline = LabelTask.parse(project.label_config).is_inline
    spec = _exported(settings().home / "encoders", encoder_digest)

    async def decoded() -> dict[str, NDArray[Any]]:
        decode = decoder(spec)
        async with opened(source_config(project.settings), is_inline) as fetch:
            blobs = await asyncio.gather(*(fetch(uri) for uri in uris), return_exceptions=True)
        found: dict[str, NDArray[Any]] = {}
        for uri, blob in zip(uris, blobs, strict=True):
            with contextlib.suppress(NextbatchError):
                if not isinstance(blob, BaseException):
                    found[uri] = decode(blob)
        return found

    encoder = _client(url, spec)
    return {uri: encoder.encode(item[None])[0] for uri, item in asyncio.run(decoded()).items()}


@lru_cache(maxsize=8)
def _exported(folder: Path, digest: str) -> EncoderSpec:
    """Checked once a process: to read 45 MB for each item that somebody opens takes longer than to encode it."""
    return load(folder, digest)


@lru_cache(maxsize=4)
def _client(url: str, spec: EncoderSpec) -> Encoder:
    from backend.scoring.servers import open_triton

    return open_triton(url, spec, timeout_s=5.0)


def model_repository() -> Path:
    """What the embedded Triton serves. A Triton by URL is given a repository by its own administrator."""
    return settings().home / "triton" / "models"


@lru_cache(maxsize=8)
def open_encoder(section: EncoderSection) -> Encoder:
    """The encoder in Triton where there is one, else in this process."""
    spec = embeddings_of(section).spec
    url = settings().triton_url
    if url is None:
        from backend.scoring.local import LocalEncoder

        return LocalEncoder(spec, streams=settings().worker_threads)
    from backend.scoring.servers import open_triton

    lay_out(spec)
    return open_triton(url, spec)


def lay_out(spec: EncoderSpec) -> str:
    """Put the encoder where the embedded Triton loads it from; what Triton calls it."""
    from backend.scoring.repository import write_model

    return write_model(model_repository(), spec.name, spec.path, spec.digest, spec.dims, spec.precision, spec.kind)


def source_config(config: ProjectConfig) -> SourceConfig:
    """What this project's items may be read from."""
    process = settings()
    key = process.label_studio_api_key
    return SourceConfig(
        data_root=process.data_root,
        allow_hosts=config.pool.allow_hosts,
        allow_buckets=config.pool.allow_buckets,
        s3_endpoint=config.pool.s3_endpoint,
        s3_region=config.pool.s3_region,
        label_studio_url=process.label_studio_url,
        label_studio_token=key.get_secret_value if key else None,
    )


def encode_new(
    project_id: int, progress: Progress, cancel: threading.Event | None = None, stages: Stages | None = None
) -> dict[str, Any]:
    """Encode every item that has no embedding under the project's encoder. What is there already costs nothing.

    `progress` is told (done, total) about once a second; how fast that is, `stages` can be asked.
    """
    with reading() as session:
        project = session.get_one(Project, project_id)
    embeddings = open_embeddings(project)
    forget_missing(project_id, embeddings)
    with reading() as session:
        waiting = session.scalar(
            sa.select(sa.func.count()).select_from(Item).where(Item.project_id == project_id, Item.state == "new")
        )
    if not waiting:
        return {"encoded": 0, "failed": 0}
    with embeddings.store.held():
        report = scan(
            project, _new_items(project_id), waiting, embeddings.store, mark_encoded, progress, cancel, stages
        )
    return {"encoded": report.encoded + report.found, "failed": report.failed}


def scan(
    project: Project,
    items: Iterable[ScanItem],
    total: int,
    store: Store,
    done: Callable[[dict[int, str]], None],
    progress: Progress,
    cancel: threading.Event | None = None,
    stages: Stages | None = None,
    section: EncoderSection | None = None,
    failed: Callable[[dict[int, str]], None] | None = None,
    config: ScanConfig | None = None,
) -> ScanReport:
    """Encode these items into `store`; `done` is told the contents of those that are in it, by id.

    With the encoder in use, or that of `section`; `failed` is told why items could not be encoded, by id.
    """
    section = section or encoder_of(project)
    encoder, spec = open_encoder(section), embeddings_of(section).spec
    is_inline = LabelTask.parse(project.label_config).is_inline
    config = config or ScanConfig()
    config = replace(config, in_flight=config.in_flight * max(1, len(addresses(settings().triton_url or ""))))
    gc.set_threshold(GC_OBJECTS)
    progress(0, total)

    async def run() -> ScanReport:
        async with opened(source_config(project.settings), is_inline, is_timed=False) as fetch:
            refused = failed or mark_failed
            scan = Scan(fetch, decoder(spec), encoder, store, done, refused, progress, cancel, config, stages)
            return await scan.run(items, total)

    report = asyncio.run(run())
    log.info("encode.done", project=project.id, **vars(report) | {"speed": str(report.speed)})
    return report


def mark_encoded(hashes: dict[int, str]) -> None:
    """These items' vectors are in the store: content hash by id."""
    with transaction() as session:
        catalog.mark_encoded(session, hashes)


def mark_failed(reasons: dict[int, str]) -> None:
    """These items cannot be encoded, and why, by id."""
    with transaction() as session:
        catalog.mark_failed(session, reasons)


def _new_items(project_id: int) -> Iterator[ScanItem]:
    """Items to encode, read by id in pages: what is done meanwhile is not read again."""
    first = 0
    while True:
        with reading() as session:
            page = catalog.new_items(session, project_id, first)
        if not page:
            return
        yield from (ScanItem(id_, uri) for id_, uri in page)
        first = page[-1][0] + 1


def forget_missing(project_id: int, embeddings: Embeddings) -> None:
    """Items that another encoder encoded are new to this one."""
    with reading() as session:
        known = catalog.encoded_hashes(session, project_id)
    rows = embeddings.store.locate(list(known.values()))
    ids = list(known)
    missing = [ids[place] for place in np.flatnonzero(rows < 0)]
    if missing:
        with transaction() as session:
            catalog.forget_embeddings(session, missing)
