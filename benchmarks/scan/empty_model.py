"""A scan whose encoder computes next to nothing: what is left is what everything else costs."""

import json

import torch

from backend.learning.architectures import sha256_of
from backend.learning.encoders import MANIFEST, export
from benchmarks.scan.stage import Scanned, Stage
from benchmarks.scan.throughput import DELAY_MS, Bound

SEED = 1  # whose ResNet-18 gives way to the empty model: a digest of its own, so nothing mixes


class _Average(torch.nn.Module):
    """uint8 (b, h, w, 3) to the mean colour, written out to ResNet-18's 512 dimensions, float32 (b, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(0, 1 / 255, 3 * 512).reshape(3, 512))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((1, 2)) @ self.weight


def empty_scan(stage: Stage, items: int) -> tuple[Scanned, float]:
    """A cold scan with it, and the CPU seconds an item that the model's processes took beyond the model alone."""
    put(stage)
    stage.upload(items)
    with stage.slow(DELAY_MS) as network, stage.ours(network.endpoint) as ours:
        scan = ours.scan(ours.make(items, seed=SEED), network)
        _, model_s = Bound(stage, ours.warmed["model"], ours.warmed["precision"]).measure(3.0)
    print(
        f"  empty model: {scan.rate:.0f}/s, {1000 * scan.cpu_s['client'] / items:.3f} CPU-ms of the client", flush=True
    )
    return scan, max(0.0, scan.cpu_s["model"] / items - model_s)


def put(stage: Stage) -> None:
    """Where the exported ResNet-18 of `SEED` would be found."""
    spec = export("resnet18", stage.weights(SEED), stage.home / "encoders")
    example = torch.zeros((2, 32, 32, 3), dtype=torch.uint8)
    sizes = {"images": {0: "b", 1: "height", 2: "width"}, "embeddings": {0: "b"}}
    torch.onnx.export(
        _Average(), (example,), str(spec.path), input_names=["images"], output_names=["embeddings"],
        dynamic_axes=sizes, opset_version=17, dynamo=False,
    )  # fmt: skip
    manifest = spec.path.parent / MANIFEST
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(facts | {"onnx_sha256": sha256_of(spec.path)}))
