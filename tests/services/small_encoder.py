"""A small network in the place of the usual image encoder, here and in the child that trains it.

    python -m tests.services.small_encoder FOLDER

is that child.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from backend.learning import finetune_run
from backend.learning.architectures import ARCHITECTURES, ImageArchitecture

SIDE = 32
NAME = "efficientnet-lite0"


def network() -> torch.nn.Module:
    """Random, with batch normalisation, from images to 8 means."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, stride=2), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3),
        torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
    )  # fmt: skip


def read(weights: Path | None) -> torch.nn.Module:
    made = network()
    if weights is not None:
        made.load_state_dict(load_file(weights))
    return made.eval()


SMALL = ImageArchitecture(
    side=SIDE, dims=8, read=read, identify=lambda: "small", mean=(127.0,) * 3, deviation=(64.0,) * 3,
    last_stage=("3.",),
)  # fmt: skip


if __name__ == "__main__":
    ARCHITECTURES[NAME] = SMALL
    finetune_run.train(Path(sys.argv[1]))
