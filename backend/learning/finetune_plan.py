"""What a fine-tuning is: its plan, what came of it, and the record that stays beside the encoder. No torch here."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.artefacts import whole
from backend.errors import EncoderUnreadable
from backend.settings import FineTuneSection

RECORD = "fine-tune.json"
TRAINED = "trained.txt"
WEIGHTS = "weights.safetensors"
CHECKPOINT = "checkpoint.safetensors"
_FORMAT = "nextbatch-fine-tune-1"


@dataclass(frozen=True)
class Plan:
    """Everything that decides the outcome. `parent` is the digest of the encoder that is trained, `weights` the file
    that it is read from, if not the package's; `data` names items, labels and split, `snapshot` the project's labels.
    """

    encoder: str
    parent: str
    weights: str | None
    classes: tuple[str, ...]
    snapshot: str
    data: str
    seed: int
    threads: int
    options: FineTuneSection

    @property
    def digest(self) -> str:
        """sha256 (hex): equal plans name the same run."""
        facts = {**self.as_json(), "format": _FORMAT, "weights": None}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "classes": list(self.classes), "options": self.options.model_dump(mode="json")}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "Plan":
        options = FineTuneSection.model_validate(facts["options"])
        return cls(**{**facts, "classes": tuple(facts["classes"]), "options": options})


@dataclass(frozen=True)
class Measured:
    """Accuracy in [0, 1] and calibrated log loss in nats on the labels that were kept aside to say when to stop."""

    accuracy: float
    log_loss: float

    def __str__(self) -> str:
        return f"accuracy {self.accuracy:.3f}, log loss {self.log_loss:.3f}"


@dataclass(frozen=True)
class Outcome:
    """What came of a run: `history` begins before the first epoch; the best one's weights were kept. 0: none helped."""

    best_epoch: int
    history: tuple[Measured, ...]
    seconds: float
    device: str

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "Outcome":
        return cls(**{**facts, "history": tuple(Measured(**one) for one in facts["history"])})


def split(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Which labels (n,) are kept aside to say when to stop: about `share` of each class, drawn by `seed`.

    A class of two or more has at least one on either side; one with a single label is trained on.
    """
    random = np.random.default_rng(seed)
    is_aside = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        if len(rows) > 1:
            is_aside[rows[: min(len(rows) - 1, max(1, round(share * len(rows))))]] = True
    return is_aside


def record(folder: Path, plan: Plan, outcome: Outcome, more: Mapping[str, Any], trained: Sequence[str]) -> None:
    """Keep beside an encoder where it comes from, and the content hashes of what it was trained on."""
    with whole(folder / TRAINED) as file:
        file.write("".join(f"{one}\n" for one in trained).encode())
    facts = {"run": plan.digest, "plan": plan.as_json(), "outcome": asdict(outcome), **more}
    with whole(folder / RECORD) as file:
        file.write(json.dumps(facts, indent=1).encode())


def recorded(folder: Path) -> dict[str, Any] | None:
    """What `record` wrote beside that encoder; None for one that was not fine-tuned here. Raises EncoderUnreadable."""
    try:
        facts: dict[str, Any] = json.loads((folder / RECORD).read_bytes())
        Plan.from_json(facts["plan"])
        Outcome.from_json(facts["outcome"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EncoderUnreadable(path=folder / RECORD, problem=error) from error
    return facts


def trained_on(folder: Path) -> frozenset[str]:
    """Content hashes of what that encoder was fine-tuned on; empty for any other. Raises EncoderUnreadable."""
    try:
        return frozenset((folder / TRAINED).read_text().split())
    except FileNotFoundError:
        return frozenset()
    except (OSError, ValueError) as error:
        raise EncoderUnreadable(path=folder / TRAINED, problem=error) from error
