"""The rows of a batch: what each pick is shown beside."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from backend.pool.catalog import Labelled
from backend.rounds.batch import nearest_known
from backend.rounds.encoding import Embeddings
from backend.scoring.vectors import VectorStore

DIMS = 9


def test_each_pick_is_shown_beside_the_labelled_item_of_the_highest_cosine_but_not_itself(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    known = [Labelled(100 + n, f"{n:064x}", "cat", is_holdout=False, annotations={}) for n in range(40)]
    vectors = (random.normal(size=(40, DIMS)) + 3).astype(np.float16)
    store = VectorStore(tmp_path, "e" * 64, DIMS)
    store.put([row.content_hash for row in known], vectors)
    embeddings = Embeddings(SimpleNamespace(digest="e" * 64, dims=DIMS), store)  # type: ignore[arg-type]
    asked = [1, 2, 3, known[7].item_id]
    rows = np.concatenate([random.normal(size=(3, DIMS)) + 3, vectors[7:8]]).astype(np.float32)
    centred, others = rows - vectors.mean(axis=0), vectors - vectors.mean(axis=0, dtype=np.float32)
    cosines = (centred @ others.T) / np.linalg.norm(centred, axis=1)[:, None] / np.linalg.norm(others, axis=1)
    cosines[3, 7] = -1

    found = nearest_known(embeddings, known, asked, rows)

    assert found == {item: known[at].item_id for item, at in zip(asked, cosines.argmax(axis=1), strict=True)}
    assert nearest_known(embeddings, [], asked, rows) == {}
    assert nearest_known(embeddings, known[:1], asked, rows) == dict.fromkeys(asked, 100)
    store.close()
