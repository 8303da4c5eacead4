"""A backtest reads texts as it reads images: class folders of .txt files, and exports whose tasks hold them."""

import json
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from backend.backtest.source import open_bench
from backend.learning.encoders import EncoderSpec
from backend.settings import EncoderSection
from backend.studio.labels import LabelTask, text_config
from tests.services.texts import TOPICS, written

TEXTS = [(f"{text}{more}", topic) for more in ("", " Yours sincerely") for text, topic in written()]


def test_class_folders_and_an_export_of_texts_make_a_bench(
    home: Path, encoders: Path, minilm: EncoderSpec, tmp_path: Path
) -> None:
    (home / "encoders").symlink_to(encoders)
    for place, (text, topic) in enumerate(TEXTS):
        path = tmp_path / "data" / ("test" if place % 3 == 0 else "train") / topic / f"{place:03}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "data" / "train" / "cooking" / "broken.txt").write_bytes(b"caf\xe9")
    task, told = LabelTask.parse(text_config(list(TOPICS))), []
    export = [{"data": {"text": text}, "annotations": [{"result": task.to_result(topic)}]} for text, topic in TEXTS]
    (tmp_path / "export.json").write_text(json.dumps(export))
    section = EncoderSection(precision="fp32")

    filed = open_bench(str(tmp_path / "data"), tmp_path / "filed", section, told.append)
    exported = open_bench(str(tmp_path / "export.json"), tmp_path / "exported", section, told.append)

    assert (len(filed.pool), len(filed.test), filed.pool.shape[1]) == (48, 24, minilm.dims)
    assert any("byte 3 is not UTF-8" in line for line in told)
    assert len(exported.pool) + len(exported.test) == len(TEXTS)
    learned = LogisticRegression().fit(np.asarray(filed.pool, np.float32), filed.labels)
    assert learned.score(np.asarray(filed.test, np.float32), filed.test_labels) > 0.9
