"""A stand-in for Triton's ONNX Runtime backend, which its wheel lacks: laid into the backends' folder as model.py.

Everything around it is Triton's own: it reads the config, batches, warms up. This only runs the ONNX file in fp32.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        (self.input,) = (one["name"] for one in config["input"])
        (self.output,) = (one["name"] for one in config["output"])
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        self.model = openvino.Core().compile_model(str(path), "CPU", options)

    def execute(self, requests: list[Any]) -> list[Any]:
        answers = []
        for request in requests:
            array = pb.get_input_tensor_by_name(request, self.input).as_numpy()
            rows = np.ascontiguousarray(self.model([array])[0])
            answers.append(pb.InferenceResponse([pb.Tensor(self.output, rows)]))
        return answers
