"""Fine-tuning: it learns, begins again where it was killed, and keeps its hands off what it should not touch."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from backend.learning import finetune
from backend.learning.architectures import ARCHITECTURES, ImageArchitecture
from backend.learning.augmentation import Augment, augmented, resized
from backend.learning.checkpoints import Checkpoint
from backend.learning.finetune import Examples, Finetuned, fine_tune
from backend.learning.finetune_plan import Plan, split
from backend.learning.folds import assign_folds
from backend.settings import FineTuneSection
from tests.services.small_encoder import SIDE, SMALL, network

COUNT = 96
OPTIONS = FineTuneSection(stage="all", epochs=3, patience=3, minibatch=16, learning_rate=0.01, augment="full")


class Killed(Exception):
    """The process ends here."""


def stripes() -> Examples:
    """Lying and slanting stripes of random width, colour and place, in noise; half are images of another size."""
    random = np.random.default_rng(3)
    images, labels = [], random.integers(0, 2, COUNT)
    for at, label in enumerate(labels):
        side = SIDE if at % 2 else 24
        rows, columns = np.mgrid[:side, :side]
        wave = np.sin((rows + label * columns) / random.uniform(0.8, 2.0) + random.uniform(0, 6))
        pixels = 127 + wave[..., None] * random.uniform(20, 60, 3) + random.normal(0, 40, (side, side, 3))
        images.append(pixels.clip(0, 255).astype(np.uint8))
    return Examples(images, labels, split(labels, 0.25, 0))


EXAMPLES = stripes()


def planned(**options: Any) -> Plan:
    chosen = OPTIONS.model_copy(update=options)
    return Plan("small", "p", None, ("lying", "slanting"), "s", "d", 7, torch.get_num_threads(), chosen)


def trained(folder: Path, tell: Callable[[int, int, str], None] = lambda *_: None, **options: Any) -> Finetuned:
    folder.mkdir(exist_ok=True)
    return fine_tune(planned(**options), SMALL, network(), EXAMPLES, folder, tell)


def bits(found: Finetuned) -> dict[str, bytes]:
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in found.network.state_dict().items()}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Finetuned:
    return trained(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("last", [1, 5, 7, 14])
def test_a_run_that_was_killed_ends_with_the_same_bits(
    last: int, whole_run: Finetuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "_CHECKPOINT_S", 0 if last % 2 else 1e9)  # after each step, or each epoch

    def kill(done: int, _total: int, _what: str) -> None:
        if done == last:
            raise Killed

    with pytest.raises(Killed):
        trained(tmp_path, kill)
    told: list[int] = []
    again = trained(tmp_path, lambda done, *_: told.append(done))

    assert told[0] == (last if last % 2 else last - last % 5)
    assert (again.history, again.best_epoch) == (whole_run.history, whole_run.best_epoch)
    assert bits(again) == bits(whole_run)


def test_it_learns_what_the_frozen_network_does_not_see(whole_run: Finetuned) -> None:
    before, after = whole_run.history[0], whole_run.history[whole_run.best_epoch]

    assert whole_run.best_epoch > 0
    assert after.log_loss < 0.8 * before.log_loss
    assert after.accuracy >= before.accuracy


def test_another_seed_is_another_result(whole_run: Finetuned, tmp_path: Path) -> None:
    found = fine_tune(replace(planned(epochs=1), seed=8), SMALL, network(), EXAMPLES, tmp_path, lambda *_: None)

    assert found.history[1] != whole_run.history[1]


def test_the_last_stage_leaves_the_rest_and_all_statistics_as_they_were(tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in network().state_dict().items()}

    after = trained(tmp_path, stage="last", balanced=True).network.state_dict()

    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"3.weight", "3.bias"}


def test_where_nothing_helps_the_network_stays_as_it_was(tmp_path: Path) -> None:
    found = trained(tmp_path, learning_rate=0.99, epochs=2, patience=2, augment="none")

    assert found.best_epoch == 0
    assert bits(found) == {name: tensor.numpy().tobytes() for name, tensor in network().state_dict().items()}


def test_it_stops_when_patience_is_over(tmp_path: Path) -> None:
    found = trained(tmp_path, learning_rate=0.99, epochs=20, patience=2, augment="none")

    assert len(found.history) == 1 + found.best_epoch + 2


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    Checkpoint(path, "one").write({"x": torch.ones(2, 3).T}, {"step": 4})

    found = Checkpoint(path, "one").read()
    other = Checkpoint(path, "other").read()
    path.write_bytes(path.read_bytes()[:-4])
    damaged = Checkpoint(path, "one").read()
    save_file({"x": np.ones(1)}, path)
    foreign = Checkpoint(path, "one").read()

    assert found is not None
    assert (found[0]["x"].tolist(), found[1]) == ([[1, 1]] * 3, {"step": 4})
    assert (other, damaged, foreign) == (None, None, None)


@pytest.mark.parametrize("kind", ["none", "crop", "full"])
def test_an_augmentation_repeats_with_its_seed_and_draws_for_each_image(kind: Augment) -> None:
    images = [EXAMPLES.images[0]] * 4
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(augmented(images, 48, kind))

    assert drawn[0].shape == (4, 3, 48, 48)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2]) == (kind == "none")
    assert torch.equal(drawn[0][0], drawn[0][1]) == (kind == "none")
    assert drawn[0].min() >= 0
    assert drawn[0].max() <= 255


def test_images_are_resized_as_the_exported_graph_does_it() -> None:
    architecture = replace(SMALL, side=48)
    image = EXAMPLES.images[0]

    graph = architecture.graph(torch.nn.Identity())(torch.from_numpy(image)[None])

    np.testing.assert_allclose(graph, (resized([image], 48) - 127) / 64, atol=1e-5)


@pytest.mark.parametrize("name", ["efficientnet-lite0"])
def test_trained_weights_are_read_back_as_they_are(name: str, tmp_path: Path) -> None:
    architecture = ARCHITECTURES[name]
    assert isinstance(architecture, ImageArchitecture)
    made = architecture.read(None)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.5)
    path = tmp_path / "weights.safetensors"
    save_file({name: tensor.numpy() for name, tensor in architecture.weights_of(made).items()}, path)

    again = architecture.read(path)

    assert all(torch.equal(one, other) for one, other in zip(made.parameters(), again.parameters(), strict=True))
    stages = [name for name, _ in made.named_parameters() if name.startswith(architecture.last_stage)]
    assert {prefix for prefix in architecture.last_stage if any(one.startswith(prefix) for one in stages)} == set(
        architecture.last_stage
    )


LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=120).map(lambda drawn: np.array(drawn, np.int64))


@hypothesis_settings(max_examples=50, deadline=None)
@given(labels=LABELS, share=st.floats(0.05, 0.85), seed=st.integers(0, 99))
def test_a_split_keeps_some_of_each_class_on_both_sides(labels: NDArray[np.int64], share: float, seed: int) -> None:
    is_aside = split(labels, share, seed)

    assert np.array_equal(is_aside, split(labels, share, seed))
    for label in np.unique(labels):
        aside, count = is_aside[labels == label].sum(), (labels == label).sum()
        assert aside < count
        assert aside > 0 or count == 1


@hypothesis_settings(max_examples=50, deadline=None)
@given(labels=LABELS, seed=st.integers(0, 99))
def test_what_the_encoder_was_trained_on_is_never_held_out(labels: NDArray[np.int64], seed: int) -> None:
    familiar = np.random.default_rng(seed).random(len(labels)) < 0.3

    fold, folds = assign_folds(labels, np.random.default_rng(seed), familiar)

    assert (fold[familiar] == -1).all()
    assert folds == 0 or set(fold[fold >= 0]) == set(range(folds))


def test_equal_plans_have_one_name_and_any_option_changes_it() -> None:
    one = planned()

    assert Plan.from_json(json.loads(json.dumps(one.as_json()))) == one
    assert replace(one, weights="/elsewhere").digest == one.digest
    others = [planned(epochs=4), planned(pixels=64), replace(one, seed=1), replace(one, parent="q")]
    assert len({one.digest, *(other.digest for other in others)}) == 5
