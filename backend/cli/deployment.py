"""nextbatch export: what other machines need."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    encoder: Annotated[str, typer.Argument(help="An encoder, such as efficientnet-lite0, or a project.")],
    folder: Annotated[Path, typer.Argument(help="The model repository; what else is in it stays.")],
    device: Annotated[Literal["cpu", "gpu"], typer.Option(help="What Triton shall run it on.")] = "cpu",
    instances: Annotated[
        int | None, typer.Option(min=1, help="Copies beside each other; default: one a core here, or one a GPU.")
    ] = None,
) -> None:
    """Write a model repository for a stock Triton image, whose ONNX Runtime serves the encoder."""
    from backend.rounds.deployment import export_repository

    model = export_repository(encoder, folder, device, instances or (os.cpu_count() or 1 if device == "cpu" else 1))
    print(folder / model)
