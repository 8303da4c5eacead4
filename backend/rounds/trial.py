"""A new encoder's trial: the exported network in this process says what each Triton must answer for the same items."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from backend.database import Item, Project, reading
from backend.errors import EncoderDown, EncoderRefused, EncoderUntried, NextbatchError
from backend.learning.encoders import EncoderSpec
from backend.rounds.encoding import lay_out, source_config
from backend.rounds.items import decoder, opened
from backend.scoring.encoder import Inputs
from backend.scoring.local import LocalEncoder
from backend.scoring.servers import addresses
from backend.scoring.triton import TritonEncoder
from backend.settings import settings
from backend.studio.labels import LabelTask

ITEMS = 64
SPARE = 32  # items more that are asked for, because some may not be readable
LEAST_COSINE = 0.999  # one precision on two servers differs by 1e-6; bf16 beside fp32 by more than this
_LOAD_S = 120.0  # a large network on a busy machine; a person's request is not waiting for it
_AT_ONCE, _PART = 4, 16  # so that every instance of the model gets some and is warm

_MEND = "Mend the file that encoder.weights names, or set the encoder back."


@dataclass(frozen=True)
class Trial:
    """What was seen: `items` tried, the lowest cosine between any server and the reference, None without a server."""

    items: int
    servers: int
    least_cosine: float | None
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def try_out(project: Project, spec: EncoderSpec) -> Trial:
    """Load the encoder in every Triton beside what is there, warm it up, and compare it with the reference.

    On 64 items of the project drawn by content hash, or on as many as there are. Raises EncoderRefused, and EncoderDown
    or EncoderUntried where waiting may help. Nothing that answers now is touched.
    """
    started = time.monotonic()
    groups = _groups(_sample(project, spec))
    rows = _reference(spec, groups)
    _refuse_senseless(spec, rows)
    urls = addresses(settings().triton_url or "")
    cosines = [_tried(url, spec, groups, rows) for url in urls]
    least = min(cosines) if cosines and len(rows) else None
    return Trial(len(rows), len(urls), least, round(time.monotonic() - started, 2))


def _sample(project: Project, spec: EncoderSpec) -> list[Inputs]:
    """At most 64 items as they travel to the encoder. Raises EncoderUntried."""
    query = (
        sa.select(Item.uri)
        .where(Item.project_id == project.id, Item.state == "encoded")
        .order_by(Item.content_hash, Item.id)
        .limit(ITEMS + SPARE)
    )
    with reading() as session:
        uris = session.scalars(query).all()
    is_inline = LabelTask.parse(project.label_config).is_inline

    async def fetched() -> list[bytes | BaseException]:
        async with opened(source_config(project.settings), is_inline) as fetch:
            return await asyncio.gather(*(fetch(uri) for uri in uris), return_exceptions=True)

    decode, found, problem = decoder(spec), list[Inputs](), ""
    for blob in asyncio.run(fetched()):
        try:
            if isinstance(blob, BaseException):
                raise blob
            found.append(decode(blob))
        except (NextbatchError, OSError) as error:
            problem = problem or str(error)
    if uris and not found:
        raise EncoderUntried(count=len(uris), problem=problem)
    return found[:ITEMS]


def _groups(items: Sequence[Inputs]) -> list[Inputs]:
    """The items as minibatches of one shape each."""
    alike: dict[tuple[int, ...], list[Inputs]] = defaultdict(list)
    for item in items:
        alike[item.shape].append(item)
    return [np.stack(group) for group in alike.values()]


def _reference(spec: EncoderSpec, groups: Sequence[Inputs]) -> NDArray[np.float32]:
    """What the exported network gives in this process, float32 (n, dims). Raises EncoderRefused."""
    try:
        encoder = LocalEncoder(spec, streams=1)
        return np.concatenate([np.empty((0, spec.dims), np.float32), *map(encoder.encode, groups)])
    except (NextbatchError, RuntimeError) as error:  # OpenVINO cannot read the network
        raise EncoderRefused(name=spec.name, problem=str(error)[:300], mend=_MEND) from error


def _refuse_senseless(spec: EncoderSpec, rows: NDArray[np.float32]) -> None:
    """Weights of a broken training: numbers that are none, or one answer for everything."""
    if not np.isfinite(rows).all():
        raise EncoderRefused(name=spec.name, problem="it gives embeddings that are not finite", mend=_MEND)
    if len(rows) > 1 and not rows.std(axis=0).any():
        raise EncoderRefused(name=spec.name, problem=f"it gives {len(rows)} items one embedding", mend=_MEND)


def _tried(url: str, spec: EncoderSpec, groups: Sequence[Inputs], expected: NDArray[np.float32]) -> float:
    """The lowest cosine between this server and `expected`; 1 where there is nothing to compare."""
    lay_out(spec)
    encoder = TritonEncoder(url, spec, _LOAD_S)
    try:
        encoder.look()
        parts = [part for group in groups for part in _parts(group)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            served = np.concatenate([np.empty((0, spec.dims), np.float32), *pool.map(encoder.encode, parts)])
    except EncoderDown:
        raise
    except NextbatchError as error:
        mend = "See Triton's log, and that its repository holds the model (nextbatch export)."
        raise EncoderRefused(name=spec.name, problem=error, mend=mend) from error
    finally:
        encoder.close()
    norms = np.linalg.norm(served, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (served * expected).sum(axis=1) / np.maximum(norms, np.finfo(np.float32).tiny)
    least = float(cosines.min(initial=1.0))
    if not least >= LEAST_COSINE:
        problem = f"Triton at {url} gives other embeddings than the exported network (cosine {least:.4f})"
        raise EncoderRefused(name=spec.name, problem=problem, mend="Give both machines one precision and one file.")
    return least


def _parts(group: Inputs) -> Iterator[Inputs]:
    for start in range(0, len(group), _PART):
        yield group[start : start + _PART]
