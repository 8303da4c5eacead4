"""Labelled files on disk, images or texts: class folders, or train/ and test/ with class folders, perhaps packed.

Without a path there is still something real to start with: CIFAR-10 through torchvision's downloader, and where
there is no network scikit-learn's handwritten digits. `Dataset.origin` and the log say which one it is.
"""

import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog
from PIL import Image

from backend.errors import DatasetUnreadable
from backend.pool.archives import is_archive, unpack
from backend.settings import Kind
from backend.vision import torchvision

SUFFIXES: dict[Kind, frozenset[str]] = {
    "image": frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}),
    "text": frozenset({".txt"}),
}
_TEST_NAMES = ("test", "val", "valid", "validation")
_DIGITS_HOLDOUT = 500
_DOWNLOAD_TIMEOUT_S = 20.0  # without a byte

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LabelledFiles:
    """Files with their labels: `labels[i]` is the class of `paths[i]`, an index into the dataset's classes."""

    paths: tuple[Path, ...] = ()
    labels: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Dataset:
    """Labelled files below `root`. `test` is empty where the folder has no test part. `origin` is for people."""

    origin: str
    root: Path
    classes: tuple[str, ...]
    train: LabelledFiles
    test: LabelledFiles
    kind: Kind = "image"


def open_dataset(path: Path | None, cache: Path) -> Dataset:
    """Read the folder or archive at `path`; without a path, fetch or make a dataset. What is unpacked goes to `cache`.

    A path that cannot be read is an error, never a reason to take other data. Raises DatasetUnreadable,
    ArchiveUnsafe, ArchiveTooLarge.
    """
    if path is not None:
        return read_archive(path, cache) if path.is_file() else read_folder(path)
    try:
        return cifar10(cache)
    except Exception as error:  # torchvision and urllib raise what they like, and there is always a next choice
        _log.warning("cifar10_not_available", problem=str(error)[:200], instead="scikit-learn digits")
        return digits(cache)


def read_folder(path: Path, origin: str | None = None) -> Dataset:
    """List a folder's labelled files, sorted by class and path: images, or texts where there is no image.

    Raises DatasetUnreadable.
    """
    if not path.is_dir():
        raise DatasetUnreadable(path=path, problem="there is no such folder")
    found = _read(path, "image", origin) or _read(path, "text", origin)
    if found is None:
        raise DatasetUnreadable(path=path, problem="it holds no class folders with images, or with .txt files")
    return found


def _read(path: Path, kind: Kind, origin: str | None) -> Dataset | None:
    root = _inner(path.absolute(), kind)
    train_root = root / "train"
    test_root = next((root / name for name in _TEST_NAMES if (root / name).is_dir()), None)
    if not train_root.is_dir():
        train_root, test_root = root, None
    found = {
        "train": dict(_classes(train_root, kind)),
        "test": dict(_classes(test_root, kind)) if test_root else {},
    }
    classes = tuple(sorted({name for part in found.values() for name in part}))
    if not found["train"]:
        return None
    return Dataset(
        origin=origin or str(path),
        root=root,
        classes=classes,
        train=_labelled(found["train"], classes),
        test=_labelled(found["test"], classes),
        kind=kind,
    )


def read_archive(path: Path, cache: Path) -> Dataset:
    """Unpack an archive below `cache`, once for each content, and list it."""
    if not is_archive(path):
        raise DatasetUnreadable(path=path, problem="it is neither a folder nor a known archive")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return read_folder(made_once(cache / digest[:32], lambda folder: unpack(path, folder)), origin=str(path))


def cifar10(cache: Path) -> Dataset:
    """CIFAR-10 (Krizhevsky, 2009), downloaded and checked by torchvision, as 50,000 + 10,000 PNG files."""

    def make(folder: Path) -> None:
        downloader = torchvision("datasets").CIFAR10
        with tempfile.TemporaryDirectory(dir=folder.parent) as download, _socket_timeout(_DOWNLOAD_TIMEOUT_S):
            for part in ("train", "test"):
                data = downloader(download, train=part == "train", download=True)
                write_pngs(folder / part, data.data, [data.classes[target] for target in data.targets])

    return read_folder(made_once(cache / "cifar10", make), origin="CIFAR-10, downloaded by torchvision")


def digits(cache: Path) -> Dataset:
    """scikit-learn's digits (UCI Optical Recognition of Handwritten Digits): 1,297 + 500 grey 8 x 8 PNG files."""

    def make(folder: Path) -> None:
        from sklearn.datasets import load_digits

        data = load_digits()
        pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
        shuffled = np.random.default_rng(0).permutation(len(pixels))
        for part, chosen in (("test", shuffled[:_DIGITS_HOLDOUT]), ("train", np.sort(shuffled[_DIGITS_HOLDOUT:]))):
            write_pngs(folder / part, pixels[chosen], [str(target) for target in data.target[chosen]])

    return read_folder(made_once(cache / "digits", make), origin="scikit-learn digits")


def write_pngs(folder: Path, images: npt.NDArray[np.uint8], labels: Sequence[str]) -> None:
    """Write images (n, H, W) or (n, H, W, 3) as `label/NNNNN.png`."""
    for label in set(labels):
        (folder / label).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / label / f"{number:05}.png", compress_level=1)


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, made in a temporary one and renamed: it is whole or not there, also with several processes."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        make(partial)
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster, with the same content
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _inner(root: Path, kind: Kind) -> Path:
    """Step into a single folder that wraps the dataset, as archives often have it: `cifar10/train/…`."""
    folders, files = _entries(root)
    if len(folders) == 1 and not any(_is_item(path, kind) for path in files):
        below, items = _entries(folders[0])
        has_items = any(_is_item(path, kind) for path in items)
        if below and not has_items and folders[0].name not in ("train", *_TEST_NAMES):
            return _inner(folders[0], kind)
    return root


def _classes(root: Path, kind: Kind) -> Iterator[tuple[str, list[Path]]]:
    """Each class folder that has items, with all items below it, sorted."""
    for folder in _entries(root)[0]:
        items: list[Path] = []
        for where, folders, files in os.walk(folder):
            folders[:] = [name for name in folders if not _is_hidden(name)]
            items += [Path(where, name) for name in files if _is_item(Path(name), kind)]
        if items:
            yield folder.name, sorted(items)


def _entries(root: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files in a folder, sorted, without hidden ones."""
    with os.scandir(root) as found:
        entries = sorted((entry.name, entry.is_dir()) for entry in found if not _is_hidden(entry.name))
    return [root / name for name, is_dir in entries if is_dir], [root / name for name, is_dir in entries if not is_dir]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_item(path: Path, kind: Kind) -> bool:
    return path.suffix.lower() in SUFFIXES[kind] and not _is_hidden(path.name)


def _labelled(found: dict[str, list[Path]], classes: Sequence[str]) -> LabelledFiles:
    paths = tuple(path for items in found.values() for path in items)
    labels = tuple(classes.index(name) for name, items in found.items() for _ in items)
    return LabelledFiles(paths, labels)


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torchvision opens its download without a timeout; this is the one that sockets get by default."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
