"""Users' own models in a real Triton answer for the items that the head doubts, once each."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.database import Project, transaction
from backend.errors import FullModelUnfit
from backend.pool.catalog import Candidates, NewItem, add_items
from backend.processes import wait_until
from backend.rounds import full_models
from backend.rounds.queue import prepare_database
from backend.scoring.serving import EmbeddedTriton
from backend.scoring.triton import connect
from backend.settings import ModelsSection
from backend.studio.labels import image_config
from tests.conftest import forget_process_state
from tests.services.triton import inferences

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 16
input [ {{ name: "pixels" data_type: TYPE_UINT8 dims: [ 24, 24, 3 ] }} ]
output [ {{ name: "scores" data_type: TYPE_FP32 dims: [ {classes} ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""
MODEL = """
import numpy as np
import triton_python_backend_utils as utils

class TritonPythonModel:
    def initialize(self, _arguments):
        self.random = np.random.default_rng(0)

    def execute(self, requests):
        answers = []
        for request in requests:
            pixels = utils.get_input_tensor_by_name(request, "pixels").as_numpy()
            colour = pixels.reshape(len(pixels), -1, 3).mean(1)
            kept = self.random.random(colour.shape) > {dropout}
            scores = (colour * kept / 64).astype(np.float32)
            answers.append(utils.InferenceResponse([utils.Tensor("scores", scores)]))
        return answers
"""
COLOURS = ((250, 10, 10), (20, 240, 30), (40, 50, 230), (200, 190, 10), (9, 9, 9), (128, 120, 130))


def serve(triton: EmbeddedTriton, name: str, dropout: float = 0.0, classes: int = 3) -> str:
    folder = triton.repository / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(CONFIG.format(name=name, classes=classes))
    (folder / "1" / "model.py").write_text(MODEL.format(dropout=dropout))
    client = connect(triton.url)
    client.load_model(name)
    client.close()
    return name


@pytest.fixture
def pool(home: Path, triton: EmbeddedTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Candidates:
    """Six plain images in a project of three labels."""
    monkeypatch.setenv("NEXTBATCH_DATA_ROOT", str(tmp_path))
    monkeypatch.setenv("TRITON_URL", triton.url)
    forget_process_state()
    prepare_database()
    paths = [tmp_path / f"{number}.png" for number in range(len(COLOURS))]
    for number, (path, colour) in enumerate(zip(paths, COLOURS, strict=True)):
        Image.new("RGB", (10 + number,) * 2, colour).save(path)
    with transaction() as session:
        session.add(Project(name="p", config={"name": "p"}, label_config=image_config(("red", "green", "blue"))))
        session.flush()
        add_items(session, 1, [NewItem(str(path)) for path in paths])
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return Candidates(np.arange(1, len(paths) + 1), tuple(hashes))


HEAD = np.array(
    [[0.9, 0.05, 0.05], [0.4, 0.3, 0.3], [0.5, 0.4, 0.1], [0.98, 0.01, 0.01], [0.34, 0.33, 0.33], [0.6, 0.2, 0.2]]
)
CLASSES = ("blue", "green", "red")


def test_an_ensemble_answers_for_what_the_head_doubts_and_is_asked_once(
    pool: Candidates, triton: EmbeddedTriton
) -> None:
    names = (serve(triton, "first"), serve(triton, "second"))
    section = ModelsSection(names=names, shortlist=4)

    said = full_models.answers(1, section, pool, HEAD, CLASSES)
    again = full_models.answers(1, section, pool, HEAD, CLASSES)

    assert said.shape == (2, 6, 3)
    assert np.isnan(said[:, [0, 3]]).all()
    scores = np.array(COLOURS) / 64
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    there = [1, 2, 4, 5]
    np.testing.assert_allclose(said[:, there], np.broadcast_to(expected[there][:, ::-1], (2, 4, 3)), atol=2e-3)
    np.testing.assert_array_equal(said, again)
    assert wait_until(lambda: [inferences(triton, name) for name in names] == [4, 4], 60)


def test_a_model_whose_dropout_stays_on_gives_draws_that_differ(pool: Candidates, triton: EmbeddedTriton) -> None:
    section = ModelsSection(names=(serve(triton, "dropping", dropout=0.5),), draws=5)

    said = full_models.answers(1, section, pool, HEAD, CLASSES)

    assert said.shape == (5, 6, 3)
    np.testing.assert_allclose(said.sum(axis=2), 1, atol=2e-3)
    assert len({row.tobytes() for row in said[:, 0]}) > 1


@pytest.mark.parametrize(
    ("names", "why"), [((), "names are needed"), (("absent",), "absent"), (("wide",), "answers .* for 3 labels")]
)
def test_what_does_not_fit_is_told_with_its_mend(
    pool: Candidates, triton: EmbeddedTriton, names: tuple[str, ...], why: str
) -> None:
    if names == ("wide",):
        serve(triton, "wide", classes=7)
    section = ModelsSection(names=names)

    with pytest.raises(FullModelUnfit, match=why):
        full_models.answers(1, section, pool, HEAD, CLASSES)
