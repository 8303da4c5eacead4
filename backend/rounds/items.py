"""What a project's items are: how their bytes are come by, which encoder reads them, and what travels to it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from numpy.typing import NDArray

from backend.database import Project
from backend.errors import EncoderMismatch, Int8Missing
from backend.learning.encoders import EncoderSpec, kind_of, passed
from backend.pool.decode import decode
from backend.pool.sources import SourceConfig, Sources
from backend.pool.texts import Tokenizer
from backend.settings import EncoderSection, Kind, settings
from backend.studio.labels import LabelTask

Fetch = Callable[[str], Awaitable[bytes]]

_USUAL: dict[Kind, str] = {"image": "efficientnet-lite0", "text": "all-minilm-l6-v2"}


class Named(EncoderSection):
    """An encoder as a project uses it: known by its digest, once it was exported."""

    digest: str = ""

    def __str__(self) -> str:
        weights = "" if self.weights is None else f", {self.weights.name}"
        return f"{self.name}{weights}" + (f" ({self.digest[:12]})" if self.digest else "")


def encoder_of(project: Project) -> EncoderSection:
    """The encoder in use, or before the first scan the configured one. Raises what `wanted_encoder` does."""
    return wanted_encoder(project) if project.encoder is None else Named.model_validate(project.encoder)


def wanted_encoder(project: Project) -> Named:
    """The encoder of the project's configuration, by name where it is left to us, and an int8 one by its digest.

    Raises BadLabelConfig, EncoderMismatch, Int8Missing.
    """
    section = encoder_for(LabelTask.parse(project.label_config).kind, project.settings.encoder)
    if section.precision != "int8":
        return Named(**section.model_dump())
    digest = passed(section.name, section.weights, settings().home / "encoders", project.name)
    if digest is None:
        problem = f"no int8 form of {section.name} has passed its check on the images of {project.name}"
        mend = f"Set it to auto, and once there are labels: nextbatch models quantise {project.name} --use"
        raise Int8Missing(problem=problem, mend=mend)
    return Named(**section.model_dump(), digest=digest)


def refuse_unchecked(project: Project) -> None:
    """Raises Int8Missing where the configuration asks for an int8 encoder that has not passed its check."""
    if project.settings.encoder.precision == "int8":
        wanted_encoder(project)


def encoder_for(kind: Kind, section: EncoderSection) -> EncoderSection:
    """The section with the name of an encoder of such items. Raises EncoderMismatch."""
    if section.name == "auto":
        return section.model_copy(update={"name": _USUAL[kind]})
    encodes = kind_of(section.name)
    if encodes != kind:
        raise EncoderMismatch(name=section.name, encodes=encodes, items=kind)
    return section


def decoder(spec: EncoderSpec) -> Callable[[bytes], NDArray[Any]]:
    """From an item's bytes to the array that travels to this encoder. Raises ItemUnreadable's kinds."""
    return Tokenizer(spec.tokenizer, spec.side) if spec.kind == "text" else partial(decode, side=spec.side)


@asynccontextmanager
async def opened(config: SourceConfig, is_inline: bool, *, is_timed: bool = True) -> AsyncIterator[Fetch]:
    """Reads items by what the catalogue names them with: an address, or the text itself. Raises ItemUnreadable.

    `is_timed` is False where the caller bounds each read himself, as a scan does.
    """
    if is_inline:

        async def own(uri: str) -> bytes:
            return uri.encode()

        yield own
        return
    async with Sources(config) as sources:
        read = sources.fetch if is_timed else sources.read

        async def fetch(uri: str) -> bytes:
            return (await read(uri)).data

        yield fetch
