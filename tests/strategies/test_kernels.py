"""The shared arithmetic, each piece against the plain way of writing it."""

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import cdist

import strategies
from strategies import kernels
from strategies.kernels import blocks, covering, herding
from strategies.kernels.clustering import nearest
from strategies.kernels.herding import rbf


@pytest.fixture(params=[64 << 20, 2000], ids=["one block", "many blocks"])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", request.param)


def unit(points: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.from_numpy(points.astype(np.float32)))


@pytest.mark.parametrize(("rows", "row_bytes"), [(0, 8), (1, 10**12), (1000, 65536), (1000, 0)])
def test_blocks_cover_every_row_once_and_stay_small(rows: int, row_bytes: int) -> None:
    cut = list(blocks.blocks(rows, row_bytes))

    assert [row for part in cut for row in range(part.start, part.stop)] == list(range(rows))
    assert all(
        (part.stop - part.start) * row_bytes <= blocks.BLOCK_BYTES or part.stop - part.start == 1 for part in cut
    )


@pytest.mark.usefixtures("block_bytes")
class TestPointwise:
    @pytest.mark.parametrize("classes", [1, 2, 3, 200])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_top2_are_the_two_largest(self, classes: int, dtype: type) -> None:
        probabilities = np.random.default_rng(0).dirichlet(np.ones(classes), 500).astype(dtype)

        first, second = kernels.top2(probabilities)

        ordered = np.sort(probabilities.astype(np.float32), axis=1)
        assert first.tolist() == ordered[:, -1].tolist()
        assert second.tolist() == (ordered[:, -2].tolist() if classes > 1 else [0] * 500)

    def test_entropy_is_zero_when_certain_and_greatest_when_uniform(self) -> None:
        assert kernels.entropy(np.eye(4, dtype=np.float32)).tolist() == [0] * 4
        assert kernels.entropy(np.full((1, 4), 0.25, dtype=np.float32)) == pytest.approx(np.log(4))


@pytest.mark.usefixtures("block_bytes")
class TestProjection:
    def test_it_keeps_the_directions_of_largest_variance(self) -> None:
        rng = np.random.default_rng(0)
        hidden = rng.normal(size=(2000, 5)) * [9, 7, 5, 4, 3]
        points = hidden @ np.linalg.qr(rng.normal(size=(30, 5)))[0].T + rng.normal(size=(2000, 30)) * 0.01 + 4

        projected = kernels.fit_projection(points.astype(np.float32), 5)(points.astype(np.float32)).numpy()

        plain = hidden - hidden.mean(axis=0)
        plain /= np.linalg.norm(plain, axis=1, keepdims=True)
        assert np.abs(projected @ projected.T - plain @ plain.T).max() < 0.05

    def test_with_dimensions_to_spare_it_only_centres_and_scales(self) -> None:
        points = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float16)

        projected = kernels.fit_projection(points, 8)(points).numpy()

        plain = points.astype(float) - points.astype(float).mean(axis=0)
        assert np.allclose(projected, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-5)

    def test_the_mean_itself_becomes_zero(self) -> None:
        points = np.ones((4, 3), dtype=np.float32)

        assert not kernels.fit_projection(points, 2)(points).any()

    def test_distinct_keeps_the_first_of_everything_alike(self) -> None:
        points = unit(np.random.default_rng(0).normal(size=(400, 3)))

        kept = kernels.distinct(points, 0.9, 1000).tolist()

        plain: list[int] = []
        for row in range(400):
            if all(float(points[row] @ points[other]) < 0.9 for other in plain):
                plain.append(row)
        assert kept == plain
        assert kernels.distinct(points, 0.9, 5).tolist() == plain[:5]


