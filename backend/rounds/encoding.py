"""Encode what is new, and read embeddings back: the joint of pool, encoder and vector store."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
import structlog
from numpy.typing import NDArray

from backend.database import Item, Project, reading, transaction
from backend.errors import NextbatchError
from backend.learning.encoders import EncoderSpec, export, load
from backend.pool import catalog
from backend.pool.decode import decode
from backend.pool.sources import SourceConfig, Sources
from backend.scoring.encoder import Encoder
from backend.scoring.pipeline import Scan, ScanItem
from backend.scoring.vectors import VectorStore
from backend.settings import EncoderSection, ProjectConfig, settings

log = structlog.get_logger()

Progress = Callable[[int, int], None]


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
def _open(section: EncoderSection) -> Embeddings:
    precision = None if section.precision == "auto" else section.precision
    spec = export(section.name, section.weights, settings().home / "encoders", precision)
    return Embeddings(spec, VectorStore(settings().home / "vectors", spec.digest, spec.dims))


def open_embeddings(config: ProjectConfig) -> Embeddings:
    """The embeddings of the project's encoder; the encoder is exported the first time."""
    return _open(config.encoder)


def encode_now(project_id: int, encoder_digest: str, uris: list[str]) -> dict[str, NDArray[Any]]:
    """Embeddings (d,) float32 by URI of a few items that a person has open, through Triton; what fails is left out.

    For the web process: no torch, and nothing where there is no Triton, because a network would be loaded here.
    """
    url = settings().triton_url
    if url is None:
        return {}
    with reading() as session:
        config = session.get_one(Project, project_id).settings
    spec = load(settings().home / "encoders", encoder_digest)

    async def pixels() -> dict[str, NDArray[np.uint8]]:
        async with Sources(source_config(config)) as sources:
            blobs = await asyncio.gather(*(sources.fetch(uri) for uri in uris), return_exceptions=True)
        found: dict[str, NDArray[np.uint8]] = {}
        for uri, blob in zip(uris, blobs, strict=True):
            with contextlib.suppress(NextbatchError):
                if not isinstance(blob, BaseException):
                    found[uri] = decode(blob.data, spec.side)
        return found

    encoder = _client(url, spec)
    return {uri: encoder.encode(image[None])[0] for uri, image in asyncio.run(pixels()).items()}


@lru_cache(maxsize=4)
def _client(url: str, spec: EncoderSpec) -> Encoder:
    from backend.scoring.triton import TritonEncoder

    return TritonEncoder(url, spec, timeout_s=5.0)


def model_repository() -> Path:
    """What the embedded Triton serves. A Triton by URL is given a repository by its own administrator."""
    return settings().home / "triton" / "models"


@lru_cache(maxsize=8)
def open_encoder(section: EncoderSection) -> Encoder:
    """The encoder in Triton where there is one, else in this process."""
    spec = _open(section).spec
    url = settings().triton_url
    if url is None:
        from backend.scoring.local import LocalEncoder

        return LocalEncoder(spec, streams=settings().worker_threads)
    from backend.scoring.repository import write_model
    from backend.scoring.triton import TritonEncoder

    write_model(model_repository(), spec.name, spec.path, spec.digest, spec.dims, spec.precision)
    return TritonEncoder(url, spec)


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


def encode_new(project_id: int, progress: Progress, cancel: threading.Event | None = None) -> dict[str, Any]:
    """Encode every item that has no embedding under the project's encoder. What is there already costs nothing."""
    with reading() as session:
        config = session.get_one(Project, project_id).settings
    embeddings = open_embeddings(config)
    _forget_missing(project_id, embeddings)
    with reading() as session:
        waiting = session.scalar(
            sa.select(sa.func.count()).select_from(Item).where(Item.project_id == project_id, Item.state == "new")
        )
    if not waiting:
        return {"encoded": 0, "failed": 0}
    encoder = open_encoder(config.encoder)
    progress(0, waiting)

    def done(hashes: dict[int, str]) -> None:
        with transaction() as session:
            catalog.mark_encoded(session, hashes)

    def failed(reasons: dict[int, str]) -> None:
        with transaction() as session:
            catalog.mark_failed(session, reasons)

    async def run() -> dict[str, Any]:
        async with Sources(source_config(config)) as sources:

            async def fetch(uri: str) -> bytes:
                return (await sources.fetch(uri)).data

            scan = Scan(
                fetch,
                lambda data: decode(data, embeddings.spec.side),
                encoder,
                embeddings.store,
                done,
                failed,
                progress,
                cancel,
            )
            report = await scan.run(_new_items(project_id), waiting)
        log.info("encode.done", project=project_id, **vars(report))
        return {"encoded": report.encoded + report.found, "failed": report.failed}

    return asyncio.run(run())


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


def _forget_missing(project_id: int, embeddings: Embeddings) -> None:
    """Items that another encoder encoded are new to this one."""
    with reading() as session:
        known = catalog.encoded_items(session, project_id)
    rows = embeddings.store.locate([content_hash for _, _, content_hash in known])
    missing = [known[place][0] for place in np.flatnonzero(rows < 0)]
    if missing:
        with transaction() as session:
            catalog.forget_embeddings(session, missing)
