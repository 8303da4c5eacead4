"""Numbers that belong to (seed, item id)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as draw
from scipy.stats import kstest

from strategies.randomness import id_hash, keys, sample, splitmix64, uniforms


def test_splitmix64_is_the_published_sequence() -> None:
    golden = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * golden) % 2**64 for i in range(3)], dtype=np.uint64)

    # the first outputs for the seed 1234567, as Rosetta Code lists them
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(
    draw.lists(draw.text(draw.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8), min_size=1)
)
def test_the_width_and_byte_order_of_an_array_of_ids_do_not_matter(texts: list[str]) -> None:
    ids = np.array(texts, dtype=np.str_)

    wide, swapped = ids.astype("U50"), ids.astype(ids.dtype.newbyteorder())

    assert id_hash(ids).tolist() == id_hash(wide).tolist() == id_hash(swapped).tolist()
    assert id_hash(ids).tolist() == [int(id_hash(ids[row : row + 1])[0]) for row in range(len(ids))]


@pytest.mark.parametrize("kind", ["numbers", "text"])
def test_many_ids_do_not_collide(kind: str) -> None:
    numbers = np.arange(-150_000, 150_000)
    ids = numbers if kind == "numbers" else np.array([f"s3://bucket/{i:x}.jpg" for i in numbers])

    assert len(np.unique(id_hash(ids))) == len(ids)


@pytest.mark.parametrize("seed", [0, 1, -1, 2**64 - 1])
def test_numbers_are_uniform_over_ids_and_over_seeds(seed: int) -> None:
    over_ids = uniforms(np.arange(20_000), seed)
    over_seeds = np.array([uniforms(np.array(["one"]), seed + i)[0] for i in range(5_000)])

    assert kstest(over_ids, "uniform").pvalue > 1e-4
    assert kstest(over_seeds, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(over_ids[1:], over_ids[:-1])[0, 1]) < 0.03


def test_a_sample_is_the_same_whatever_the_order_of_the_pool() -> None:
    ids = np.arange(1000)
    order = np.random.default_rng(0).permutation(1000)

    drawn = set(ids[sample(ids, 3, 50)].tolist())

    assert set(ids[order][sample(ids[order], 3, 50)].tolist()) == drawn
    assert len(drawn) == 50
    assert sample(ids, 3, 5000).tolist() == list(range(1000))
    assert set(np.argsort(keys(ids, 3))[:50].tolist()) == drawn
