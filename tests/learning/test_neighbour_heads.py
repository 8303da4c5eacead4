"""A head that asks an item's neighbours: its arithmetic, its file, and when cross-validation keeps it."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from backend.errors import HeadUnreadable
from backend.learning import committee
from backend.learning.anchors import NEIGHBOURS
from backend.learning.candidates import Unlabelled
from backend.learning.heads import Head
from backend.learning.loans import load_loan, save_loan
from backend.learning.neighbour_heads import NeighbourHead
from backend.learning.neighbours import build
from backend.learning.training import FitReport, fit

CLASSES = tuple("0123456789")
POOL, LABELLED = 1_200, 400


class Noisy:
    """Digits under noise, which neighbours do not share: the first rows are labelled, those after the pool test."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        x, y = load_digits(return_X_y=True)
        order = random.permutation(len(x))
        self.x = (x[order] + random.normal(0, 4, x.shape)).astype(np.float32)
        self.y = y[order].astype(np.int64)
        self.keys = np.array([f"{row:05d}".encode() for row in range(POOL)])

    def read(self, keys: NDArray[np.bytes_]) -> NDArray[np.float32]:
        return self.x[keys.astype(np.int64)]

    def lend(self, *, is_whole: bool = True) -> Unlabelled:
        graph = build(self.keys, self.read)
        return Unlabelled.draw(graph, self.keys[:LABELLED], self.read, seed=0, is_whole=is_whole)

    def fit(self, lent: Unlabelled | None) -> FitReport:
        return fit(self.x[:LABELLED], self.y[:LABELLED], CLASSES, lent, seed=0)

    def accuracy(self, head: Head) -> float:
        return float((head.predict(self.x[POOL:]).argmax(axis=1) == self.y[POOL:]).mean())


@pytest.fixture(scope="module")
def noisy() -> Noisy:
    return Noisy()


@pytest.fixture(scope="module")
def asking(noisy: Noisy) -> FitReport:
    found = noisy.fit(noisy.lend())
    assert isinstance(found.head, NeighbourHead)
    return found


def test_it_says_the_mean_of_its_own_and_of_its_neighbours(noisy: Noisy, asking: FitReport) -> None:
    head = asking.head
    assert isinstance(head, NeighbourHead)
    points = head.codes / np.linalg.norm(head.codes.astype(np.float32), axis=1, keepdims=True)
    near = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine", algorithm="brute").fit(points)
    asked = noisy.x[POOL : POOL + 40]

    own = head.own.predict(asked)
    others = head.opinions[near.kneighbors(asked @ head.projection + head.offset, return_distance=False)].mean(axis=1)
    mixed = ((own + others) / 2) ** (1 / head.sharpness)

    said = head.predict(asked)
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-5)
    is_alike = np.isclose(said, mixed / mixed.sum(axis=1, keepdims=True), atol=2e-3).all(axis=1)
    assert is_alike.mean() > 0.9  # of the others a neighbour lay outside of the cells that were looked into
    np.testing.assert_allclose(head.predict(noisy.x[POOL:])[:40], said, atol=2e-3)
    np.testing.assert_allclose(np.exp(head.logits(asked)), said, rtol=1e-4)
    assert type(head.own) is Head


def test_where_the_neighbours_are_known_the_answer_is_the_same(noisy: Noisy, asking: FitReport) -> None:
    head, asked = asking.head, noisy.x[POOL:]
    assert isinstance(head, NeighbourHead)
    near = noisy.lend().graph.cells[0].neighbours(asked)

    assert (head.answer(asked, near) == head.predict(asked)).all()
    assert (head.answer(asked, near[::-1]) != head.predict(asked)).any()


