"""The loops that people write around modAL, ALiPy, libact, scikit-activeml and DeepAL; runs in their environment.

    python loops.py NAME THREADS BATCH_SIZE

Each does as its documentation does: the pool is an array that is fetched and decoded first, one image after the
other over one kept connection; the library asks the user's classifier for probabilities and picks. DeepAL's loader
reads images in a second process while the model runs. Asked with {"uris": [...], "budget": n, "rounds": r} it answers
with seconds: `fetch_s` once, `query_s` a round. A round's model is new, so every round asks it about the whole pool;
the time to train it is left out.
"""

import collections.abc
import io
import json
import os
import sys
import time
from typing import Any

ANSWER = "@answer "
CLASSES = 10


class Images:
    """Fetches and decodes: uint8 (32, 32, 3) by address."""

    def __init__(self) -> None:
        import requests

        self._session = requests.Session()

    def __call__(self, uri: str) -> Any:
        import numpy as np
        from PIL import Image

        answer = self._session.get(uri, timeout=60)
        answer.raise_for_status()
        return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))


class Classifier:
    """ResNet-18 of a fixed seed at 224 px in torch; what modAL's and the others' documentation wraps."""

    classes_ = tuple(range(CLASSES))

    def __init__(self, batch_size: int) -> None:
        import torch
        from torchvision import models

        torch.manual_seed(0)
        self._batch_size = batch_size
        self._network = models.resnet18(weights=None, num_classes=CLASSES).eval()
        self._mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        self._deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)

    def fit(self, *_arguments: Any, **_more: Any) -> "Classifier":
        return self

    train = fit

    def predict_proba(self, pool: Any) -> Any:
        """Probabilities (n, 10) float64 of images uint8 (n, 32, 32, 3), or the same as rows of 3072."""
        import numpy as np

        pool = pool.reshape(-1, 32, 32, 3)
        parts = [self.predict_batch(pool[at : at + self._batch_size]) for at in range(0, len(pool), self._batch_size)]
        return np.concatenate(parts).astype(np.float64)

    def predict(self, pool: Any) -> Any:
        return self.predict_proba(pool).argmax(axis=1)

    def predict_batch(self, images: Any) -> Any:
        import numpy as np
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255
            resized = torch.nn.functional.interpolate(pixels, (224, 224), mode="bilinear", align_corners=False)
            logits = self._network((resized - self._mean) / self._deviation)
            return torch.softmax(logits, dim=1).numpy()


def modal(model: Classifier, pool: Any, budget: int) -> Any:
    from modAL.models import ActiveLearner
    from modAL.uncertainty import uncertainty_sampling

    learner = ActiveLearner(estimator=model, query_strategy=uncertainty_sampling)
    return learner.query(pool, n_instances=budget)[0]


def alipy(model: Classifier, pool: Any, budget: int) -> Any:
    collections.Iterable = collections.abc.Iterable  # type: ignore[attr-defined]  # it was written for Python 3.9
    import numpy as np
    from alipy.query_strategy import QueryInstanceUncertainty

    query = QueryInstanceUncertainty(
        X=pool.reshape(len(pool), -1), y=np.arange(len(pool)) % CLASSES, measure="least_confident"
    )
    return query.select([], list(range(len(pool))), model=model, batch_size=budget)


def libact(model: Classifier, pool: Any, budget: int) -> Any:
    from libact.base.dataset import Dataset
    from libact.base.interfaces import ProbabilisticModel
    from libact.query_strategies import UncertaintySampling

    class Wrapped(ProbabilisticModel):  # type: ignore[misc]
        def train(self, *_arguments: Any) -> None: ...
        def predict(self, x: Any) -> Any:
            return model.predict(x)

        def score(self, *_arguments: Any) -> float:
            return 0.0

        def predict_real(self, x: Any) -> Any:
            return model.predict_proba(x)

        def predict_proba(self, x: Any) -> Any:
            return model.predict_proba(x)

    dataset = Dataset(pool, [None] * len(pool))
    strategy = UncertaintySampling(dataset, method="lc", model=Wrapped())
    scores = strategy.make_query(return_score=True)[1]  # it asks for one item: the scores give the batch
    return [id_ for id_, _ in sorted(scores, key=lambda pair: -pair[1])[:budget]]


def skactiveml(model: Classifier, pool: Any, budget: int) -> Any:
    import numpy as np
    from skactiveml.pool import UncertaintySampling, uncertainty_scores
    from skactiveml.utils import simple_batch

    # UncertaintySampling.query takes its own kind of classifier on rows of two dimensions; this is what it computes.
    scores = uncertainty_scores(model.predict_proba(pool), method="least_confident")
    assert UncertaintySampling is not None
    assert np.isfinite(scores).all()
    return simple_batch(scores, random_state=0, batch_size=budget)


def deepal(model: Classifier, uris: list[str], budget: int, batch_size: int) -> Any:
    """Its prediction loop over a torch DataLoader with one worker, and LeastConfidence's sort."""
    import torch

    class Pool(torch.utils.data.Dataset[Any]):
        def __init__(self) -> None:
            self._images: Images | None = None

        def __len__(self) -> int:
            return len(uris)

        def __getitem__(self, at: int) -> Any:
            if self._images is None:
                self._images = Images()
            return self._images(uris[at])

    loader = torch.utils.data.DataLoader(Pool(), batch_size=batch_size, num_workers=1, collate_fn=_stack)
    probabilities = torch.cat([torch.from_numpy(model.predict_batch(images)) for images in loader])
    return probabilities.max(dim=1)[0].sort()[1][:budget].tolist()


def _stack(images: Any) -> Any:
    import numpy as np

    return np.stack(images)


QUERIES: dict[str, Any] = {"modAL": modal, "ALiPy": alipy, "libact": libact, "scikit-activeml": skactiveml}


def main() -> None:
    name, threads, batch_size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is imported
    import numpy as np
    import torch

    library = torch.library.Library("torchvision", "DEF")  # as in alaas.py
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    model = Classifier(batch_size)
    model.predict_batch(np.zeros((batch_size, 32, 32, 3), np.uint8))
    if name != "DeepAL":
        QUERIES[name](model, np.zeros((4, 32, 32, 3), np.uint8), 2)  # imports
    print(f"{ANSWER}{{}}", flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        uris, budget = question["uris"], question["budget"]
        started = time.perf_counter()
        if name != "DeepAL":
            images = Images()
            pool = np.stack([images(uri) for uri in uris])
        fetched = time.perf_counter()
        rounds = []
        for _ in range(question["rounds"]):
            begun = time.perf_counter()
            picked = deepal(model, uris, budget, batch_size) if name == "DeepAL" else QUERIES[name](model, pool, budget)
            rounds.append(time.perf_counter() - begun)
        answer = {"fetch_s": fetched - started, "query_s": rounds, "picked": [int(at) for at in picked]}
        print(f"{ANSWER}{json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    main()
