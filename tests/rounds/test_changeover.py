"""A project's encoder is changed while rounds go on and people ask for predictions; what fails changes nothing."""

import io
import itertools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch
from safetensors.torch import save_file
from tritonclient import grpc

from backend.database import Alert, EncoderChange, Item, ModelVersion, Project, Round, reading, transaction
from backend.errors import BadEncoderWeights, ChangeCancelled, EncoderRefused
from backend.hooks import Hooks
from backend.learning import encoders as exported
from backend.learning import registry
from backend.learning.architectures import ARCHITECTURES
from backend.pool.folders import digits
from backend.processes import wait_until
from backend.rounds import changeover, changes, configured, encoding, garbage, queue, trial
from backend.rounds import round as the_round
from backend.rounds.items import Named
from backend.rounds.labelling import Given, NewProject, make_project
from backend.rounds.labelling import store as keep
from backend.rounds.pushes import push_lines
from backend.scoring.repository import model_name
from backend.scoring.serving import EmbeddedTriton
from backend.scoring.triton import unload
from backend.scoring.vectors import VectorStore
from backend.settings import EncoderSection
from tests.conftest import forget_process_state
from tests.rounds import killed_worker
from tests.services.images import CACHE
from tests.services.small_encoder import NAME, SMALL

COUNT, STUDIO = 36, 7
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)
on_postgres = pytest.mark.parametrize("store", ["postgres"], indirect=True)


@dataclass
class Played:
    """A project of digits, and what happens to it."""

    project_id: int
    known: Mapping[str, str]
    weights: Path

    @property
    def project(self) -> Project:
        with reading() as session:
            return session.get_one(Project, self.project_id)

    def label(self, first: int, last: int) -> None:
        given = [Given(label, uri=uri) for uri, label in list(self.known.items())[first:last]]
        with transaction() as session:
            keep(session, session.get_one(Project, self.project_id), given)

    def play(self) -> Round:
        """A round, as a worker runs it."""
        with transaction() as session:
            number = queue.request_round(session, self.project_id, "hand").number
        the_round._in_order(self.project_id, number)
        with reading() as session:
            mine = (Round.project_id == self.project_id, Round.number == number)
            return session.scalars(sa.select(Round).where(*mine)).one()

    def configure(self, **section: Any) -> EncoderChange | None:
        """As `nextbatch apply` does; the newest change."""
        encoder = EncoderSection(**section)
        with transaction() as session:
            project = session.get_one(Project, self.project_id)
            configured.replace(session, project, project.settings.model_copy(update={"encoder": encoder}))
            return changes.latest(session, self.project_id)

    def change(self) -> EncoderChange:
        return self.configure(name=NAME, weights=self.weights, precision="fp32") or pytest.fail("no change")

    def now(self) -> EncoderChange:
        with reading() as session:
            return changes.latest(session, self.project_id) or pytest.fail("no change")

    def champion(self) -> ModelVersion:
        with reading() as session:
            return registry.champion(session, self.project_id) or pytest.fail("no champion")

    def alerts(self) -> list[str]:
        with reading() as session:
            mine = sa.select(Alert.code).where(Alert.code.startswith("encoder_"))
            return list(session.scalars(mine.order_by(Alert.id)))


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of the user's own; the encoders are small ones."""
    monkeypatch.setitem(ARCHITECTURES, NAME, SMALL)
    return varied(tmp_path / "mine.safetensors", 1)


def varied(path: Path, seed: int, factor: float = 1.0) -> Path:
    """Weights of a network of that kind, no two seeds alike."""
    state = SMALL.read(None).state_dict()
    torch.manual_seed(seed)  # to read it sets another one
    save_file({key: torch.randn(one.shape) * factor if one.dim() == 4 else one for key, one in state.items()}, path)
    return path


