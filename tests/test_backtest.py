"""Strategies replayed on labels that exist: right sums, the same curves after a stop, and advice that follows."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from backend.backtest import manual
from backend.backtest.analysis import area, interval, judge, labels_to, recommend
from backend.backtest.bench import Bench
from backend.backtest.campaign import Campaign, accuracies, run, schedule
from backend.backtest.comparison import Question, compare
from backend.backtest.halving import foretold, halve
from backend.backtest.replay import Arm, _fit, _predict, replay
from backend.errors import BacktestMismatch, BenchUnusable, UnknownSource
from backend.learning.neighbour_heads import NeighbourHead
from strategies.agent import Agent
from tests.services.images import CACHE

STEPS = (20, 40, 60)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Handwritten digits, their pixels as embeddings: 500 to choose from, 400 to test."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    pool, test = order[:500], order[500:900]
    folder = tmp_path_factory.mktemp("bench")
    return Bench.write(folder, [str(n) for n in range(10)], (x[pool], y[pool]), (x[test], y[test]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 1_000), min_size=2, max_size=9, unique=True), st.integers(0, 9))
def test_the_area_is_the_integral_over_the_labels_spent(counts: list[int], seed: int) -> None:
    labels = sorted(counts)
    curves = np.random.default_rng(seed).random((3, len(labels)))

    found = area(labels, curves)

    fine = np.linspace(labels[0], labels[-1], 20_001)
    expected = [np.interp(fine, labels, curve).mean() for curve in curves]
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_labels_to_a_target_lie_on_the_line_between_two_looks() -> None:
    curve = np.array([0.5, 0.6, 0.8])

    assert labels_to((10, 20, 40), curve, 0.7) == pytest.approx(30)
    assert labels_to((10, 20, 40), curve, 0.5) == 10
    assert labels_to((10, 20, 40), curve, 0.9) is None


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)

    hits = [low <= 0.3 <= high for low, high in (interval(random.normal(0.3, 1, 30)) for _ in range(200))]

    assert 0.88 < np.mean(hits) < 0.99


def test_the_advice_names_what_is_better_alike_and_worse() -> None:
    random = np.random.default_rng(0)
    base = np.array([0.5, 0.6, 0.7]) + random.normal(0, 0.02, (10, 1))
    noise = random.normal(0, 0.002, (10, 3))
    curves = {"random": base, "good": base + 0.05 + noise, "twin": base + 0.0499 - noise, "bad": base - 0.05}
    seconds = {name: np.ones(3) for name in curves}

    verdicts = judge(STEPS, curves, seconds, "random")

    advice = recommend(verdicts, "random", 60)
    assert verdicts[-1].name == "bad"
    assert advice.startswith(("Use good:", "Use twin:"))
    assert "Not told apart" in advice
    assert "Worse than random: bad." in advice
    only = judge(STEPS, {"random": base, "bad": base - 0.05}, seconds, "random")
    assert recommend(only, "random", 60).startswith("Nothing here is better than random")


def test_a_replay_spends_exactly_its_labels_and_learns(bench: Bench) -> None:
    seen: list[int] = []

    curve = replay(bench, Arm("margin"), seed=1, schedule=STEPS, progress=seen.append)

    assert seen == list(curve.labels) == list(STEPS)
    assert curve.chosen == ("random", "margin", "margin")
    assert curve.accuracy[-1] > curve.accuracy[0] > 0.3


def test_a_replayed_head_that_asks_neighbours_says_what_a_round_would_have_said(tmp_path: Path) -> None:
    x, y = load_digits(return_X_y=True)
    x = x + np.random.default_rng(0).normal(0, 4, x.shape)
    bench = Bench.write(tmp_path, [str(n) for n in range(10)], (x[:1_200], y[:1_200]), (x[1_200:], y[1_200:]))

    fit = _fit(bench, Arm("random"), np.arange(400), seed=0)

    assert fit is not None
    assert isinstance(fit.head, NeighbourHead)
    assert (_predict(fit.head, bench, "pool") == fit.head.predict(bench.pool)).all()
    assert (_predict(fit.head, bench, "test") == fit.head.predict(bench.test)).all()


def test_the_random_arms_labels_are_a_uniform_draw_of_the_seed(bench: Bench) -> None:
    one, again, other = (replay(bench, Arm("random", head="logistic"), seed, STEPS) for seed in (1, 1, 2))

    assert one.accuracy == again.accuracy
    assert one.accuracy != other.accuracy


@pytest.mark.parametrize("way", manual.WAYS)
def test_what_people_do_without_a_strategy_is_one_order_cut_where_the_labels_end(bench: Bench, way: str) -> None:
    order = manual.order(bench, way, 3, 60)

    of_class = bench.labels[order]
    assert len(np.unique(order)) == 60
    assert (manual.order(bench, way, 3, 25) == order[:25]).all()
    expected = {
        "by_folder": (np.diff(of_class) >= 0).all() and (np.diff(order)[np.diff(of_class) == 0] > 0).all(),
        "by_turns": (np.bincount(of_class, minlength=10) == 6).all() and (of_class[:10] == np.arange(10)).all(),
        "by_time": (order == np.arange(60)).all(),
        "by_example": (np.sort(of_class[:10]) == np.arange(10)).all(),
    }
    assert expected[way]


def test_the_like_of_the_examples_lies_nearer_to_them_than_the_rest(bench: Bench) -> None:
    order = manual.order(bench, "by_example", 0, 110)

    unit = bench.pool / np.linalg.norm(bench.pool.astype(np.float32), axis=1, keepdims=True)
    nearest = (unit @ unit[order[:10]].T).max(axis=1)
    rest = np.setdiff1d(np.arange(500), order)
    assert nearest[order[10:]].mean() > nearest[rest].mean() + 0.03


def test_a_way_by_hand_is_an_arm_like_any_other(bench: Bench) -> None:
    curve = replay(bench, Arm("by_time", head="logistic"), seed=0, schedule=STEPS)

    assert curve.chosen == ("by_time",) * 3
    assert curve.accuracy[-1] > 0.6


@pytest.mark.parametrize("strategy", ["cal", "bald"])
def test_strategies_ask_a_head_with_a_hidden_layer_as_they_ask_a_linear_one(bench: Bench, strategy: str) -> None:
    curve = replay(bench, Arm(strategy, head="mlp"), seed=2, schedule=STEPS[:2])

    assert curve.chosen == ("random", strategy)
    assert curve.accuracy[-1] > 0.5


def test_where_plausible_heads_come_from_is_part_of_an_arm(bench: Bench, tmp_path: Path) -> None:
    arms = [Arm("bald", head="logistic", samples=source) for source in ("bootstrap", "dropout", "laplace")]

    curves = [replay(bench, arm, seed=2, schedule=STEPS) for arm in arms]

    assert len({curve.accuracy for curve in curves}) == 3
    assert min(curve.accuracy[-1] for curve in curves) > 0.6
    with pytest.raises(UnknownSource, match="bootstrap, dropout, laplace, and not from 'tea'"):
        compare("nowhere", Question(("bald:tea",)), tmp_path, 1, print, lambda *_: None)


def test_a_backtest_that_was_killed_goes_on_and_ends_the_same(bench: Bench, tmp_path: Path) -> None:
    """SIGKILL of the whole process group after the first replay; then the same campaign to its end."""
    program = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from backend.backtest.bench import Bench\nfrom backend.backtest.campaign import Campaign, run\n"
        "from backend.backtest.replay import Arm\n"
        "def kill(done, total, what):\n"
        "    if done:\n"
        "        os.killpg(0, signal.SIGKILL)\n"
        "if __name__ == '__main__':\n"
        "    campaign = Campaign((Arm('random'), Arm('margin')), 2, (20, 40))\n"
        "    run(Bench(Path(sys.argv[1])), campaign, Path(sys.argv[2]), 1, kill)\n"
    )
    script = tmp_path / "campaign.py"
    script.write_text(program)
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, str(script), str(bench.folder), str(tmp_path / "out")]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    runs = tmp_path / "out" / "runs"
    assert process.wait(120) == -signal.SIGKILL
    before = {path.name: path.read_bytes() for path in runs.glob("*.json")}
    campaign = Campaign((Arm("random"), Arm("margin")), 2, (20, 40))

    resumed = run(bench, campaign, tmp_path / "out", jobs=2)

    whole = run(bench, campaign, tmp_path / "other", jobs=2)
    assert 1 <= len(before) < 4
    assert all((runs / name).read_bytes() == data for name, data in before.items())
    for name in whole:
        np.testing.assert_array_equal(accuracies(resumed[name]), accuracies(whole[name]))
    with pytest.raises(BacktestMismatch, match="--out"):
        run(bench, Campaign(campaign.arms, 2, (20, 60)), tmp_path / "out", jobs=1)


def test_the_agent_drops_what_cannot_win_and_keeps_the_baseline(bench: Bench, tmp_path: Path) -> None:
    arms = (Arm("random"), Arm("typiclust"), Arm("max_herding"), Arm("sub_sample", {"size": 21, "of": "entropy"}))
    campaign = Campaign(arms, 4, (20, 40, 60, 80))

    halved = halve(bench, campaign, Agent(80), ("random",), tmp_path, 2, lambda _done, _total, _last: None)

    assert "random" in halved.curves
    assert all(name not in decision.dropped for decision in halved.decisions for name in ("random",))
    assert len(halved.decisions) <= 3
    assert halved.decisions[-1].stop
    assert all("lies below" in line or line.startswith("It stops") for line in halved.lines())


def test_what_the_agent_would_have_done_is_told_from_whole_curves_looking_at_no_later_step() -> None:
    rise = 1 - np.array([40, 35, 31, 28, 26, 24, 23, 22]) / 100
    noise = np.random.default_rng(0).normal(0, 0.003, (6, 8))
    curves = {"good": rise + noise, "twin": rise - noise, "bad": rise - 0.2 + noise, "late": rise - 0.1 - noise}
    steps = tuple(range(20, 180, 20))
    curves["late"][:, 4:] += 0.3  # by then it is gone

    decisions = foretold(steps, curves, Agent(160))

    assert [set(decision.kept) for decision in decisions[-2:]] == [{"good", "twin"}] * 2
    assert set(decisions[0].dropped) == {"bad", "late"}
    assert decisions[-1].best in ("good", "twin")


def test_too_few_labels_are_told_before_the_work(tmp_path: Path) -> None:
    x = np.zeros((30, 4))

    with pytest.raises(BenchUnusable, match="in 1 classes"):
        Bench.write(tmp_path, ["a", "b"], (x, np.zeros(30, int)), (x, np.zeros(30, int)))


def test_the_schedule_ends_at_the_labels_or_the_pool() -> None:
    assert schedule(1_000, 120, 50) == (50, 100, 120)
    assert schedule(80, 500, 50) == (50, 80)
    assert schedule(30, 500, 50) == (30,)


def command(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"NEXTBATCH_HOME": str(home), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "backend.cli", "backtest", *arguments],
        capture_output=True, text=True, timeout=280, env=environment, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as PNG files: 16 a class."""
    from backend.pool.folders import digits

    root = tmp_path_factory.mktemp("folders")
    dataset = digits(CACHE)
    taken = dict.fromkeys(range(10), 0)
    for path, label in zip(dataset.train.paths, dataset.train.labels, strict=True):
        if taken[label] < 16:
            taken[label] += 1
            (root / dataset.classes[label]).mkdir(exist_ok=True)
            (root / dataset.classes[label] / path.name).write_bytes(path.read_bytes())
    return root


