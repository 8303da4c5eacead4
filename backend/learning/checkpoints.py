"""The state of a training in one file, safetensors with facts beside: no pickle, and there whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from backend.artefacts import whole


class Checkpoint:
    """The newest state of the run `of`, at `path`."""

    def __init__(self, path: Path, of: str) -> None:
        self.path, self.of = path, of

    def write(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Replace what is there."""
        kept = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        payload = save(kept, metadata={"of": self.of, "facts": json.dumps(facts)})
        with whole(self.path) as file:
            file.write(payload)

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What `write` wrote; None where there is nothing, or nothing of this run: it then begins anew."""
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("of") != self.of:
                    return None
                return _copied(file), json.loads(metadata["facts"])
        except (OSError, SafetensorError, ValueError, KeyError):
            return None


def _copied(file: Any) -> dict[str, Tensor]:
    """All tensors, no longer views of the file."""
    return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
