"""Encoders: pretrained networks exported once as ONNX, with what they need of preprocessing inside the graph."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Literal

from safetensors import SafetensorError

from backend.artefacts import whole
from backend.errors import BadEncoderWeights, EncoderUnreadable
from backend.learning.architectures import ARCHITECTURES, Architecture, sha256_of
from backend.processes import alone
from backend.settings import Kind

if TYPE_CHECKING:  # the web process reads specs and never imports torch
    import torch

Exported = Literal["bf16", "fp32"]
"""What a network is exported in. int8 is made of an export with a project's images: see `quantisation`."""
Precision = Exported | Literal["int8"]
MANIFEST = "encoder.json"
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class EncoderSpec:
    """An exported encoder. `path` is an ONNX file from what travels to `embeddings` float32 (b, dims).

    What travels is `images` uint8 (b, H, W, 3), or `tokens` int32 (b, length) with zeros behind a text's end. `side` is
    how much the network sees: pixels a side (smaller squares are enlarged in the graph), or tokens.
    `digest` is the sha256 over weights, preprocessing and precision: vectors of unequal digests never mix.
    """

    name: str
    digest: str
    dims: int
    side: int
    precision: Precision
    onnx_sha256: str
    path: Path
    kind: Kind = "image"
    tokenizer_sha256: str = ""

    @property
    def tokenizer(self) -> Path:
        """A text encoder's tokenizer, beside its network."""
        return self.path.with_name(TOKENIZER)


def names() -> tuple[str, ...]:
    """The encoders that can be exported."""
    return tuple(ARCHITECTURES)


def kind_of(name: str) -> Kind:
    """What that encoder encodes."""
    return ARCHITECTURES[name].kind


def export(name: str, weights: Path | None, directory: Path, precision: Exported | None = None) -> EncoderSpec:
    """Export an encoder below ``directory / digest``, or find it there; some seconds the first time.

    `weights` is a state-dict file (.safetensors, or .pth read without pickled code); None takes the package's or
    the hub's. `precision` is lowered to fp32 on a CPU without bf16; None takes what this CPU runs faster.
    Raises BadEncoderWeights. Several processes take turns, and the folder appears whole, by a rename.
    """
    architecture = ARCHITECTURES[name]
    precision = runnable(precision or fastest())
    known = pointer(name, weights, directory, precision)
    if known is not None and known.exists():
        with contextlib.suppress(EncoderUnreadable):
            return load(directory, known.read_text())
    try:
        network = architecture.read(weights)
    except (OSError, RuntimeError, KeyError, ValueError, EOFError, UnpicklingError, SafetensorError) as error:
        raise BadEncoderWeights(name=name, problem=error) from error
    digest = _digest(name, network.state_dict(), architecture, precision)
    with alone(directory / "export.lock"):
        try:
            spec = load(directory, digest)
        except EncoderUnreadable:  # not exported yet, or damaged since
            building = Path(tempfile.mkdtemp(prefix=f".{digest[:12]}-", dir=directory))
            try:
                _write(network, architecture, building / "new", name, digest, precision)
                _publish(building, directory / digest)
            finally:
                shutil.rmtree(building, ignore_errors=True)
            spec = load(directory, digest)
    if known is not None:
        with whole(known, is_durable=False) as file:
            file.write(digest.encode())
    return spec


def pointer(name: str, weights: Path | None, directory: Path, precision: Precision, owner: str = "") -> Path | None:
    """Where the digest of such an encoder is noted, so that it is found without reading a network or importing torch.

    `owner` is whose images it was made with, if any were. None where there is no weights file to look at; `export`
    then says what is wrong.
    """
    architecture = ARCHITECTURES[name]
    try:
        source = architecture.identify() if weights is None else sha256_of(weights)
    except OSError:
        return None
    facts = {"name": name, "precision": precision, "source": source, **architecture.preprocessing()}
    if owner:
        facts["owner"] = owner
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return directory / f"{name}-{key[:24]}.digest"


def passed(name: str, weights: Path | None, directory: Path, owner: str) -> str | None:
    """The digest of the newest int8 form of that network that passed its check for `owner`; imports no torch."""
    noted = pointer(name, weights, directory, "int8", owner)
    if noted is None or not noted.exists():
        return None
    with contextlib.suppress(EncoderUnreadable):
        return load(directory, noted.read_text()).digest
    return None


