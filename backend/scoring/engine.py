"""An exported encoder run by OpenVINO on the CPU.

The same file runs in the worker (`LocalEncoder`) and, copied beside `model.py`, in Triton's own Python, so that
both give the same vectors. It therefore imports nothing but numpy and openvino.
"""

import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

HINTS = {"bf16": "bf16", "fp32": "f32", "int8": "f32"}  # int8: of what the file leaves in floating point


_FIRST_TOUCH = threading.Lock()


class PrecisionUnavailable(RuntimeError):
    """The CPU cannot run the precision that the encoder's digest names."""


class Engine:
    """A compiled model with `streams` requests of one thread each; `encode` may be called from many threads."""

    def __init__(self, path: Path | str, precision: str, streams: int = 1) -> None:
        core = openvino.Core()
        if precision == "bf16" and not has_bf16(core):
            raise PrecisionUnavailable(
                f"{path} is a bf16 encoder and this CPU has no bf16; its vectors would differ from those stored"
            )
        config = {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "INFERENCE_NUM_THREADS": streams,  # more threads a stream are slower on shared cores
            "NUM_STREAMS": str(streams),
            "ENABLE_CPU_PINNING": False,  # pinning halved the speed of a busy machine
        }
        self._compiled = core.compile_model(core.read_model(str(path)), "CPU", config)
        self._idle: queue.Queue[Any] = queue.Queue()
        for _ in range(streams):
            self._idle.put(self._compiled.create_infer_request())
        # OpenVINO's bindings deadlock, holding the GIL, when two threads touch their first array at once (2026.4;
        # a C++ guard and a call_once that wait for each other). The first one is touched here, alone.
        with _FIRST_TOUCH:
            self.encode(_sample(self._compiled.input(0)))

    def encode(self, inputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Embeddings float32 (b, dims) of b items of one shape."""
        request = self._idle.get()
        try:
            result: npt.NDArray[np.float32] = request.infer([np.ascontiguousarray(inputs)])[0].copy()
            return result
        finally:
            self._idle.put(request)


def _sample(port: Any) -> npt.NDArray[Any]:
    """One item of zeros, 8 long wherever the model lets it be."""
    shape = [8 if size.is_dynamic else size.get_length() for size in port.partial_shape]
    return np.zeros([1, *shape[1:]], port.element_type.to_dtype())


def has_bf16(core: Any = None) -> bool:
    """Does this CPU compute in bf16?"""
    return "BF16" in (core or openvino.Core()).get_property("CPU", "OPTIMIZATION_CAPABILITIES")
