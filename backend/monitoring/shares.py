"""Whether two draws have the same class shares: a test that chance and a size that matters must both fail."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from backend.questions import Question
from strategies import Task

RESAMPLES = 1_999
SIGNIFICANCE = 0.01
EFFECT = 0.1
WINDOW = 100
FEWEST = 20


@dataclass(frozen=True)
class ShareTest:
    """``p`` is the chance of so large a chi-square without a change; ``cramers_v`` the change's size in [0, 1].

    V is that of the table with both draws weighed alike, so it does not shrink when one is much larger.

    ``is_shifted`` when p <= 0.01 and V >= 0.1: 50/50 → 70/30 has V = 0.2, 50/50 → 55/45 has 0.05.
    """

    earlier: int
    recent: int
    chi_square: float
    p: float
    cramers_v: float
    is_shifted: bool


def compare_shares(earlier: Sequence[str], recent: Sequence[str], seed: int = 0) -> ShareTest:
    """Test the class shares of two independent draws. Either without labels: p = 1.

    The p value is Monte Carlo over 1,999 tables with the same margins, so it holds for rare classes too, where the
    chi-square distribution does not. O(resamples · classes).

    Hope, *A simplified Monte Carlo significance test procedure*, JRSS B 1968; Cramér, *Mathematical methods of
    statistics*, 1946.
    """
    n, m = len(earlier), len(recent)
    old, new = Counter(earlier), Counter(recent)
    totals = np.array([old[name] + new[name] for name in sorted(old.keys() | new.keys())], dtype=np.int64)
    if not n or not m or len(totals) < 2:
        return ShareTest(n, m, 0.0, 1.0, 0.0, False)
    expected = totals * (m / (n + m))

    found = np.array([new[name] for name in sorted(old.keys() | new.keys())], dtype=np.int64)
    statistic = float(_chi_square(found, expected, n, m))
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(totals, m, size=RESAMPLES, method="marginals")
    as_large = int((_chi_square(drawn, expected, n, m) >= statistic - 1e-9).sum())
    p = (1 + as_large) / (1 + RESAMPLES)
    one, other = found / m, (totals - found) / n
    v = float(np.sqrt(((one - other) ** 2 / (2 * (one + other))).sum()))
    return ShareTest(n, m, statistic, p, v, p <= SIGNIFICANCE and v >= EFFECT)


def compare_answers(earlier: Sequence[str], recent: Sequence[str], question: Question) -> ShareTest:
    """The same of labels that answer `question`: where they are sets, name by name, the one that moved most.

    Its p is Bonferroni's, at most 1; a shift that is significant by it, and as large as one of classes must be.
    """
    if question.task == Task.CLASSIFICATION:
        return compare_shares(earlier, recent)
    tests = [_of_name(earlier, recent, question, name) for name in question.choices]
    if not tests:
        return compare_shares((), ())
    least = min(tests, key=lambda test: (test.p, -test.cramers_v))
    p = min(1.0, least.p * len(tests))
    return replace(least, p=p, is_shifted=p <= SIGNIFICANCE and least.cramers_v >= EFFECT)


def _of_name(earlier: Sequence[str], recent: Sequence[str], question: Question, name: str) -> ShareTest:
    """Who has the name and who has not: Fisher's exact p, which correction leaves meaningful for many names."""
    old, new = ([str(name in question.names(label)) for label in side] for side in (earlier, recent))
    table = [[side.count(answer) for answer in ("True", "False")] for side in (old, new)]
    return replace(compare_shares(old, new), p=float(fisher_exact(table).pvalue))


def _chi_square(recent: NDArray[np.int64], expected: NDArray[np.floating[Any]], n: int, m: int) -> NDArray[np.float64]:
    """The statistic of 2 × K tables, (...,), from their row of `recent` counts, (..., K); the margins give the rest."""
    statistic: NDArray[np.float64] = ((recent - expected) ** 2 / expected).sum(axis=-1) * ((n + m) / n)
    return statistic


def recent_and_earlier(labels: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Labels in the order in which they were given, cut into (earlier, the newest 100 or half of them)."""
    recent = min(WINDOW, len(labels) // 2)
    return labels[: len(labels) - recent], labels[len(labels) - recent :]
