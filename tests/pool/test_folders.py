"""Labelled folders: every layout that people have, and something real where there is none."""

import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from backend.errors import ArchiveUnsafe, DatasetUnreadable
from backend.pool import folders
from backend.pool.decode import decode
from backend.pool.folders import Dataset, LabelledFiles, digits, open_dataset, read_folder
from tests.services.images import CACHE


def put(root: Path, names: Iterable[str]) -> Path:
    """Files of no content; only their names matter to a listing."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def named(dataset: Dataset, part: LabelledFiles) -> list[tuple[str, str]]:
    pairs = zip(part.paths, part.labels, strict=True)
    return [(str(path.relative_to(dataset.root)), dataset.classes[label]) for path, label in pairs]


def pixels_and_labels(part: LabelledFiles) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    images = np.stack([decode(path.read_bytes(), 8)[..., 0] for path in part.paths])
    return images.reshape(len(part), -1).astype(float), np.array(part.labels)


def test_class_folders_are_all_training_data(tmp_path: Path) -> None:
    put(tmp_path, ["dog/2.JPG", "cat/b/1.png", "cat/a.webp", "dog/1.tiff"])

    dataset = read_folder(tmp_path)

    assert dataset.classes == ("cat", "dog")
    assert named(dataset, dataset.train) == [
        ("cat/a.webp", "cat"), ("cat/b/1.png", "cat"), ("dog/1.tiff", "dog"), ("dog/2.JPG", "dog"),
    ]  # fmt: skip
    assert len(dataset.test) == 0


def test_text_files_count_where_there_is_no_image(tmp_path: Path) -> None:
    texts = put(tmp_path / "texts", ["train/ham/1.txt", "train/spam/2.TXT", "train/ham/list.csv", "test/ham/3.txt"])
    images = put(tmp_path / "images", ["cat/1.jpg", "cat/about.txt", "dog/2.jpg"])

    dataset, pictures = read_folder(texts), read_folder(images)

    assert (dataset.kind, pictures.kind) == ("text", "image")
    assert named(dataset, dataset.train) == [("train/ham/1.txt", "ham"), ("train/spam/2.TXT", "spam")]
    assert named(dataset, dataset.test) == [("test/ham/3.txt", "ham")]
    assert named(pictures, pictures.train) == [("cat/1.jpg", "cat"), ("dog/2.jpg", "dog")]


@pytest.mark.parametrize("test_name", ["test", "val", "valid", "validation"])
def test_train_and_test_folders_are_two_parts(tmp_path: Path, test_name: str) -> None:
    put(tmp_path, ["train/cat/1.jpg", "train/dog/1.jpg", f"{test_name}/dog/1.jpg", f"{test_name}/owl/1.jpg"])

    dataset = read_folder(tmp_path)

    assert dataset.classes == ("cat", "dog", "owl")
    assert named(dataset, dataset.train) == [("train/cat/1.jpg", "cat"), ("train/dog/1.jpg", "dog")]
    assert named(dataset, dataset.test) == [(f"{test_name}/dog/1.jpg", "dog"), (f"{test_name}/owl/1.jpg", "owl")]


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    put(tmp_path, ["test/1.jpg", "control/1.jpg"])

    assert read_folder(tmp_path).classes == ("control", "test")


def test_what_is_no_labelled_image_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, ["cat/1.jpg", "cat/.hidden.jpg", "cat/notes.txt", "loose.jpg", ".git/1.jpg", "__MACOSX/cat/1.jpg",
                   "cat/._1.jpg", "empty/readme", "cat/.thumbs/1.jpg"])  # fmt: skip

    dataset = read_folder(tmp_path)

    assert named(dataset, dataset.train) == [("cat/1.jpg", "cat")]


def test_wrapping_folders_are_stepped_into(tmp_path: Path) -> None:
    put(tmp_path, ["data/cifar/train/cat/1.jpg", "data/cifar/test/cat/1.jpg", "data/README"])

    dataset = read_folder(tmp_path)

    assert dataset.root == tmp_path / "data" / "cifar"
    assert (len(dataset.train), len(dataset.test), dataset.classes) == (1, 1, ("cat",))


def test_a_single_class_is_not_taken_for_a_wrapping_folder(tmp_path: Path) -> None:
    put(tmp_path, ["cat/1.jpg"])

    assert read_folder(tmp_path).classes == ("cat",)


def test_a_relative_path_gives_absolute_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, ["data/cat/1.jpg", "data/dog/1.jpg"])
    monkeypatch.chdir(tmp_path)

    assert all(path.is_absolute() for path in read_folder(Path("data")).train.paths)


@pytest.mark.parametrize("names", [(), ("1.jpg",), ("cat/notes.md",), ("test/cat/1.jpg", "train/readme")])
def test_a_folder_without_training_images_says_what_to_give(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DatasetUnreadable, match="class folders"):
        read_folder(put(tmp_path, names))


def test_a_path_that_cannot_be_read_is_never_replaced_by_other_data(tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.touch()

    for path in (tmp_path / "none", note):
        with pytest.raises(DatasetUnreadable):
            open_dataset(path, tmp_path / "cache")


@pytest.mark.parametrize("kind", ["xztar", "gztar", "zip"])
def test_an_archive_is_unpacked_once_for_its_content(tmp_path: Path, kind: str) -> None:
    source = put(tmp_path / "source", ["set/train/cat/1.jpg", "set/test/dog/1.jpg"])
    archive = Path(shutil.make_archive(str(tmp_path / "first"), kind, source))
    renamed = tmp_path / f"second{''.join(archive.suffixes)}"
    shutil.copy(archive, renamed)
    cache = tmp_path / "cache"

    first, second = open_dataset(archive, cache), open_dataset(renamed, cache)

    assert (first.train, first.test, first.classes) == (second.train, second.test, ("cat", "dog"))
    assert [path.name for path in first.train.paths] == ["1.jpg"]
    assert len(list(cache.iterdir())) == 1


def test_a_refused_archive_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(put(tmp_path / "source", ["1.jpg"]), "cat")
        link = tarfile.TarInfo("cat/2.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    cache = tmp_path / "cache"

    with pytest.raises(ArchiveUnsafe):
        open_dataset(tmp_path / "a.tar.gz", cache)

    assert list(cache.iterdir()) == []


def test_several_processes_at_once_make_one_whole_folder(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, backend.pool.folders as folders;"
        "data = folders.digits(pathlib.Path(sys.argv[1])); print(len(data.train), len(data.test))"
    )

    running = [subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE) for _ in range(2)]
    printed = [process.communicate(timeout=120)[0] for process in running]

    assert printed == [b"1297 500\n"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_threads_at_once_make_one_whole_folder(tmp_path: Path) -> None:
    archive = Path(
        shutil.make_archive(str(tmp_path / "a"), "gztar", put(tmp_path / "s", [f"c/{n}.jpg" for n in range(300)]))
    )
    found: list[int] = []

    threads = [
        threading.Thread(target=lambda: found.append(len(open_dataset(archive, tmp_path / "cache").train)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [300] * 4
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_digits_are_the_real_ones_with_a_uniform_holdout(tmp_path: Path) -> None:
    dataset = digits(tmp_path)
    train, test = pixels_and_labels(dataset.train), pixels_and_labels(dataset.test)

    assert (len(dataset.train), len(dataset.test), len(dataset.classes)) == (1297, 500, 10)
    originals = np.rint(load_digits().images.reshape(-1, 64) * (255 / 16))
    np.testing.assert_array_equal(np.unique(np.vstack([train[0], test[0]]), axis=0), np.unique(originals, axis=0))
    assert np.bincount(test[1], minlength=10).min() > 30
    assert KNeighborsClassifier(3).fit(*train).score(*test) > 0.97


def test_without_a_network_and_a_path_there_are_digits_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens: as good as no network
    monkeypatch.setattr("urllib.request._opener", None)  # it reads them once a process

    dataset = open_dataset(None, tmp_path)

    assert dataset.origin == "scikit-learn digits"
    assert "digits" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits"]


def test_colour_arrays_become_png_files_without_loss(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    labels = ["cat", "dog"] * 10

    folders.write_pngs(tmp_path / "train", images, labels)

    dataset = read_folder(tmp_path)
    order = sorted(range(20), key=lambda number: (labels[number], number))
    for path, number in zip(dataset.train.paths, order, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(path)), images[number])


@pytest.mark.skipif("NEXTBATCH_DATA" not in os.environ, reason="NEXTBATCH_DATA names no CIFAR-10 folder or archive")
def test_the_data_of_the_benchmarks_is_read_whole() -> None:
    dataset = open_dataset(Path(os.environ["NEXTBATCH_DATA"]), CACHE)

    assert (len(dataset.train), len(dataset.test), len(dataset.classes)) == (50_000, 10_000, 10)
    assert decode(dataset.test.paths[0].read_bytes(), 128).shape == (32, 32, 3)
