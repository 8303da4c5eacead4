"""Which code made a model: this package's version and commit, the libraries' versions, the machine's arithmetic."""

import hashlib
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

_LIBRARIES = ("numpy", "scipy", "torch", "safetensors")
_BLOCK_BYTES = 2**20


@lru_cache(maxsize=1)
def provenance() -> dict[str, Any]:
    """``code`` (version and, in a checkout, commit), ``libraries`` by name, ``python`` and ``machine``, as JSON.

    Versions are read from the installed packages' metadata: nothing is imported.
    """
    return {
        "code": {"version": _version("nextbatch"), "commit": _commit()},
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def sha256_of(path: Path) -> str:
    """sha256 (hex) of a file's bytes, read a MiB at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that this package runs from, with ``+`` where files differ from it."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    if not commit:
        return None
    return commit + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
            ["git", "-C", str(root), *arguments],  # noqa: S607 - whichever git is installed
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
