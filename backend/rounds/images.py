"""Images of items that are known, as they travel to an encoder: fetched again and checked to be the same."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import sqlalchemy as sa
import structlog
from numpy.typing import NDArray

from backend.database import Item, Project, reading
from backend.errors import NextbatchError
from backend.learning.encoders import EncoderSpec
from backend.pool.catalog import chunks
from backend.rounds.encoding import source_config
from backend.rounds.items import decoder, opened
from backend.studio.labels import LabelTask

log = structlog.get_logger()

_AT_ONCE = 64


def images_of(
    project: Project, spec: EncoderSpec, known: Sequence[tuple[int, str]]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Each image (h, w, 3) of these items, named by id and content hash, with its place among them.

    One that cannot be read, or whose bytes are others by now, is left out.
    """
    decode = decoder(spec)
    is_inline = LabelTask.parse(project.label_config).is_inline
    with reading() as session:
        uris: dict[int, str] = {}
        for part in chunks([item_id for item_id, _ in known]):
            found = session.execute(sa.select(Item.id, Item.uri).where(Item.id.in_(part)))
            uris |= {row.id: row.uri for row in found}
    with asyncio.Runner() as runner:
        context = opened(source_config(project.settings), is_inline)
        fetch = runner.run(context.__aenter__())
        try:
            for wanted in chunks(enumerate(known), _AT_ONCE):

                async def fetched(wanted: list[tuple[int, tuple[int, str]]] = wanted) -> list[bytes | BaseException]:
                    asked = (fetch(uris[item_id]) for _, (item_id, _) in wanted)
                    return await asyncio.gather(*asked, return_exceptions=True)

                for (place, (item_id, content_hash)), blob in zip(wanted, runner.run(fetched()), strict=True):
                    image = _decoded(decode, blob, item_id, content_hash)
                    if image is not None:
                        yield place, image
        finally:
            runner.run(context.__aexit__(None, None, None))


def _decoded(
    decode: Callable[[bytes], NDArray[np.uint8]], blob: bytes | BaseException, item_id: int, content_hash: str
) -> NDArray[np.uint8] | None:
    if isinstance(blob, BaseException):
        if not isinstance(blob, NextbatchError):
            raise blob
        problem = str(blob)
    elif hashlib.sha256(blob).hexdigest() != content_hash:
        problem = "its bytes are others than they were"
    else:
        try:
            return decode(blob)
        except NextbatchError as error:
            problem = str(error)
    log.warning("image.left_out", item=item_id, problem=problem)
    return None