@pytest.fixture
def played(store: str, home: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    """Everything encoded, 12 labelled, a champion, and 12 others that are labelled for the holdout; no Triton."""
    assert store
    data = digits(CACHE)
    monkeypatch.setenv("NEXTBATCH_DATA_ROOT", str(data.root))
    forget_process_state()
    encoding.open_encoder.cache_clear()
    step = len(data.train) // COUNT
    named = list(zip(data.train.paths[::step], data.train.labels[::step], strict=True))[:COUNT]
    known = {str(path.relative_to(data.root)): str(label) for path, label in named}
    sections = {"encoder": {"precision": "fp32"}, "batch": {"size": 5, "first_holdout": 0, "holdout_share": 0}}
    with transaction() as session:
        given = {"name": "digits", "labels": tuple("0123456789"), **sections}
        project = make_project(session, NewProject.model_validate(given))
        project.studio_project_id = STUDIO
    push_lines(project, io.BytesIO("\n".join(json.dumps({"uri": uri}) for uri in known).encode()))
    made = Played(project.id, known, other)
    with transaction() as session:
        session.execute(sa.update(Item).where(Item.uri.in_(list(known)[1:24:2])).values(is_holdout=True))
    made.label(0, 24)
    made.play()
    return made


@pytest.fixture
def served(triton: EmbeddedTriton, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedTriton]:
    """The embedded Triton of this home."""
    (home / "triton").symlink_to(triton.folder)
    before = loaded(triton)
    monkeypatch.setenv("TRITON_URL", triton.url)
    yield triton
    encoding.open_encoder.cache_clear()
    encoding._client.cache_clear()
    for name in loaded(triton) - before:
        unload(triton.url, name, 10)


def loaded(server: EmbeddedTriton) -> set[str]:
    client = grpc.InferenceServerClient(server.url)
    try:
        index = client.get_model_repository_index().models
        return {one.name for one in index if one.state == "READY"}
    finally:
        client.close()


def name_of(encoder: Mapping[str, Any] | None) -> str:
    assert encoder is not None
    return model_name(encoder["name"], encoder["digest"])


@dataclass
class Asked:
    """What /predict answered to each call: tasks and entries, or what it raised."""

    answers: list[tuple[list[str], list[dict[str, Any]]]] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)


@contextmanager
def people_asking(known: Mapping[str, str], strangers: list[str]) -> Iterator[Asked]:
    """Somebody asks again and again; every tenth call also has an item that nobody knows, for the encoder."""
    asked, over = Asked(), threading.Event()
    hooks = type("WithEncoder", (Hooks,), {"encode_now": staticmethod(encoding.encode_now)})
    uris = itertools.cycle([list(known)[start : start + 5] for start in range(0, len(known), 5)])

    def ask() -> None:
        for number in itertools.count():
            if over.is_set():
                return
            tasks = next(uris) + ([strangers.pop()] if strangers and number % 10 == 0 else [])
            try:
                entries = hooks(project_id=str(STUDIO)).predict([{"data": {"image": uri}} for uri in tasks])
                asked.answers.append((tasks, entries))
            except BaseException as failure:
                asked.failures.append(failure)
            over.wait(0.1)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join()


def expected(versions: Mapping[str, ModelVersion], uri: str, version: str) -> float:
    """The score that this version gives this item, from its own head and its own encoder's vectors."""
    made = versions[version]
    with reading() as session:
        content = session.scalars(sa.select(Item.content_hash).where(Item.uri == uri)).one()
    head = registry.load_head(made)
    vectors = VectorStore(encoding.settings().home / "vectors", made.encoder_digest, head.features)
    return float(head.predict(vectors.gather([content or ""]).astype(np.float32)).max())


