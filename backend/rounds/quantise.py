"""A project's encoder in int8: made with its own images, checked on others of them, and kept only if it passes."""

import asyncio
import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import structlog
from sqlalchemy.orm import Session

from backend.database import Project, now, reading, transaction
from backend.environments import Progress
from backend.errors import Int8Refused, NotQuantisable
from backend.learning import encoders, fidelity
from backend.learning.encoders import EncoderSpec
from backend.learning.fidelity import FEWEST_LABELS, Fidelity
from backend.learning.finetune_plan import trained_on
from backend.learning.provenance import provenance
from backend.learning.quantisation import RECIPE, keep, quantise, report_of
from backend.pool.catalog import Labelled, encoded_items, labelled
from backend.processes import alone
from backend.rounds import changes, configured, hand
from backend.rounds.encoding import open_embeddings, source_config
from backend.rounds.images import images_of
from backend.rounds.items import decoder, encoder_of, opened, wanted_encoder
from backend.scoring.encoder import Encoder
from backend.scoring.local import LocalEncoder
from backend.scoring.pipeline import Scan, ScanItem
from backend.scoring.vectors import VectorStore
from backend.settings import EncoderSection, settings
from backend.studio.labels import LabelTask
from strategies import Task

log = structlog.get_logger()

CALIBRATION, CHECKED = 300, 5_000
FEWEST_CALIBRATION = 16
_TIMED, _TURNS = 32, 3

Tell = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Known:
    """An item of the project: its content is in some store, so that it can be read; `label` is -1 where it has none."""

    item_id: int
    content_hash: str
    uri: str
    label: int


@dataclass(frozen=True)
class Quantised:
    """What came of it. `spec` is None where the check was not passed; then nothing of it is kept.

    `calibration` images told nncf the ranges of values, `left_out` ones could not be read. `images_per_s` is of one
    thread, by precision, measured in turns on this machine as it was.
    """

    spec: EncoderSpec | None
    name: str
    found: Fidelity
    calibration: int
    left_out: int
    images_per_s: Mapping[str, float]

    def report(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        return {
            **asdict(self.found),
            "problems": list(self.found.problems),
            "calibration": self.calibration,
            "left_out": self.left_out,
            "images_per_s": dict(self.images_per_s),
        }

    def refuse(self) -> None:
        """Raises Int8Refused where the check was not passed."""
        if self.spec is None:
            raise Int8Refused(name=self.name, problem="; ".join(self.found.problems))


def quantise_encoder(project_id: int, actor: str, tell: Tell, progress: Progress) -> Quantised:
    """Quantise the project's encoder, compare it with fp32 on 5,000 images or all there are, and keep what passes.

    The encoder in use is not touched. Embeddings are stored as they come: killed, the next call goes on from there.
    Two at once take turns. Raises NotQuantisable, QuantisationFailed, EnvironmentNotBuilt, BadEncoderWeights.
    """
    with reading() as session:
        project = session.get_one(Project, project_id)
        asked = LabelTask.parse(project.label_config)
        items, labels = encoded_items(session, project_id), labelled(session, project_id, asked.question)
    used, section = open_embeddings(project).spec, encoder_of(project)
    if asked.task != Task.CLASSIFICATION:
        problem = "an item may have several labels, or a number"
        raise NotQuantisable(problem=problem, mend="The check compares heads where an item has exactly one class.")
    exact, classes = _exact(used, section), asked.choices
    calibration, checked = sample(known_of(items, labels, classes), project.settings.seed)
    trained = trained_on(used.path.parent)
    _refuse_few(calibration, checked, trained)
    folder = settings().home / "quantising" / str(project_id) / f"{exact.digest[:16]}-{_digest(calibration)}"
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder.parent / ".lock"):
        for old in folder.parent.glob("*-*"):
            if old != folder:  # of another encoder, or of what the pool was
                shutil.rmtree(old)
        progress(f"quantising {exact.name} on {len(calibration)} images")
        images = (image for _, image in images_of(project, exact, _named(calibration)))
        fast = quantise(exact, images, folder, settings().worker_threads, progress)
        stores = [_embed(project, spec, checked, tell) for spec in (exact, fast)]
        both = _in_all(checked, stores)
        _refuse_few(calibration, both, trained)
        hashes = [one.content_hash for one in both]
        found = fidelity.measure(
            stores[0].gather(hashes),
            stores[1].gather(hashes),
            np.array([one.label for one in both], np.int64),
            classes,
            np.array([hash_ in trained for hash_ in hashes], bool),
            project.settings.seed,
        )
        speeds = _speeds(project, (exact, used, fast), both)
        made = Quantised(fast, exact.name, found, len(calibration), len(checked) - len(both), speeds)
        made = _settle(project, actor, made, exact, used, section)
        if made.spec is not None:  # what was refused may be checked again, with more labels
            shutil.rmtree(folder)
    return made


