"""Several Tritons that serve one encoder: the least loaded takes the next request, and one that is away is left out."""

import itertools
import threading
from contextlib import suppress

import numpy as np
import structlog
from numpy.typing import NDArray

from backend.errors import EncoderDown, EncoderNotLoaded
from backend.scoring.encoder import Encoder, Inputs, Model
from backend.scoring.triton import TritonEncoder

log = structlog.get_logger()

PATIENCE_S = 1.0  # where another server can take the request, this one is not waited for
LOOK_S = 1.0  # how often a server that is left out is looked at


def addresses(urls: str) -> tuple[str, ...]:
    """The servers of TRITON_URL, each once and in order."""
    return tuple(dict.fromkeys(part.strip().removeprefix("grpc://") for part in urls.split(",") if part.strip()))


def open_triton(urls: str, model: Model, timeout_s: float = 30.0) -> Encoder:
    """The encoder on the server, or on the servers, of TRITON_URL. Connects with the first call."""
    names = addresses(urls)
    if len(names) == 1:
        return TritonEncoder(names[0], model, timeout_s)
    return TritonServers(tuple(TritonEncoder(name, model, timeout_s, PATIENCE_S) for name in names))


def problem_of(url: str, timeout_s: float) -> str:
    """Why this Triton cannot be used, in a few words; empty where it is ready."""
    from tritonclient import grpc

    try:
        with grpc.InferenceServerClient(url) as client:
            return "" if client.is_server_ready(client_timeout=timeout_s) else "it is not ready"
    except Exception as error:  # it raises its own, gRPC's, and ValueError
        return " ".join(str(error).split())[:300] or type(error).__name__


class TritonServers:
    """An `Encoder` over several servers; may be called from many threads.

    A request goes to the server with the fewest items of ours under way, among equals to the one that waited
    longest, so that a slower server gets fewer. One that does not answer, or does not serve the model, is left out;
    its request goes to the next one. A thread looks at it every `LOOK_S` seconds and takes it back.
    """

    def __init__(self, encoders: tuple[TritonEncoder, ...]) -> None:
        self.digest, self.dims, self.side = encoders[0].digest, encoders[0].dims, encoders[0].side
        self._servers = tuple(_Server(encoder) for encoder in encoders)
        self._turns = itertools.count(1)
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def encode(self, inputs: Inputs) -> NDArray[np.float32]:
        """Embeddings float32 (b, dims) of b items of one shape.

        Raises EncoderDown or EncoderNotLoaded, the last server's, when none can take them, and EncoderFailed.
        """
        problem: EncoderDown | EncoderNotLoaded | None = None
        for _ in self._servers:
            server = self._take(len(inputs))
            if server is None:
                break
            try:
                return server.encoder.encode(inputs)
            except (EncoderDown, EncoderNotLoaded) as error:
                problem = error
                self._leave_out(server, error)
            finally:
                with self._lock:
                    server.under_way -= len(inputs)
        if problem is None:
            urls = ", ".join(server.encoder.url for server in self._servers)
            raise EncoderDown(url=urls, problem="all of them are left out until they answer again")
        raise problem

    def close(self) -> None:
        """Hang up everywhere; servers that are left out are not looked at any more."""
        self._closing.set()
        for server in self._servers:
            server.encoder.close()

    def _take(self, count: int) -> "_Server | None":
        with self._lock:
            there = [server for server in self._servers if not server.is_left_out]
            if not there:
                return None
            server = min(there, key=lambda one: (one.under_way, one.turn))
            server.under_way += count
            server.turn = next(self._turns)
            return server

    def _leave_out(self, server: "_Server", reason: Exception) -> None:
        with self._lock:
            if server.is_left_out:  # another request found out
                return
            server.is_left_out = True
        log.warning("triton.left_out", url=server.encoder.url, problem=str(reason)[:200])
        threading.Thread(target=self._take_back, args=(server,), name="triton-look", daemon=True).start()

    def _take_back(self, server: "_Server") -> None:
        while not self._closing.wait(LOOK_S):
            with suppress(EncoderDown, EncoderNotLoaded):
                server.encoder.look()
                with self._lock:
                    server.is_left_out = False
                log.info("triton.taken_back", url=server.encoder.url)
                return


class _Server:
    """What this client knows of one server."""

    def __init__(self, encoder: TritonEncoder) -> None:
        self.encoder = encoder
        self.under_way = 0  # items
        self.turn = 0  # when it was last chosen
        self.is_left_out = False
