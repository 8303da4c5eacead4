"""Small pictures of items for the pages: read through the pool's guards, decoded as the model sees them, written anew.

What a browser gets is a JPEG that we encoded, whatever the item's bytes were.
"""

import asyncio
import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import simplejpeg

from backend.database import Item, Project
from backend.pool.decode import Pixels, decode
from backend.pool.sources import SourceConfig, Sources
from backend.rounds.encoding import source_config
from backend.web.views.task import task_of

SIDE = 192  # pixels; the pages show 96 of them, which is sharp on dense screens too
WITHIN_S = 8.0
KEPT = 512  # thumbnails of some 6 KB
_AT_ONCE = 4  # decoding threads: the others answer Label Studio
_ADMITTED = 8  # with those that wait; a browser asks for six at a time

_admitted = threading.BoundedSemaphore(_ADMITTED)
_working = threading.BoundedSemaphore(_AT_ONCE)
_lock = threading.Lock()
_kept: OrderedDict[tuple[int, str], bytes] = OrderedDict()


class Busy(Exception):
    """Too many thumbnails are being made at this moment."""


def is_pictured(project: Project) -> bool:
    """Whether the project's items are images."""
    task = task_of(project)
    return task is None or task.kind == "image"


def entity_tag(item: Item) -> str | None:
    """What stays the same while the picture does; None while the item's bytes were never read."""
    return None if item.content_hash is None else f"{item.content_hash}-{SIDE}"


def thumbnail(project: Project, item: Item) -> bytes:
    """The item as a JPEG, at most 192 pixels wide and high. Raises ItemUnreadable's kinds, and Busy."""
    tag = entity_tag(item)
    if tag is not None and (found := _find((project.id, tag))) is not None:
        return found
    with _turn():
        blob = asyncio.run(_fetch(_small(source_config(project.settings)), item.uri))
        jpeg = encode(decode(blob, SIDE))
    if tag is not None:
        _keep((project.id, tag), jpeg)
    return jpeg


def encode(pixels: Pixels) -> bytes:
    """uint8 RGB (h, w, 3) as JPEG bytes."""
    jpeg: bytes = simplejpeg.encode_jpeg(pixels, quality=80, colorspace="RGB", colorsubsampling="420")
    return jpeg


async def _fetch(config: SourceConfig, uri: str) -> bytes:
    async with Sources(config) as sources:
        return (await sources.fetch(uri)).data


def _small(config: SourceConfig) -> SourceConfig:
    """A person waits: one attempt, no more connections than it takes."""
    return dataclasses.replace(config, timeout_s=WITHIN_S, retries=0, connections=1)


@contextmanager
def _turn() -> Iterator[None]:
    if not _admitted.acquire(blocking=False):
        raise Busy
    try:
        with _working:
            yield
    finally:
        _admitted.release()


def _find(key: tuple[int, str]) -> bytes | None:
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
        return _kept.get(key)


def _keep(key: tuple[int, str], jpeg: bytes) -> None:
    with _lock:
        _kept[key] = jpeg
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