@on_sqlite
def test_an_encoder_is_changed_and_changed_back_without_a_failed_prediction(
    served: EmbeddedTriton, played: Played
) -> None:
    old, first = played.project.encoder, played.champion()
    strangers = [str(p.relative_to(digits(CACHE).root)) for p in digits(CACHE).test.paths[:5]]
    with people_asking(played.known, strangers) as asked:
        change = played.change()
        played.label(24, 27)
        beside = played.play()  # on its way: nothing of this round knows of it
        on_its_way = played.champion()
        changeover.in_order(change.id)
        ready, both = played.now(), loaded(served)
        seen = len(asked.answers)
        assert wait_until(lambda: len(asked.answers) > seen + 10, 90)
        switching = played.play()
        new, still = played.champion(), loaded(served)
        played.play()
        after = loaded(served)
        with transaction() as session:
            registry.promote(session, session.get_one(ModelVersion, on_its_way.id), "ann", "rollback")
        rows = len(VectorStore(encoding.settings().home / "vectors", first.encoder_digest, SMALL.dims))
        meanwhile = played.play()
        answering = played.champion()
        changeover.in_order(played.now().id)
        played.play()
        back = played.champion()
        seen = len(asked.answers)
        assert wait_until(lambda: len(asked.answers) > seen + 10, 90)

    assert old is not None
    assert beside.state == switching.state == meanwhile.state == "done"
    assert on_its_way.encoder_digest == first.encoder_digest == old["digest"]
    assert (ready.state, ready.progress["total"]) == ("ready", ready.progress["done"])
    assert ready.report["servers"] == 1
    assert ready.report["items"] == ready.report["encoded"] >= COUNT
    assert ready.report["least_cosine"] > trial.LEAST_COSINE
    assert both >= {name_of(old), name_of(ready.encoder)}
    assert (new.encoder_digest, new.state) == (ready.encoder["digest"], "champion")
    assert still >= {name_of(old), name_of(ready.encoder)}  # for one round more
    assert name_of(old) not in after
    assert played.alerts() == ["encoder_changed"]  # nobody needs to be told of the way back
    assert answering.id == on_its_way.id  # a round on the other encoder does not undo what somebody decided
    assert back.encoder_digest == first.encoder_digest
    assert back.number > new.number
    assert len(VectorStore(encoding.settings().home / "vectors", first.encoder_digest, SMALL.dims)) - rows <= 5
    assert asked.failures == []
    with reading() as session:
        versions = {version.name: version for version in session.scalars(sa.select(ModelVersion))}
    assert {entry["model_version"] for _, entries in asked.answers for entry in entries} >= {first.name, new.name}
    said = {
        (uri, entry["model_version"], entry["score"], bool(entry["result"]))
        for tasks, entries in asked.answers
        for uri, entry in zip(tasks, entries, strict=True)
    }
    assert all(is_answered for *_, is_answered in said)
    for uri, version, score, _ in said:
        assert uri not in played.known or score == pytest.approx(expected(versions, uri, version), abs=2e-3)


def broken_weights(played: Played, served: EmbeddedTriton) -> dict[str, Any]:
    assert served
    return {"name": NAME, "weights": varied(played.weights.with_name("nan.safetensors"), 2, np.nan)}


def refused_by_triton(played: Played, served: EmbeddedTriton) -> dict[str, Any]:
    spec = exported.export(NAME, played.weights, encoding.settings().home / "encoders", "fp32")
    encoding.lay_out(spec)
    onnx = served.repository / model_name(spec.name, spec.digest) / "1" / "model.onnx"
    damaged = onnx.with_name("damaged")
    damaged.write_bytes(bytes(onnx.stat().st_size))
    damaged.replace(onnx)  # the exported file is the same inode: it must not be written to
    return {"name": NAME, "weights": played.weights}


