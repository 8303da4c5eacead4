"""The encoder in Triton, by gRPC; items travel through shared memory where Triton runs on this host."""

import contextlib
import math
import threading
import time
from collections import deque
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from backend.errors import EncoderDown, EncoderFailed, EncoderNotLoaded, NextbatchError
from backend.scoring.encoder import Inputs, Model
from backend.scoring.repository import MAX_BATCH, model_name
from backend.scoring.shared_memory import SWEEP_S, Segment, Sweeper

log = structlog.get_logger()

PAGE = 4096
# Triton 2.51 goes on sending requests to a model's process that ended; it takes an unload to replace it.
_UNHEALTHY = "stub process"
# Triton's words where it lost what a client had set up (it was restarted), or where a model's process ended.
_LOST = ("shared memory region", "unknown model", "is not ready", _UNHEALTHY)
_UNANSWERED = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}


class _Lost(Exception):
    """The server forgot the model or a region; setting up again may help."""


class TritonEncoder:
    """An `Encoder` served by any Triton that has the model in its repository. May be called from many threads.

    The connection is made by the first call, lives long, and is set up anew when Triton was restarted.
    """

    def __init__(self, url: str, model: Model, timeout_s: float = 30.0, patience_s: float | None = None) -> None:
        """`url` is gRPC's host:port. `timeout_s` bounds a minibatch (64 items), retries and loading included.

        `patience_s` bounds the retries alone; by default they may take all of `timeout_s`.
        """
        self.url = url.removeprefix("grpc://")
        self.digest, self.dims, self.side = model.digest, model.dims, model.side
        self.model = model_name(model.name, model.digest)
        self.timeout_s = timeout_s
        self._patience_s = patience_s
        self._connection: _Connection | None = None
        self._is_unhealthy = False
        self._lock = threading.Lock()

    def encode(self, inputs: Inputs) -> NDArray[np.float32]:
        """Embeddings float32 (b, dims) of b items of one shape.

        Raises EncoderDown (Triton is away or too slow), EncoderNotLoaded (it has no such model), EncoderFailed.
        """
        out = np.empty((len(inputs), self.dims), np.float32)
        for start in range(0, len(inputs), MAX_BATCH):
            part = np.ascontiguousarray(inputs[start : start + MAX_BATCH])
            out[start : start + len(part)] = self._encode(part)
        return out

    def look(self) -> None:
        """See whether the server serves the model, which it may have to load. Raises EncoderDown, EncoderNotLoaded."""
        from tritonclient.utils import InferenceServerException

        try:
            connection = self._connect(self.timeout_s)
            if not connection.client.is_model_ready(self.model, client_timeout=self.timeout_s):  # it was restarted
                self._forget(connection, is_unhealthy=False)
                self._connect(self.timeout_s)
        except InferenceServerException as error:
            raise EncoderDown(url=self.url, problem=error.message()) from error

    def close(self) -> None:
        """Give back the shared memory and hang up. The next call would connect again."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _encode(self, inputs: Inputs) -> NDArray[np.float32]:
        from tritonclient.utils import InferenceServerException

        deadline = time.monotonic() + self.timeout_s
        retrying = Retrying(
            retry=retry_if_exception(_is_worth_retrying),
            stop=stop_after_delay(self.timeout_s if self._patience_s is None else self._patience_s),
            wait=wait_random_exponential(multiplier=0.05, max=1.0),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt:
                    return self._try(inputs, deadline)
        except _Lost as error:
            raise EncoderNotLoaded(url=self.url, model=self.model, problem=error) from error
        except InferenceServerException as error:
            if is_unanswered(error):
                raise EncoderDown(url=self.url, problem=error.message()) from error
            raise EncoderFailed(count=len(inputs), shape=inputs.shape[1:], problem=error.message()) from error
        raise AssertionError("tenacity returns or raises")

    def _try(self, inputs: Inputs, deadline: float) -> NDArray[np.float32]:
        from tritonclient.utils import InferenceServerException

        remaining = max(deadline - time.monotonic(), 0.01)
        connection = self._connect(remaining)
        try:
            return connection.infer(inputs, self.dims, remaining)
        except InferenceServerException as error:
            message = error.message().lower()
            is_lost = any(words in message for words in _LOST)
            if is_lost or _status(error) == "UNAVAILABLE":
                self._forget(connection, is_unhealthy=_UNHEALTHY in message)
            if is_lost:
                connection.retire()
                raise _Lost(error.message()) from error
            raise

    def _connect(self, timeout_s: float) -> "_Connection":
        """The connection, with the model loaded; one thread sets it up and the others wait for it."""
        if not self._lock.acquire(timeout=timeout_s):
            raise EncoderDown(url=self.url, problem=f"it was not connected within {timeout_s:.0f} s")
        try:
            if self._connection is None:
                if self._is_unhealthy:
                    log.warning("triton.unhealthy", model=self.model)
                    unload(self.url, self.model, timeout_s)
                    self._is_unhealthy = False
                self._connection = _Connection(self.url, self.model, self.digest, timeout_s)
            return self._connection
        finally:
            self._lock.release()

    def _forget(self, connection: "_Connection", *, is_unhealthy: bool) -> None:
        """Only the first of several threads that saw it fail: the next may look at a new connection by then."""
        with self._lock:
            if self._connection is connection:
                self._connection = None
                self._is_unhealthy = is_unhealthy


class _Connection:
    """A channel to a Triton that serves the model, and segments for requests that are under way."""

    def __init__(self, url: str, model: str, digest: str, timeout_s: float) -> None:
        """Raises InferenceServerException where Triton is away, EncoderNotLoaded where it cannot load the model."""
        self.client = connect(url)
        self._model = model
        self._idle: list[Segment] = []
        self._doubtful: deque[tuple[float, Segment]] = deque()  # Triton may still write to these
        self._sweeper = Sweeper()
        self._is_retired = False
        try:
            self._load(url, digest, timeout_s)
            self._is_shared = self._try_sharing()
        except BaseException:
            self.client.close()
            raise
        log.info("triton.connected", url=url, model=model, shared_memory=self._is_shared)

    def infer(self, inputs: Inputs, dims: int, timeout_s: float) -> NDArray[np.float32]:
        """One request. Raises InferenceServerException."""
        from tritonclient import grpc
        from tritonclient.utils import InferenceServerException, np_to_triton_dtype

        source = grpc.InferInput(self._input, list(inputs.shape), np_to_triton_dtype(inputs.dtype))
        target = grpc.InferRequestedOutput("embeddings")
        segment = self._take(inputs.nbytes, len(inputs) * dims * 4)
        if segment is None:
            source.set_data_from_numpy(inputs)
        else:
            segment.write(inputs)
            source.set_shared_memory(segment.name, inputs.nbytes, segment.output_bytes)
            target.set_shared_memory(segment.name, len(inputs) * dims * 4)
        try:
            result = self.client.infer(self._model, [source], outputs=[target], client_timeout=timeout_s)
            rows: NDArray[np.float32] = segment.read(len(inputs), dims) if segment else result.as_numpy("embeddings")
        except InferenceServerException as error:
            if segment is not None and is_unanswered(error):
                self._doubtful.append((time.monotonic(), segment))
            elif segment is not None:
                self._give_back(segment)
            raise
        if segment is not None:
            self._give_back(segment)
        return rows

    def retire(self) -> None:
        """No new request comes: release what none uses; that of a request under way goes when it ends."""
        self._is_retired = True
        with contextlib.suppress(IndexError):  # other threads retire it too
            while True:
                self._idle.pop().release(self.client)

    def close(self) -> None:
        self.retire()
        self.client.close()

    def _give_back(self, segment: Segment) -> None:
        self._idle.append(segment)
        if self._is_retired:
            self.retire()

    def _load(self, url: str, digest: str, timeout_s: float) -> None:
        from tritonclient.utils import InferenceServerException

        if not self.client.is_model_ready(self._model, client_timeout=timeout_s):
            started = time.monotonic()
            try:
                self.client.load_model(self._model, client_timeout=timeout_s)
            except InferenceServerException as error:
                if is_unanswered(error) and "explicit" not in error.message():
                    raise
                raise EncoderNotLoaded(url=url, model=self._model, problem=error.message()) from error
            log.info("triton.loaded", model=self._model, seconds=round(time.monotonic() - started, 2))
        config = self.client.get_model_config(self._model, client_timeout=timeout_s).config
        self._input = config.input[0].name
        served = config.parameters["digest"].string_value if "digest" in config.parameters else "no digest"
        if served != digest:
            raise EncoderNotLoaded(url=url, model=self._model, problem=f"it serves {served}, not {digest}")

    def _try_sharing(self) -> bool:
        """Triton opens our segment only where it sees the same /dev/shm."""
        from tritonclient.utils import InferenceServerException

        try:
            segment = Segment(self.client, PAGE, 2 * PAGE)
        except (InferenceServerException, OSError):
            return False
        segment.release(self.client)
        return True

    def _take(self, input_bytes: int, output_bytes: int) -> Segment | None:
        """An idle segment that is large enough, or a new one; None where the request has to carry its data."""
        from tritonclient.utils import InferenceServerException

        if not self._is_shared:
            return None
        with contextlib.suppress(InferenceServerException):
            self._sweeper.sweep(self.client)
        with contextlib.suppress(IndexError):  # taken out and then looked at: another thread looks at another one
            while True:
                since, segment = doubtful = self._doubtful.popleft()
                if time.monotonic() - since <= SWEEP_S:
                    self._doubtful.appendleft(doubtful)
                    break
                segment.release(self.client)
        output_bytes = math.ceil(output_bytes / PAGE) * PAGE
        with contextlib.suppress(IndexError):  # pop is atomic; there may be none
            segment = self._idle.pop()
            if segment.output_bytes >= output_bytes and segment.size_bytes - segment.output_bytes >= input_bytes:
                return segment
            segment.release(self.client)
        try:
            return Segment(self.client, output_bytes, output_bytes + input_bytes)
        except OSError as error:  # /dev/shm is full
            log.warning("triton.no_shared_memory", problem=str(error))
            return None


def connect(url: str) -> Any:
    """A gRPC client for large messages that finds a server again soon after it came back."""
    from tritonclient import grpc

    return grpc.InferenceServerClient(
        url,
        channel_args=[
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1000),  # two minutes by default: a restart takes three seconds
            ("grpc.keepalive_time_ms", 60_000),
        ],
    )


def unload(url: str, model: str, timeout_s: float) -> None:
    """Let this server give up the model, once it has answered what it was asked. Raises InferenceServerException."""
    client = connect(url)
    try:
        client.unload_model(model, client_timeout=timeout_s)
    finally:
        client.close()


def _is_worth_retrying(error: BaseException) -> bool:
    return isinstance(error, _Lost) or (not isinstance(error, NextbatchError) and _status(error) == "UNAVAILABLE")


def is_unanswered(error: BaseException) -> bool:
    """Whether the server may be away or too slow, so that the same request may succeed later."""
    return _status(error) in _UNANSWERED


def _status(error: BaseException) -> str:
    """gRPC's status, as in UNAVAILABLE; empty for what is no error of Triton."""
    status = getattr(error, "status", lambda: None)()
    return str(status or "").removeprefix("StatusCode.")
