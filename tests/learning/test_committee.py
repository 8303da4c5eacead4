"""A committee doubts where the labels leave something open, and only there."""

import numpy as np

from backend.learning.committee import bootstrap, samples
from backend.learning.training import fit
from tests.learning.test_training import CLASSES, digits


def test_a_committee_agrees_near_its_labels_and_doubts_where_it_errs() -> None:
    x, y = digits()
    report = fit(x[:150], y[:150], CLASSES)

    heads = bootstrap(report.head, x[:150], y[:150], report.penalty, members=12)

    drawn = samples(heads, x)
    mean = drawn.mean(axis=0)
    spread = drawn.std(axis=0).max(axis=1)
    wrong = mean[150:].argmax(axis=1) != y[150:]
    assert drawn.shape == (12, len(x), 10)
    np.testing.assert_allclose(drawn.sum(axis=2), 1, atol=1e-4)
    assert abs((~wrong).mean() - (report.head.predict(x[150:]).argmax(axis=1) == y[150:]).mean()) < 0.05
    assert spread[150:][wrong].mean() > 1.5 * spread[150:][~wrong].mean()
    assert spread[:150].mean() < spread[150:].mean()


def test_the_seed_decides_and_a_class_without_a_label_stays_unlikely() -> None:
    x, y = digits()
    known = y < 4
    report = fit(x[known][:60], y[known][:60], CLASSES)

    one, same, other = (
        samples(bootstrap(report.head, x[known][:60], y[known][:60], report.penalty, 3, seed), x[:50])
        for seed in (1, 1, 2)
    )

    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    assert set(one.argmax(axis=2).ravel()) <= {0, 1, 2, 3}
