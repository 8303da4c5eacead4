"""The ALaaS paper's round with a ResNet-18 that is fine-tuned, as the paper did; it wants a GPU by CUDA.

    python -m benchmarks.alaas_paper --resnet

10,000 labels, least confidence picks 10,000 of the other 40,000, and the network is trained again from its first
weights. Weights: NEXTBATCH_RESNET18, a state dict; without it ImageNet's from torchvision. 32 px images, as they are
in CIFAR-10, with a 3 x 3 first layer and no pooling. Writes benchmarks/results/alaas_resnet18.json.
"""

import os
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import strategies
from backend.pool.folders import cifar10, open_dataset
from backend.settings import settings
from backend.vision import torchvision
from benchmarks.record import row, show, write

EPOCHS, MINIBATCH, RATE = 30, 128, 0.05
_SCAN = 1_024


def reproduce(out: Path, seeds: int, images: int = 60_000, epochs: int = EPOCHS, device: str = "cuda") -> None:
    """All seeds; fewer images and a CPU are for trying it out, and nothing is written for them."""
    if device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA here: ResNet-18 is not fine-tuned. On one CPU core a run would take days.")
        return
    out.mkdir(parents=True, exist_ok=True)
    share = images / 60_000
    pool, labels, classes = _pixels("train", round(50_000 * share), out)
    test, truth, _ = _pixels("test", round(10_000 * share), out)
    count = len(pool) // 5
    found: dict[str, list[float]] = {name: [] for name in ("before", "LC", "random", "all", "scan_s", "select_s")}
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(pool))
        known, rest = order[:count], order[count:]
        first = train(pool[known], labels[known], len(classes), epochs, device, seed)
        started = time.perf_counter()
        chances = predict(first, pool[rest], device)
        found["scan_s"].append(time.perf_counter() - started)
        started = time.perf_counter()
        request = strategies.Request(ids=np.arange(len(rest)), budget=count, seed=seed, probabilities=chances)
        picks = strategies.run(strategies.create("least_confidence"), request).ids
        found["select_s"].append(time.perf_counter() - started)
        found["before"].append(accuracy(first, test, truth, device))
        for name, added in (("LC", rest[picks]), ("random", rest[:count]), ("all", rest)):
            rows = np.concatenate([known, added])
            network = train(pool[rows], labels[rows], len(classes), epochs, device, seed)
            found[name].append(accuracy(network, test, truth, device))
        print(f"seed {seed}: { ({name: round(values[-1], 4) for name, values in found.items()}) }", flush=True)
    rows_ = [
        row(f"resnet18_{name}", f"{name}, median of the seeds", values, "s" if name.endswith("_s") else "share")
        for name, values in found.items()
    ]
    for one in rows_:
        print(show(one))
    if device == "cuda" and images == 60_000:
        write("alaas_resnet18", rows_, epochs=epochs, gpu=torch.cuda.get_device_name())


def build(classes: int) -> torch.nn.Module:
    """ResNet-18 for small images."""
    models = torchvision("models")
    if given := os.environ.get("NEXTBATCH_RESNET18"):
        network = models.resnet18(weights=None)
        network.load_state_dict(torch.load(Path(given).expanduser(), map_location="cpu", weights_only=True))
    else:
        network = models.resnet18(weights=models.ResNet18_Weights.IMAGENET1K_V1)
    kernel = network.conv1.weight.detach()[:, :, 2:5, 2:5].clone()
    network.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    network.conv1.weight.data.copy_(kernel)
    network.maxpool = torch.nn.Identity()
    network.fc = torch.nn.Linear(network.fc.in_features, classes)
    built: torch.nn.Module = network
    return built


def train(
    images: NDArray[np.uint8], labels: NDArray[np.int64], classes: int, epochs: int, device: str, seed: int
) -> torch.nn.Module:
    """SGD with a rate that rises and falls once; images are flipped and shifted by up to four pixels."""
    torch.manual_seed(seed)
    network = build(classes).to(device)
    x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
    optimizer = torch.optim.SGD(network.parameters(), RATE, momentum=0.9, weight_decay=5e-4, nesterov=True)
    batches = -(-len(x) // MINIBATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * batches)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), device=device).split(MINIBATCH):
            if len(rows) < 2:
                continue  # batch normalisation needs two
            loss = torch.nn.functional.cross_entropy(network(_augmented(_scaled(x[rows]))), y[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stubs
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.inference_mode()
def predict(network: torch.nn.Module, images: NDArray[np.uint8], device: str) -> NDArray[np.float32]:
    """Class probabilities (n, K) float32."""
    parts = [network(_scaled(torch.from_numpy(images[at : at + _SCAN]).to(device))).softmax(1).cpu()
             for at in range(0, len(images), _SCAN)]  # fmt: skip
    return torch.cat(parts).numpy()


def accuracy(network: torch.nn.Module, images: NDArray[np.uint8], truth: NDArray[np.int64], device: str) -> float:
    return float((predict(network, images, device).argmax(axis=1) == truth).mean())


def _scaled(images: torch.Tensor) -> torch.Tensor:
    """uint8 (b, H, W, 3) to what ImageNet's networks expect, (b, 3, H, W)."""
    pixels = images.permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor([0.485, 0.456, 0.406], device=images.device).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225], device=images.device).view(1, 3, 1, 1)
    return (pixels - mean) / deviation


def _augmented(pixels: torch.Tensor) -> torch.Tensor:
    flipped = torch.where(torch.rand(len(pixels), 1, 1, 1, device=pixels.device) < 0.5, pixels.flip(3), pixels)
    padded = torch.nn.functional.pad(flipped, (4, 4, 4, 4))
    side = pixels.shape[2]
    top, left = torch.randint(0, 9, (2,)).tolist()
    return padded[:, :, top : top + side, left : left + side]


def _pixels(part: str, count: int, out: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """Images uint8 (n, H, W, 3) and their classes, read once."""
    cache, given = settings().cache / "datasets", os.environ.get("NEXTBATCH_DATA")
    dataset = open_dataset(Path(given).expanduser(), cache) if given else cifar10(cache)
    files = dataset.train if part == "train" else dataset.test
    chosen = np.sort(np.random.default_rng(0).permutation(len(files))[:count])
    kept = out / f"{part}-{count}.npy"
    if not kept.exists():
        np.save(kept, np.stack([np.asarray(Image.open(files.paths[at]).convert("RGB")) for at in chosen]))
    return np.load(kept), np.array(files.labels, dtype=np.int64)[chosen], dataset.classes