@pytest.mark.usefixtures("block_bytes")
class TestClustering:
    def test_nearest_is_the_nearest(self) -> None:
        rng = np.random.default_rng(0)
        points, centres = rng.normal(size=(300, 6)), rng.normal(size=(9, 6))

        index, squared = nearest(torch.from_numpy(points).float(), torch.from_numpy(centres).float())

        apart = cdist(points, centres, "sqeuclidean")
        assert index.tolist() == apart.argmin(axis=1).tolist()
        assert np.allclose(squared.numpy(), apart.min(axis=1), atol=1e-4)

    def test_kmeans_finds_blobs(self) -> None:
        rng = np.random.default_rng(0)
        owner = np.arange(600) % 6
        points = torch.from_numpy((np.eye(6)[owner] * 30 + rng.normal(size=(600, 6))).astype(np.float32))

        found, centres = kernels.kmeans(points, 6, seed=1)

        assert len({(int(f), int(o)) for f, o in zip(found, owner, strict=True)}) == 6
        assert np.allclose(centres[found[0]].numpy(), points[owner == 0].mean(dim=0), atol=1e-4)

    def test_kmeans_ends_where_no_point_wants_to_move(self) -> None:
        points = torch.from_numpy(np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32))

        found, centres = kernels.kmeans(points, 12, seed=3, iterations=200)

        assert torch.equal(found, nearest(points, centres)[0])
        means = torch.stack([points[found == c].mean(dim=0) for c in range(12)])
        assert torch.allclose(means, centres, atol=1e-4)

    @pytest.mark.parametrize("clusters", [1, 5, 20])
    def test_kmeans_copes_with_fewer_points_than_it_seems(self, clusters: int) -> None:
        points = torch.ones((20, 3)) * (torch.arange(20) % 3)[:, None]

        found, _ = kernels.kmeans(points, clusters, seed=0)

        alike = [len({int(f) for f in found[group::3]}) for group in range(3)]
        assert len(found) == 20
        assert alike == [1, 1, 1]

    @pytest.mark.parametrize("neighbours", [1, 5, 100])
    def test_typicality_is_one_over_the_mean_distance_to_the_nearest(self, neighbours: int) -> None:
        points = np.random.default_rng(0).normal(size=(80, 7)).astype(np.float32)

        typical = kernels.typicality(torch.from_numpy(points), neighbours)

        apart = np.sort(cdist(points, points), axis=1)[:, 1 : neighbours + 1]
        assert np.allclose(typical, 1 / apart.mean(axis=1), rtol=1e-5)

    def test_typicality_of_the_lone_and_the_double(self) -> None:
        assert kernels.typicality(torch.ones((1, 4)), 5).tolist() == [0]
        assert kernels.typicality(torch.rand(1, 4).repeat(3, 1), 5).tolist() == [1e6] * 3


@pytest.mark.usefixtures("block_bytes")
class TestCoverage:
    def test_rbf_is_its_formula(self) -> None:
        rng = np.random.default_rng(0)
        one, other = rng.normal(size=(40, 5)), rng.normal(size=(30, 5))

        value = rbf(torch.from_numpy(one), torch.from_numpy(other), 1.7).numpy()

        assert np.allclose(value, np.exp(-cdist(one, other, "sqeuclidean") / 1.7**2), atol=1e-6)

    def test_herding_looks_only_at_targets_that_a_pick_covers_better(self, monkeypatch: pytest.MonkeyPatch) -> None:
        looked_at: list[int] = []
        plain = herding._added

        def counted(kernel: torch.Tensor, targets: torch.Tensor, *covered: torch.Tensor) -> torch.Tensor:
            looked_at.append(len(targets))
            return plain(kernel, targets, *covered)

        monkeypatch.setattr(herding, "_added", counted)
        rng = np.random.default_rng(0)
        points = unit(np.eye(40)[rng.integers(0, 40, 2000)] * 4 + rng.normal(size=(2000, 40)))

        kernels.max_herding(points, points, points[:0], 100, 1.0)

        assert sum(looked_at) < 100 * 2000 / 10

    @pytest.mark.parametrize("width", [0.05, 0.5])
    def test_herding_goes_by_row_once_nothing_is_left_to_gain(self, width: float) -> None:
        points = unit(np.random.default_rng(0).normal(size=(40, 3)))

        rows, gains = kernels.max_herding(points.repeat(3, 1), points, points[:0], 120, width)

        assert sorted((rows[:40] % 40).tolist()) == list(range(40))
        assert (gains[:40] > 0).all()
        assert rows[40:].tolist() == sorted(set(range(120)) - set(rows[:40].tolist()))
        assert gains[40:].tolist() == [0] * 80

    def test_k_center_looks_at_every_row_rarely(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refreshes: list[int] = []
        plain = covering._State._refresh
        monkeypatch.setattr(covering._State, "_refresh", lambda self: (refreshes.append(1), plain(self))[1])
        points = np.random.default_rng(0).normal(size=(5000, 16)).astype(np.float32)

        kernels.k_center(points, points[:5], 200, shortlist=1000)

        assert len(refreshes) < 40


@pytest.mark.parametrize(("points", "clusters"), [(120, 12), (60, 1), (30, 29), (30, 30), (5, 9)])
def test_clusters_by_average_linkage_are_those_of_scipy(points: int, clusters: int) -> None:
    drawn = unit(np.random.default_rng(points).normal(size=(points, 6)))
    drawn[:4] = drawn[4]

    group = kernels.average_linkage(drawn, clusters)

    tree = linkage(drawn.double().numpy(), method="average")
    expected = cut_tree(tree, n_clusters=clusters)[:, 0] if clusters <= points else np.arange(points)
    assert group.tolist() == expected.tolist()


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_found_in_halves_as_in_floats(kind: type[np.floating], odd: float) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 7)).astype(kind)
    rows[3], rows[5] = 65504, -65504
    rows[8, 2], rows[39, 6] = odd, odd

    strategy = strategies.create("k_means_plus_plus")
    selection = strategies.run(strategy, strategies.Request(ids=np.arange(40), budget=40, embeddings=rows))

    assert set(range(40)) - set(selection.ids.tolist()) == {8, 39}
