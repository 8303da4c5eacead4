"""A model repository for a stock Triton image: the same ONNX file under Triton's own ONNX Runtime backend.

The name, the inputs and outputs and the parameters are those of `repository.write_model`, so that `TritonEncoder`
cannot tell the two servers apart.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from backend.errors import PrecisionNotStock
from backend.scoring.encoder import Model
from backend.scoring.repository import MAX_BATCH, QUEUE_DELAY_US, model_name, place

Device = Literal["cpu", "gpu"]
_TRITON_TYPES = {"FLOAT": "FP32", "FLOAT16": "FP16", "DOUBLE": "FP64"}  # the others are called alike


def write_stock_model(repository: Path, model: Model, device: Device, instances: int) -> str:
    """Put an encoder into a repository that any Triton with the ONNX Runtime backend serves; returns its model name.

    `instances` run beside each other: of one thread each on the CPU, or on each GPU. Raises PrecisionNotStock for
    what is not fp32: ONNX Runtime computes this file in fp32, and the digest promises other vectors.
    """
    if model.precision != "fp32":
        raise PrecisionNotStock(name=model.name, precision=model.precision)
    name = model_name(model.name, model.digest)
    config = _config(name, model, device, instances)
    text = f"# Written by nextbatch for Triton's ONNX Runtime backend ({device}).\n{config}"
    place(repository / name, {"config.pbtxt": text}, model.path)
    return name


def _config(name: str, model: Model, device: Device, instances: int) -> Any:
    """Triton's own message; as a string it is the text of a config.pbtxt."""
    from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

    config = ModelConfig(name=name, backend="onnxruntime", max_batch_size=MAX_BATCH)
    inputs, outputs = (list(_tensors(part)) for part in _graph(model.path))
    for tensor, kind, dims in inputs:
        config.input.add(name=tensor, data_type=f"TYPE_{kind}", dims=dims)
    for tensor, kind, _ in outputs:  # the graph may leave the size open
        config.output.add(name=tensor, data_type=f"TYPE_{kind}", dims=[model.dims])
    config.dynamic_batching.max_queue_delay_microseconds = QUEUE_DELAY_US
    if device == "cpu":
        config.instance_group.add(kind=ModelInstanceGroup.KIND_CPU, count=instances)
        config.parameters["intra_op_thread_count"].string_value = "1"
    else:
        config.instance_group.add(kind=ModelInstanceGroup.KIND_GPU, count=instances)
        # TensorFloat-32 is ONNX Runtime's default on a GPU and keeps 10 bits: other vectors than the digest promises.
        cuda = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
        cuda.parameters["use_tf32"] = "0"
    for size in (1, MAX_BATCH):
        warmup = config.model_warmup.add(name=f"batch_{size}", batch_size=size)
        for tensor, kind, dims in inputs:
            sample = warmup.inputs[tensor]
            sample.data_type = f"TYPE_{kind}"
            sample.dims.extend(model.side if free < 0 else free for free in dims)
            if kind == "UINT8":
                sample.random_data = True
            else:  # numbers of tokens must be in the vocabulary
                sample.zero_data = True
    config.parameters["digest"].string_value = model.digest
    config.parameters["precision"].string_value = model.precision
    return config


def _graph(path: Path) -> tuple[Any, Any]:
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    return graph.input, graph.output


def _tensors(values: Any) -> Iterator[tuple[str, str, list[int]]]:
    """Name, Triton's type and dimensions (the batch left out, -1 where any size will do) of a graph's values."""
    from onnx import TensorProto

    for value in values:
        tensor = value.type.tensor_type
        kind = TensorProto.DataType.Name(tensor.elem_type)
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        yield value.name, _TRITON_TYPES.get(kind, kind), dims[1:]
