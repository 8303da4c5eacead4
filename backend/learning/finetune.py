"""Training an image encoder further on labels: the loop, whose every step a killed run can begin again from.

Only the child process that `finetune_run` starts imports this; it needs torch.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from backend.learning.architectures import ImageArchitecture
from backend.learning.augmentation import augmented, resized
from backend.learning.calibration import fit_temperature, log_loss
from backend.learning.checkpoints import Checkpoint
from backend.learning.finetune_plan import CHECKPOINT, Measured, Plan
from backend.learning.heads import Head
from backend.learning.training import fit

Tell = Callable[[int, int, str], None]
"""Told steps done, steps at most, and what was last measured."""

_SMOOTHING = 0.1  # of labels: the encoder is told less to be sure than to be right
_WEIGHT_DECAY = 0.05
_WARM_UP = 0.1  # of all steps
_CHECKPOINT_S = 20.0
_LARGEST_NORM = 1.0


@dataclass(frozen=True, eq=False)
class Examples:
    """Images uint8 (s, s, 3), each of its own size, their class indices (n,), and which (n,) only say when to stop."""

    images: Sequence[NDArray[np.uint8]]
    labels: NDArray[np.int64]
    is_held_out: NDArray[np.bool_]


@dataclass(eq=False)
class Finetuned:
    """The trained network, and what was measured after each epoch on the held-out part, the first being before any."""

    network: nn.Module
    best_epoch: int
    history: list[Measured] = field(default_factory=list)


class Classifier(nn.Module):
    """A network with a head of its own behind it: what is trained. The head begins as the fitted one."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, head: Head) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(head.mean))
        self.register_buffer("scale", torch.tensor(head.scale))
        self.weights = nn.Parameter(torch.tensor(head.weights) / head.temperature)
        self.bias = nn.Parameter(torch.tensor(head.bias) / head.temperature)

    def forward(self, pixels: Tensor) -> Tensor:
        standardised: Tensor = (self.network(pixels) - self.mean) / self.scale
        return standardised @ self.weights + self.bias


