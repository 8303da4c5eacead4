"""nextbatch as `nextbatch serve` runs it, web and one worker, but in this process: no start-up to wait or pay for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug.serving import make_server

from backend.processes import free_port
from backend.rounds import worker
from backend.rounds.encoding import encode_now
from backend.rounds.queue import prepare_database
from backend.web.app import create_app


@contextmanager
def web(port: int | None = None) -> Iterator[str]:
    """The web process's application over a prepared database; where it listens."""
    prepare_database()
    server = make_server("127.0.0.1", port or free_port(), create_app(encode_now=encode_now), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()


@contextmanager
def working() -> Iterator[None]:
    """A worker, until the end."""
    stopping = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stopping,))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
