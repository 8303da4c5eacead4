"""Items of one shape gathered into minibatches, encoded, and their rows stored, a bounded number at a time."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from backend.errors import NextbatchError
from backend.scoring.encoder import Encoder, Inputs
from backend.scoring.outage import MANY, until_back
from backend.scoring.stages import Stages

OPEN_MINIBATCHES = 4  # items of rare shapes that wait for company, in minibatches

T = TypeVar("T")


class Store(Protocol):
    def locate(self, hashes: Sequence[str]) -> NDArray[np.int64]: ...
    def put(self, hashes: Sequence[str], rows: NDArray[np.float32]) -> int: ...


class Limits(Protocol):
    """The part of a ScanConfig that concerns minibatches."""

    @property
    def minibatch(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def linger_s(self) -> float: ...
    @property
    def outage_s(self) -> float: ...


@dataclass(frozen=True)
class Decoded:
    """An item on its way to the encoder: an array of which those of one shape can share a minibatch."""

    key: int
    content_hash: str
    inputs: Inputs


class Minibatcher:
    """The last stage of a scan. `stored` is told of a minibatch whose rows are committed, `refused` of an item
    that the encoder or the store refused by itself; both are called in the loop's thread."""

    def __init__(
        self,
        encoder: Encoder,
        store: Store,
        threads: Executor,
        limits: Limits,
        stored: Callable[[Sequence[Decoded]], None],
        refused: Callable[[Decoded, NextbatchError], None],
        stages: Stages,
    ) -> None:
        self._encoder = encoder
        self._store = store
        self._threads = threads
        self._limits = limits
        self._stored = stored
        self._refused = refused
        self._stages = stages

    async def run(self, decoded: asyncio.Queue[Decoded | None]) -> None:
        """Encode what comes until None does, and return when all of it is stored. Raises what waiting did not mend."""
        open_: dict[tuple[int, ...], list[Decoded]] = {}
        places = asyncio.Semaphore(self._limits.in_flight)

        async def fly(batch: list[Decoded]) -> None:
            try:
                await self._encode(batch)
            finally:
                places.release()

        async with asyncio.TaskGroup() as flying:

            async def launch(shape: tuple[int, ...]) -> None:
                await places.acquire()
                flying.create_task(fly(open_.pop(shape)))

            while True:
                try:
                    async with asyncio.timeout(self._limits.linger_s if open_ else None):
                        item = await decoded.get()
                except TimeoutError:
                    for shape in list(open_):
                        await launch(shape)
                    continue
                if item is None:
                    break
                batch = open_.setdefault(item.inputs.shape, [])
                batch.append(item)
                if len(batch) == self._limits.minibatch:
                    await launch(item.inputs.shape)
                elif sum(map(len, open_.values())) >= OPEN_MINIBATCHES * self._limits.minibatch:
                    await launch(max(open_, key=lambda shape: len(open_[shape])))
            for shape in list(open_):
                await launch(shape)

    async def _encode(self, batch: list[Decoded]) -> None:
        try:
            await self._embed(batch)
        except NextbatchError as error:
            if error.is_passing:
                raise
            refused = [(batch[0], error)] if len(batch) == 1 else await self._encode_alone(batch)
            if len(refused) == len(batch) >= MANY:
                raise
            for item, reason in refused:
                self._refused(item, reason)

    async def _encode_alone(self, batch: list[Decoded]) -> list[tuple[Decoded, NextbatchError]]:
        """They were refused together: one of them may be at fault, and only it shall fail. Returns those refused."""
        refused = []
        for item in batch:
            try:
                await self._embed([item])
            except NextbatchError as error:
                if error.is_passing:
                    raise
                refused.append((item, error))
        return refused

    async def _embed(self, batch: list[Decoded]) -> None:
        """Encode a minibatch and store its rows."""
        inputs = np.stack([item.inputs for item in batch])
        hashes = [item.content_hash for item in batch]

        def encode() -> NDArray[np.float32]:
            with self._stages.at_work("encode", len(batch)):
                return self._encoder.encode(inputs)

        def store() -> int:
            with self._stages.at_work("store", len(batch)):
                return self._store.put(hashes, rows)

        rows = await self._until_back(encode)
        await self._until_back(store)
        self._stored(batch)

    async def _until_back(self, act: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        return await until_back(lambda: loop.run_in_executor(self._threads, act), self._limits.outage_s)