def fine_tune(
    plan: Plan, architecture: ImageArchitecture, network: nn.Module, examples: Examples, folder: Path, tell: Tell
) -> Finetuned:
    """Train `network` by the plan and return it as it was after its best epoch; before the first, if none was better.

    A head is fitted to the frozen embeddings first, and both are then trained together: a head that begins at random
    would first spoil the features (Kumar et al., *Fine-tuning can distort pretrained features*, ICLR 2022,
    2202.10054). Statistics of batch normalisation stay as they are. Best is the lowest calibrated log loss on the
    held-out part, looked at whole and at the encoder's own size. Every step draws from a seed of its own and the state
    is kept in `folder`, so that a run which is killed and begun again ends with the same bits, on one machine with one
    number of threads. Costs about three passes forward an image and epoch where the whole network is trained.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = np.flatnonzero(~examples.is_held_out)
    with torch.random.fork_rng(devices=[]):
        before = _passes(network.to(device), architecture, examples.images, device)
        head = fit(
            before[trained], examples.labels[trained], plan.classes, seed=plan.seed, balanced=plan.options.balanced
        ).head
        classifier = Classifier(network, head)
        placed: Any = classifier  # torch's annotations do not know `memory_format`, which halves the time on a CPU
        placed.to(device, memory_format=torch.channels_last)
        return _Run(plan, architecture, classifier, examples, folder, device).train(tell)


class _Run:
    """One training: its optimiser, and where it is."""

    def __init__(
        self,
        plan: Plan,
        architecture: ImageArchitecture,
        classifier: Classifier,
        examples: Examples,
        folder: Path,
        device: torch.device,
    ) -> None:
        self.options, self.seed, self.examples = plan.options, plan.seed, examples
        self.architecture, self.classifier = architecture, classifier
        self.device, self.checkpoint = device, Checkpoint(folder / CHECKPOINT, plan.digest)
        self.trained = np.flatnonzero(~examples.is_held_out)
        self.steps_an_epoch = math.ceil(len(self.trained) / self.options.minibatch)
        self.steps = self.options.epochs * self.steps_an_epoch
        prefixes = tuple(f"network.{name}" for name in architecture.last_stage)
        for name, parameter in classifier.named_parameters():
            is_of_head = not name.startswith("network.")
            parameter.requires_grad = self.options.stage == "all" or is_of_head or name.startswith(prefixes)
        self.parameters = {name: one for name, one in classifier.named_parameters() if one.requires_grad}
        self.optimiser = torch.optim.AdamW(
            self.parameters.values(), lr=self.options.learning_rate, weight_decay=_WEIGHT_DECAY, foreach=False
        )
        counts = np.bincount(examples.labels[self.trained], minlength=len(plan.classes))
        weights = len(self.trained) / np.maximum(counts, 1) / max(1, (counts > 0).sum())
        self.class_weights = torch.tensor(
            weights if self.options.balanced else np.ones(len(counts)), dtype=torch.float32
        )
        self.loss = nn.CrossEntropyLoss(self.class_weights.to(device), label_smoothing=_SMOOTHING)
        self.step, self.best_epoch, self.history = 0, 0, list[Measured]()
        self.best = {name: one.detach().clone() for name, one in self.parameters.items()}
        # fp16 where a GPU has no bf16, with its loss scaled; a scaler that is off changes nothing.
        self.precision = torch.bfloat16 if device.type == "cpu" or torch.cuda.is_bf16_supported() else torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)

    def train(self, tell: Tell) -> Finetuned:
        self._resume()
        if not self.history:
            self._measure()
        kept_at = time.monotonic()
        while self.step < self.steps and not self._is_over():
            tell(self.step, self.steps, str(self.history[-1]))
            self._advance()
            is_epoch = self.step % self.steps_an_epoch == 0
            if is_epoch:
                self._measure()
            if is_epoch or time.monotonic() - kept_at > _CHECKPOINT_S:
                self._keep()
                kept_at = time.monotonic()
        tell(self.steps, self.steps, str(self.history[-1]))
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.best[name])
        return Finetuned(self.classifier.network.eval(), self.best_epoch, self.history)

    def _is_over(self) -> bool:
        return len(self.history) - 1 - self.best_epoch >= self.options.patience

    def _advance(self) -> None:
        """One minibatch. Which, and how its images are changed, depends on seed and step alone."""
        epoch, place = divmod(self.step, self.steps_an_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.trained)
        rows = order[place * self.options.minibatch : (place + 1) * self.options.minibatch]
        torch.manual_seed(_seed(self.seed, self.step))
        pixels = augmented(
            [self.examples.images[row] for row in rows],
            self.options.pixels or self.architecture.side,
            self.options.augment,
        )
        labels = torch.from_numpy(self.examples.labels[rows]).to(self.device)
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.learning_rate * self._pace()
        self.classifier.eval()  # batch normalisation keeps its statistics: a few labels' would be worse
        with torch.autocast(self.device.type, self.precision, enabled=self.device.type == "cuda"):
            logits = self.classifier(_fed(pixels, self.architecture, self.device))
        self.optimiser.zero_grad()
        self.scaler.scale(self.loss(logits.float(), labels)).backward()
        self.scaler.unscale_(self.optimiser)
        nn.utils.clip_grad_norm_(self.parameters.values(), _LARGEST_NORM, foreach=False)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step += 1

    def _pace(self) -> float:
        """The share of the learning rate at this step: up in a line, down along a cosine."""
        warm = max(1, round(_WARM_UP * self.steps))
        if self.step < warm:
            return (self.step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (self.step - warm) / max(1, self.steps - warm)))

    def _measure(self) -> None:
        rows = np.flatnonzero(self.examples.is_held_out)
        images, labels = [self.examples.images[row] for row in rows], self.examples.labels[rows]
        logits = _passes(self.classifier, self.architecture, images, self.device)
        loss = log_loss(logits, labels, fit_temperature(logits, labels))
        self.history.append(Measured(float((logits.argmax(axis=1) == labels).mean()), loss))
        if loss < self.history[self.best_epoch].log_loss:
            self.best_epoch = len(self.history) - 1
            self.best = {name: one.detach().clone() for name, one in self.parameters.items()}

    def _keep(self) -> None:
        facts = {"step": self.step, "best_epoch": self.best_epoch, "history": [asdict(one) for one in self.history]}
        self.checkpoint.write(dict(self._tensors()), {**facts, "scaler": self.scaler.state_dict()})

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.parameters.items():
            yield f"now/{name}", parameter.detach()
            yield f"best/{name}", self.best[name]
            for part, tensor in self.optimiser.state[parameter].items():
                yield f"{part}/{name}", tensor

    def _resume(self) -> None:
        found = self.checkpoint.read()
        if found is None:
            return
        tensors, facts = found
        self.step, self.best_epoch = facts["step"], facts["best_epoch"]
        self.history = [Measured(**one) for one in facts["history"]]
        self.scaler.load_state_dict(facts["scaler"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[f"now/{name}"])
                self.best[name].copy_(tensors[f"best/{name}"])
                for part in ("step", "exp_avg", "exp_avg_sq"):
                    kept = tensors[f"{part}/{name}"]
                    moved = kept if part == "step" else torch.empty_like(parameter).copy_(kept)
                    self.optimiser.state[parameter][part] = moved


def _seed(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:8], "big") >> 1


def _fed(pixels: Tensor, architecture: ImageArchitecture, device: torch.device) -> Tensor:
    """As the exported graph feeds the network."""
    mean, deviation = (torch.tensor(one).view(1, 3, 1, 1) for one in (architecture.mean, architecture.deviation))
    return ((pixels - mean) / deviation).to(device, memory_format=torch.channels_last)


def _passes(
    network: nn.Module, architecture: ImageArchitecture, images: Sequence[NDArray[np.uint8]], device: torch.device
) -> NDArray[np.float32]:
    """What the network says of images (n), as they are, in float32."""
    network.eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(images), 32):
            pixels = resized(images[start : start + 32], architecture.side)
            found.append(network(_fed(pixels, architecture, device)).cpu())
    answers: NDArray[np.float32] = torch.cat(found).numpy()
    return answers
