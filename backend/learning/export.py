"""A model version as files that others can use: head, card and snapshot, with a list of their sha256."""

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.orm import Session

from backend.artefacts import whole
from backend.database import ModelVersion
from backend.errors import ExportRefused, VersionDeleted
from backend.learning import drawing, registry
from backend.learning.card import card, render

MANIFEST = "SHA256SUMS"
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same files make the same archive


def export(session: Session, version: ModelVersion, out: Path) -> Path:
    """Write ``head.safetensors``, ``snapshot.jsonl.gz``, ``card.json``, ``card.txt``, ``layers.svg``, ``SHA256SUMS``.

    An `out` that ends in .zip makes an archive, any other a folder, which must not exist; it is there whole or not at
    all. ``sha256sum -c SHA256SUMS`` checks it. Head and snapshot are read and checked before. Raises VersionDeleted,
    HeadUnreadable, ExportRefused.
    """
    if version.state == "deleted":
        raise VersionDeleted(version=version.name)
    if out.exists():
        raise ExportRefused(path=out, problem="it is there already")
    head = registry.load_head(version)
    paths = registry.files(version)
    parts = {"head.safetensors": paths["head"].read_bytes()}
    if "snapshot" in paths and paths["snapshot"].is_file():
        parts["snapshot.jsonl.gz"] = paths["snapshot"].read_bytes()
    described = card(session, version)
    parts["card.json"] = json.dumps(described, indent=2, ensure_ascii=False).encode() + b"\n"
    parts["card.txt"] = render(described).encode() + b"\n"
    parts["layers.svg"] = drawing.svg(drawing.layers(registry.encoder_path(version.encoder_digest), head)).encode()
    sums = [f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(parts.items())]
    parts[MANIFEST] = "".join(sums).encode()
    if out.suffix == ".zip":
        _archive(out, parts)
    else:
        _folder(out, parts)
    return out


def _archive(out: Path, parts: Mapping[str, bytes]) -> None:
    with whole(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), data, zipfile.ZIP_DEFLATED)


def _folder(out: Path, parts: Mapping[str, bytes]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        for name, data in parts.items():
            (draft / name).write_bytes(data)
        draft.chmod(0o755)
        draft.replace(out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