@on_sqlite
@pytest.mark.parametrize("breaks", [broken_weights, refused_by_triton])
def test_an_encoder_that_cannot_be_used_changes_nothing_and_says_the_mend(
    served: EmbeddedTriton, played: Played, breaks: Callable[[Played, EmbeddedTriton], dict[str, Any]]
) -> None:
    old, before = played.project.encoder, played.champion()
    change = played.configure(**breaks(played, served), precision="fp32")
    assert change is not None

    with pytest.raises(Exception):  # noqa: B017, PT011 - the workflow ends with whatever ended it
        changeover.in_order(change.id)

    round_ = played.play()
    failed = played.now()
    assert (failed.state, played.project.encoder) == ("failed", old)
    assert round_.state == "done"
    assert played.champion().encoder_digest == before.encoder_digest
    assert played.alerts() == ["encoder_refused"]
    assert failed.encoder["digest"] == "" or name_of(failed.encoder) not in loaded(served)
    with reading() as session:
        alert = session.scalars(sa.select(Alert).where(Alert.code == "encoder_refused")).one()
    assert failed.failure
    assert failed.failure in alert.message
    assert "set the encoder back" in alert.mend
    if breaks is refused_by_triton:
        for path in sorted((served.repository / name_of(failed.encoder)).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (served.repository / name_of(failed.encoder)).rmdir()
    again = played.configure(name=NAME, weights=failed.encoder["weights"], precision="fp32")
    assert again is not None
    assert (again.id > failed.id, again.state) == (True, "waiting")  # storing it once more tries again
    if breaks is broken_weights:  # mended under the same name
        Path(failed.encoder["weights"]).write_bytes(played.weights.read_bytes())
        assert changeover.check(again.id)
    back = played.configure(precision="fp32")
    assert back is not None
    assert back.state == "cancelled"
    assert changeover.in_order(again.id) == {}


@on_sqlite
def test_a_served_network_that_answers_otherwise_than_the_exported_one_is_refused(
    served: EmbeddedTriton, played: Played, tmp_path: Path
) -> None:
    folder = encoding.settings().home / "encoders"
    wanted = exported.export(NAME, varied(tmp_path / "3.safetensors", 3), folder, "fp32")
    stranger = exported.export(NAME, varied(tmp_path / "4.safetensors", 4), folder, "fp32")
    encoding.lay_out(wanted)
    onnx = served.repository / model_name(wanted.name, wanted.digest) / "1" / "model.onnx"
    onnx.unlink()
    onnx.write_bytes(stranger.path.read_bytes())

    with pytest.raises(EncoderRefused, match="other embeddings than the exported network"):
        trial.try_out(played.project, wanted)


@on_postgres
def test_what_was_encoded_is_not_encoded_again_after_a_crash_or_a_cancellation(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction() as session:  # as an earlier nextbatch left it
        session.get_one(Project, played.project_id).encoder = None
    change = played.change()
    changeover.check(change.id)
    kept: list[int] = []
    real = encoding.scan

    def dying(*given: Any) -> Any:
        items = list(given[1])[:10]
        real(given[0], iter(items), len(items), *given[3:])
        kept.append(len(given[3]))
        raise OSError("the machine died")

    monkeypatch.setattr(encoding, "scan", dying)
    with pytest.raises(OSError, match="died"):
        changeover.encode_pool(change.id)
    monkeypatch.setattr(encoding, "scan", real)
    digest = played.now().encoder["digest"]
    wanted = [one for one in garbage.collect(is_dry=True) if one.digest == digest]
    resumed = changeover.encode_pool(change.id)
    cancelled = played.configure(precision="fp32")
    with pytest.raises(ChangeCancelled):
        changeover.get_ready(change.id)
    again = played.change()
    changeover.check(again.id)
    repeated = changeover.encode_pool(again.id)

    assert kept == [10]
    assert [one.is_used for one in wanted] == [True]  # nobody collects what is on its way
    assert resumed == {"encoded": COUNT - 10, "failed": 0}
    assert cancelled is not None
    assert cancelled.state == "cancelled"
    assert repeated == {"encoded": 0, "failed": 0}
    assert played.play().state == "done"
    assert played.champion().encoder_digest == (played.project.encoder or {})["digest"] != digest


@on_sqlite
def test_the_same_encoder_under_another_name_is_in_use_at_once(played: Played, tmp_path: Path) -> None:
    played.change()
    changeover.in_order(played.now().id)
    played.play()
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(played.weights.read_bytes())
    used = played.project.encoder
    assert used is not None

    change = played.configure(name=NAME, weights=copy, precision="fp32")

    assert change is not None
    assert changeover.in_order(change.id) == {}
    assert played.now().state == "replaced"
    assert played.project.encoder == {**used, "weights": str(copy)}


@on_sqlite
def test_a_file_that_holds_no_weights_is_refused_with_its_name(played: Played, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("these are no weights")
    change = played.configure(name=NAME, weights=tmp_path / "text.safetensors")
    assert change is not None

    with pytest.raises(BadEncoderWeights, match=NAME):
        changeover.in_order(change.id)

    assert (played.now().state, played.alerts()) == ("failed", ["encoder_refused"])
    played.configure(precision="fp32")
    assert played.now().state == "cancelled"


@on_sqlite
@pytest.mark.timeout(600)
def test_workers_killed_at_each_stage_of_a_change_go_on_after_a_restart(played: Played, tmp_path: Path) -> None:
    spec = exported.export(NAME, played.weights, encoding.settings().home / "encoders", "fp32")
    with transaction() as session:  # by digest: the workers know no small encoders
        wanted = Named(name=NAME, weights=played.weights, precision="fp32", digest=spec.digest)
        change = changes.ask(session, session.get_one(Project, played.project_id), wanted, "ann")
    assert change is not None
    for place in ("scan", "switch"):
        killed = killed_worker.start(place, tmp_path / place, tmp_path / "worker.log")
        killed.join(120)
        assert killed.exitcode == -signal.SIGKILL, (place, (tmp_path / "worker.log").read_text()[-3000:])

    worker = killed_worker.start("nothing", tmp_path / "nothing", tmp_path / "worker.log")
    try:
        assert wait_until(lambda: played.alerts() == ["encoder_changed"], 200)
    finally:
        os.kill(worker.pid or 0, signal.SIGTERM)
        worker.join(60)

    done = played.now()
    assert (done.id, done.state) == (change.id, "in_use")
    assert played.champion().encoder_digest == done.encoder["digest"]
    assert len(VectorStore(encoding.settings().home / "vectors", done.encoder["digest"], SMALL.dims)) == COUNT