def use(session: Session, project: Project) -> None:
    """Name int8 in the project's configuration: it changes over beside its rounds, as `changes` has it."""
    encoder = project.settings.encoder.model_copy(update={"precision": "int8"})
    configured.replace(session, project, project.settings.model_copy(update={"encoder": encoder}))
    changes.ask(session, project, wanted_encoder(project), changes.BY_CONFIGURATION)  # int8 may have been there before


def known_of(items: Sequence[tuple[int, str, str]], labels: Sequence[Labelled], classes: Sequence[str]) -> list[Known]:
    """The items, as (id, uri, content hash), with their labels; of equal contents one, a labelled one if there is."""
    named = {row.item_id: classes.index(row.label) for row in labels if row.label in classes}
    found: dict[str, Known] = {}
    for item_id, uri, content_hash in items:
        one = Known(item_id, content_hash, uri, named.get(item_id, -1))
        if found.setdefault(content_hash, one).label < one.label:
            found[content_hash] = one
    return list(found.values())


def sample(known: Sequence[Known], seed: int) -> tuple[list[Known], list[Known]]:
    """Whose images calibrate, and whose check: 300 and 5,000 others, in the order of a hash that `seed` salts.

    Labels are few and wanted for the check, so calibration takes items without a label first, at most a quarter of all.
    """

    def rank(one: Known) -> str:
        return hashlib.sha256(f"{seed}:{one.content_hash}".encode()).hexdigest()

    drawn = sorted(known, key=lambda one: (one.label >= 0, rank(one)))
    calibration = drawn[: min(CALIBRATION, len(drawn) // 4)]
    rest = sorted(drawn[len(calibration) :], key=lambda one: (one.label < 0, rank(one)))
    return calibration, rest[:CHECKED]


def _exact(used: EncoderSpec, section: EncoderSection) -> EncoderSpec:
    """The encoder in use, in fp32. Raises NotQuantisable."""
    if used.kind != "image":
        raise NotQuantisable(problem=f"{used.name} encodes texts", mend="Only encoders of images are quantised.")
    folder = settings().home / "encoders"
    exact = encoders.export(section.name, section.weights, folder, "fp32")
    if used.precision == "int8":
        is_same = (report_of(used.path.parent) or {}).get("parent") == exact.digest
    else:
        is_same = encoders.export(section.name, section.weights, folder, used.precision).digest == used.digest
    if not is_same:
        problem = "the file that encoder.weights names holds other weights than the encoder in use"
        raise NotQuantisable(problem=problem, mend="Give it a name of its own, and change over to it first.")
    return exact


def _refuse_few(calibration: Sequence[Known], checked: Sequence[Known], trained: frozenset[str]) -> None:
    """Without labels the probe cannot be measured, and what people would see instead is not what was promised."""
    judged = [one.label for one in checked if one.label >= 0 and one.content_hash not in trained]
    if len(judged) < FEWEST_LABELS or len(set(judged)) < 2:
        problem = f"{len(judged)} labelled images of {len(set(judged))} classes can be used for the check"
        mend = f"It takes {FEWEST_LABELS} of two: of fewer, one image is more than the 0.3 points that may be lost."
        raise NotQuantisable(problem=problem, mend=mend)
    if len(calibration) < FEWEST_CALIBRATION:
        problem = f"{len(calibration)} images are left to calibrate with"
        raise NotQuantisable(problem=problem, mend="Let nextbatch encode more of the pool first.")


def _named(known: Sequence[Known]) -> list[tuple[int, str]]:
    return [(one.item_id, one.content_hash) for one in known]


def _digest(calibration: Sequence[Known]) -> str:
    facts = [str(sorted(RECIPE.items())), *(one.content_hash for one in calibration)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _embed(project: Project, spec: EncoderSpec, checked: Sequence[Known], tell: Tell) -> VectorStore:
    """The embeddings of these items in this process's engine; those that are stored are not made again."""
    store = VectorStore(settings().home / "vectors", spec.digest, spec.dims)
    with store.held():
        rows = store.locate([one.content_hash for one in checked])
        missing = [ScanItem(checked[at].item_id, checked[at].uri) for at in np.flatnonzero(rows < 0)]
        tell(len(checked) - len(missing), len(checked), spec.precision)
        if missing:
            encoder: Encoder = LocalEncoder(spec, settings().worker_threads)
            is_inline = LabelTask.parse(project.label_config).is_inline
            before = len(checked) - len(missing)

            async def run() -> None:
                async with opened(source_config(project.settings), is_inline) as fetch:
                    await Scan(
                        fetch,
                        decoder(spec),
                        encoder,
                        store,
                        lambda _: None,
                        lambda _: None,
                        lambda done, _: tell(before + done, len(checked), spec.precision),
                    ).run(missing, len(missing))

            asyncio.run(run())
    return store


def _in_all(checked: Sequence[Known], stores: Sequence[VectorStore]) -> list[Known]:
    """Those whose embeddings could be made: a file may have gone, or hold other bytes by now."""
    hashes = [one.content_hash for one in checked]
    is_there = np.all([store.locate(hashes) >= 0 for store in stores], axis=0)
    return [checked[at] for at in np.flatnonzero(is_there)]


def _speeds(project: Project, specs: Sequence[EncoderSpec], checked: Sequence[Known]) -> dict[str, float]:
    """Images a second of one thread, by precision: the best of a few turns, since others use the machine too."""
    images = [image for _, image in images_of(project, specs[0], _named(checked[:_TIMED]))]
    alike = [image for image in images if image.shape == images[0].shape]
    if not alike:
        return {}
    batch = np.stack(alike)
    engines: dict[str, Encoder] = {spec.precision: LocalEncoder(spec, streams=1) for spec in specs}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(_TURNS):
        for name, engine in engines.items():
            started = time.perf_counter()
            engine.encode(batch)
            seconds[name].append(time.perf_counter() - started)
    return {name: round(len(batch) / min(taken), 1) for name, taken in seconds.items()}


def _settle(
    project: Project, actor: str, made: Quantised, exact: EncoderSpec, used: EncoderSpec, section: EncoderSection
) -> Quantised:
    """Keep what passed, and write into the project's books what was found."""
    assert made.spec is not None
    is_kept = not made.found.problems
    spec = None
    if is_kept:
        facts = {**made.report(), "parent": exact.digest, "made": now().isoformat(), "by": actor, **provenance()}
        spec = keep(made.spec, used, section.weights, settings().home / "encoders", project.name, facts)
    with transaction() as session:
        said = "passed" if is_kept else "; ".join(made.found.problems)
        hand.note(session, project.id, actor, "quantise", f"int8 {made.spec.digest} of {exact.name}: {said}")
    log.info("quantise.done", project=project.id, encoder=made.spec.digest, is_kept=is_kept, overlap=made.found.overlap)
    return replace(made, spec=spec)