def load(directory: Path, digest: str) -> EncoderSpec:
    """The encoder that `export` put there; imports no torch. Raises EncoderUnreadable."""
    folder = directory / digest
    try:
        facts = json.loads((folder / MANIFEST).read_text())
        spec = EncoderSpec(path=folder / "model.onnx", **facts)
        found = sha256_of(spec.path)
        tokenizer = sha256_of(spec.tokenizer) if spec.kind == "text" else ""
    except (OSError, ValueError, TypeError) as error:
        raise EncoderUnreadable(path=folder, problem=error) from error
    if (found, tokenizer, digest) != (spec.onnx_sha256, spec.tokenizer_sha256, spec.digest):
        raise EncoderUnreadable(path=folder, problem="its checksum is another")
    return spec


def runnable(wanted: Exported) -> Exported:
    """`wanted`, or fp32 where this CPU has no bf16."""
    import openvino

    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if wanted == "bf16" and "BF16" in capabilities else "fp32"


def fastest() -> Exported:
    """The precision that this CPU runs faster.

    bf16 pays with AMX (Intel) and on AMD's AVX-512 (1.5–1.9 × fp32 measured); on Intel's AVX-512 without AMX,
    as many virtual machines show it, the same network ran at 0.7 × fp32.
    """
    try:
        facts = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "fp32"
    flags = set(facts.partition("\nflags")[2].partition("\n")[0].split())
    pays = "amx_bf16" in flags or ("avx512_bf16" in flags and "AuthenticAMD" in facts)
    return runnable("bf16") if pays else "fp32"


def _digest(name: str, state: "Mapping[str, torch.Tensor]", architecture: Architecture, precision: Precision) -> str:
    """Over values, not files: the same weights in another file format are the same encoder."""
    facts = {"name": name, "precision": precision, **architecture.preprocessing()}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for key in sorted(state):
        tensor = state[key].detach().cpu().contiguous()
        digest.update(f"\n{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _write(
    network: "torch.nn.Module",
    architecture: Architecture,
    folder: Path,
    name: str,
    digest: str,
    precision: Precision,
) -> None:
    import torch

    folder.mkdir()
    path = folder / "model.onnx"
    axes = {architecture.input: architecture.axes, "embeddings": {0: "b"}}
    with warnings.catch_warnings(action="ignore"):  # the exporter's own: a slice that it did not fold
        torch.onnx.export(
            architecture.graph(network).eval(),
            (architecture.example(),),
            str(path),
            input_names=[architecture.input],
            output_names=["embeddings"],
            dynamic_axes=axes,
            opset_version=17,
            dynamo=False,  # the tracing exporter takes 1.5 s where the other takes 12 s and needs onnxscript
        )
    tokenizer = architecture.tokenizer()
    spec = EncoderSpec(
        name=name,
        digest=digest,
        dims=architecture.dims,
        side=architecture.side,
        precision=precision,
        onnx_sha256=sha256_of(path),
        path=path,
        kind=architecture.kind,
        tokenizer_sha256="" if tokenizer is None else sha256_of(tokenizer),
    )
    if tokenizer is not None:
        shutil.copyfile(tokenizer, spec.tokenizer)
    (folder / MANIFEST).write_text(_manifest(spec))


def _manifest(spec: EncoderSpec) -> str:
    facts = asdict(spec)
    del facts["path"]
    return json.dumps(facts, indent=1)


def adopt(spec: EncoderSpec, directory: Path, beside: Mapping[str, bytes]) -> EncoderSpec:
    """Take an encoder whose network was made elsewhere, with files to lie `beside` it: whole, by a rename."""
    building = Path(tempfile.mkdtemp(prefix=f".{spec.digest[:12]}-", dir=directory))
    try:
        folder = building / "new"
        folder.mkdir()
        shutil.copyfile(spec.path, folder / spec.path.name)
        for name, content in {**beside, MANIFEST: _manifest(spec).encode()}.items():
            (folder / name).write_bytes(content)
        with alone(directory / "export.lock"):
            _publish(building, directory / spec.digest)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return load(directory, spec.digest)


def _publish(building: Path, target: Path) -> None:
    """Rename a finished folder into place, and a damaged one out of it; what else was kept beside the network stays."""
    for path in target.glob("*"):
        if not (building / "new" / path.name).exists():
            os.link(path, building / "new" / path.name)
    for path in (building / "new").iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if target.exists():
        target.rename(building / "damaged")
    (building / "new").rename(target)