def test_where_neighbours_know_more_they_are_asked_and_it_pays() -> None:
    gained = []
    for seed in range(3):
        noisy = Noisy(seed)
        asking, alone = noisy.fit(noisy.lend()), noisy.fit(noisy.lend(is_whole=False))
        heard = [one.log_loss for one in asking.candidates if one.method == "neighbours"]
        assert (asking.neighbours, alone.neighbours) == (POOL, 0)
        assert {one.method for one in alone.candidates} == {"logistic", "propagation"}
        assert min(heard) < min(one.log_loss for one in alone.candidates)
        gained.append(noisy.accuracy(asking.head) - noisy.accuracy(alone.head))

    assert np.mean(gained) > 0.005


def test_labels_held_out_do_not_reach_their_own_verdict() -> None:
    """Random labels, each with 15 near copies in the pool: a head that had seen a label would say it of those."""
    noisy, random = Noisy(), np.random.default_rng(2)
    copies = np.repeat(noisy.x[:60], 15, axis=0)
    noisy.x[60:960] = copies + random.normal(0, 0.01, copies.shape)
    noisy.keys = noisy.keys[:960]
    labels = random.integers(0, 4, 60)
    lent = Unlabelled.draw(build(noisy.keys, noisy.read), noisy.keys[:60], noisy.read, seed=0)

    found = fit(noisy.x[:60], labels, CLASSES[:4], lent, seed=0)

    assert "neighbours" in {one.method for one in found.candidates}
    assert all(one.accuracy < 0.5 for one in found.candidates)
    assert found.out_of_fold is not None
    assert (found.out_of_fold.probabilities.argmax(axis=1) == labels[found.out_of_fold.rows]).mean() < 0.5


def test_its_file_brings_it_back_and_a_changed_one_is_refused(asking: FitReport, tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    asking.head.save(path)

    back = Head.load(path, asking.head.digest)

    assert isinstance(back, NeighbourHead)
    x = np.random.default_rng(0).normal(size=(70, 64)).astype(np.float32)
    np.testing.assert_array_equal(back.predict(x), asking.head.predict(x))
    assert back.parameters == asking.head.own.parameters + 1
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in (*NeighbourHead.arrays, "temperature")}
    for name, value in (("starts", tensors["starts"][::-1]), ("opinions", tensors["opinions"] + 2)):
        save_file({**tensors, name: np.ascontiguousarray(value)}, path, metadata)
        with pytest.raises(HeadUnreadable):
            Head.load(path)
    save_file({**tensors, "codes": tensors["codes"].astype(np.float32)}, path, metadata)
    with pytest.raises(HeadUnreadable, match="codes"):
        Head.load(path)


def test_with_its_loan_it_is_made_again_bit_for_bit(noisy: Noisy, asking: FitReport, tmp_path: Path) -> None:
    name = save_loan(noisy.lend(), tmp_path)

    lent = load_loan(tmp_path / f"{name}.safetensors", noisy.keys[:LABELLED], noisy.read)

    assert noisy.fit(lent).head.digest == asking.head.digest
    without = save_loan(noisy.lend(is_whole=False), tmp_path)
    assert without != name
    assert load_loan(tmp_path / f"{without}.safetensors", noisy.keys[:LABELLED], noisy.read).neighbourhood is None


def test_a_committee_does_not_repeat_the_neighbours(noisy: Noisy, asking: FitReport) -> None:
    known, labels = noisy.x[:LABELLED], noisy.y[:LABELLED]

    for source in ("bootstrap", "dropout", "laplace"):
        members = committee.plausible(source, asking.head, known, labels, asking.penalty, 3)
        assert {type(member) for member in members} == {Head}
    held_out = committee.held_out(asking.head, known, labels, asking.penalty)
    plain = committee.held_out(asking.head.own, known, labels, asking.penalty)
    np.testing.assert_array_equal(held_out, plain)


def test_a_row_with_a_nan_gives_nan_and_leaves_the_others_alone(noisy: Noisy, asking: FitReport) -> None:
    rows = noisy.x[POOL : POOL + 3].copy()
    rows[1, 0] = np.nan

    said = asking.head.predict(rows)

    assert np.isnan(said[1]).all()
    np.testing.assert_array_equal(said[[0, 2]], asking.head.predict(noisy.x[POOL : POOL + 3])[[0, 2]])
