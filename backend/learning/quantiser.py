"""Post-training quantisation by nncf, in an environment of its own; it imports nothing of nextbatch.

    python quantiser.py FOLDER

reads ``plan.json`` (the parent's file and nncf's options) and ``images.npz`` (an array an item, uint8 (h, w, 3)) and
writes ``model.onnx``: the same graph with quantised and dequantised values (QDQ), which OpenVINO runs in int8.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx

# nncf reports to its makers unless this package cannot be imported; then it says so in its own log and goes on.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def quantise(folder: Path) -> None:
    """Write the quantised model whole, by a rename."""
    nncf = importlib.import_module("nncf")

    plan = json.loads((folder / "plan.json").read_bytes())
    model = onnx.load(plan["parent"])
    name = model.graph.input[0].name
    with np.load(folder / "images.npz") as images:
        calibration = nncf.Dataset([{name: images[key][None]} for key in images.files])
        count = len(images.files)
    quantised = nncf.quantize(
        model,
        calibration,
        preset=nncf.QuantizationPreset(plan["preset"]),
        fast_bias_correction=plan["fast_bias_correction"],
        subset_size=count,
    )
    fresh = folder / ".model.onnx"
    onnx.save(quantised, fresh)
    fresh.replace(folder / "model.onnx")


if __name__ == "__main__":
    quantise(Path(sys.argv[1]))