def test_the_command_answers_for_class_folders_and_for_an_export(folders: Path, tmp_path: Path) -> None:
    spend = ("--seeds", "2", "--labels", "40", "--batch", "20", "--strategies", "margin", "--jobs", "2")
    tasks = [
        {
            "id": number,
            "data": {"image": f"/data/local-files/?d={path.relative_to(folders)}"},
            "annotations": [
                {
                    "was_cancelled": False,
                    "result": [{"type": "choices", "to_name": "image", "value": {"choices": [path.parent.name]}}],
                }
            ],
        }
        for number, path in enumerate(sorted(folders.glob("*/*.png")))
    ]
    export = tmp_path / "export.json"
    export.write_text(json.dumps(tasks))
    os.environ["NEXTBATCH_DATA_ROOT"] = str(folders)

    try:
        of_folders = command(tmp_path, str(folders), "--out", str(tmp_path / "one"), *spend)
        of_export = command(tmp_path, str(export), "--out", str(tmp_path / "two"), *spend)
    finally:
        del os.environ["NEXTBATCH_DATA_ROOT"]

    assert of_folders.returncode == 0, of_folders.stderr
    assert of_export.returncode == 0, of_export.stderr
    one, two = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two"))
    assert (one["pool"], one["test"]) == (two["pool"], two["test"]) == (112, 48)
    assert one["advice"] in of_folders.stdout
    assert {arm["name"] for arm in one["arms"]} == {"random", "margin"}
    assert (tmp_path / "one" / "curves.png").stat().st_size > 10_000
    wrong = command(tmp_path, str(folders), "--strategies", "margn")
    assert wrong.returncode == 1
    assert "margin" in wrong.stderr
    assert "Traceback" not in wrong.stderr
