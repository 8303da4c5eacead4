"""A TCP proxy that makes a store slow: every piece of a request arrives `delay` later, answers pass at once.

    python -m benchmarks.scan.delay_proxy HOST:PORT DELAY_MS [--hold TEXT --hold-s SECONDS] [--count TEXT]

Prints the port that it listens on. A keep-alive request so takes one delay more, as over a longer wire; opening a
connection costs nothing more, which is in favour of clients that open one an image. A piece that holds TEXT (an
object's name in its request line) is kept back for so many seconds: a stalled object. On SIGUSR1 it prints how many
pieces held the text to count.
"""

import argparse
import asyncio
import signal
from collections.abc import Callable


class _Pipe(asyncio.Protocol):
    """One direction. What comes in leaves through `other` when it is due, in order."""

    def __init__(self, delay_of: Callable[[bytes], float]) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Pipe | None = None
        self._delay_of = delay_of
        self._loop = asyncio.get_running_loop()
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        delay_s = self._delay_of(data)
        if delay_s == 0:
            self._send(data)
            return
        self._due = max(self._loop.time() + delay_s, self._due + 1e-6)
        self._loop.call_at(self._due, self._send, data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # asyncio gives it by name
        if self.other is not None and self.other.transport is not None:
            self._loop.call_at(max(self._due, self._loop.time()), self.other.transport.close)

    def _send(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.write(data)


class _Inbound(_Pipe):
    """A client's side: opens the way to the store before it reads."""

    def __init__(self, delay_of: Callable[[bytes], float], host: str, port: int) -> None:
        super().__init__(delay_of)
        self._host, self._port = host, port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        assert self.transport is not None
        try:
            _, outbound = await self._loop.create_connection(lambda: _Pipe(lambda _data: 0.0), self._host, self._port)
        except OSError:
            self.transport.abort()
            return
        outbound.other, self.other = self, outbound
        self.transport.resume_reading()


async def serve(host: str, port: int, delay_s: float, hold: bytes, hold_s: float, counted: bytes) -> None:
    """Listen on a free port of loopback, print it, and go on for ever."""
    count = 0

    def delay_of(data: bytes) -> float:
        nonlocal count
        count += bool(counted) and counted in data
        return delay_s + (hold_s if hold and hold in data else 0.0)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: print(count, flush=True))
    server = await loop.create_server(lambda: _Inbound(delay_of, host, port), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upstream")
    parser.add_argument("delay_ms", type=float)
    parser.add_argument("--hold", default="")
    parser.add_argument("--hold-s", type=float, default=30.0)
    parser.add_argument("--count", default="")
    options = parser.parse_args()
    host, _, port = options.upstream.rpartition(":")
    texts = options.hold.encode(), options.hold_s, options.count.encode()
    asyncio.run(serve(host, int(port), options.delay_ms / 1000, *texts))


if __name__ == "__main__":
    main()
