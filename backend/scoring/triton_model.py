"""An encoder as Triton's python backend runs it. `repository.write_model` copies this file and engine.py beside the
ONNX file; it runs in Triton's own Python, one process an instance, and imports nothing of nextbatch.
"""

import fcntl
import importlib
import json
import os
import select
import signal
from pathlib import Path
from typing import Any

import numpy as np


class TritonPythonModel:
    """One instance: one thread, one minibatch at a time."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the ONNX file. What fails here is the answer to the client's request to load the model."""
        _die_with_owner()
        # Both exist only inside Triton: the backend's own module, and engine.py beside this file.
        self._backend: Any = importlib.import_module("triton_python_backend_utils")
        engine = importlib.import_module("engine")
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        (self._input,) = (described["name"] for described in config["input"])
        precision = config["parameters"]["precision"]["string_value"]
        self._engine = engine.Engine(folder / "model.onnx", precision, streams=1)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Encode what the dynamic batcher gathered, all of one shape, in one pass; one response a request, in order."""
        backend = self._backend
        waiting = [not request.is_cancelled() for request in requests]
        items = [
            backend.get_input_tensor_by_name(request, self._input).as_numpy()
            for request, is_waiting in zip(requests, waiting, strict=True)
            if is_waiting
        ]
        cancelled = backend.TritonError("the client gave up", backend.TritonError.CANCELLED)
        if not items:
            return [backend.InferenceResponse(error=cancelled) for _ in requests]
        try:
            embeddings = self._engine.encode(items[0] if len(items) == 1 else np.concatenate(items))
        except Exception as error:  # OpenVINO's errors have no common type but this one
            failed = backend.TritonError(f"the encoder failed: {error}")
            return [backend.InferenceResponse(error=failed) for _ in requests]
        parts = iter(np.split(embeddings, np.cumsum([len(part) for part in items])[:-1]))
        return [
            backend.InferenceResponse([backend.Tensor("embeddings", np.ascontiguousarray(next(parts)))])
            if is_waiting
            else backend.InferenceResponse(error=cancelled)
            for is_waiting in waiting
        ]


def _die_with_owner() -> None:
    """Be killed by the kernel when the process that embeds Triton is gone, however that ended.

    Triton's own watch over this process was seen to wait for ever on a lock that a killed Triton held. Where Triton
    is not embedded there is no NEXTBATCH_LIFELINE and nothing to do.
    """
    inherited = os.environ.get("NEXTBATCH_LIFELINE")
    if inherited is None:
        return
    # A description of its own: whom to signal belongs to it, and the inherited one is shared with other instances.
    lifeline = os.open(f"/proc/self/fd/{inherited}", os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    watch = select.poll()
    watch.register(lifeline, select.POLLHUP)
    if watch.poll(0):  # it was gone before the kernel knew whom to tell
        os.kill(os.getpid(), signal.SIGKILL)
