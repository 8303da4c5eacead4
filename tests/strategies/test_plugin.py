"""The plug-in that the page on strategies shows, installed as a package of its own."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text()

USE = """
import sys
import numpy as np
import strategies
assert "rare_guess" in strategies.names() and "my_package" not in sys.modules
probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]], dtype=np.float32)
request = strategies.Request(ids=np.arange(4), budget=2, probabilities=probabilities)
selection = strategies.run(strategies.create("rare_guess", power=2), request)
print(selection.ids.tolist(), selection.utilities.round(4).tolist(), selection.reasons[0])
print(strategies.run(strategies.create("class_quota", of="rare_guess", share=0.5), request).ids.tolist())
try:
    strategies.create("rare_guess", power=99)
except strategies.WrongValue as error:
    print(error)
"""


def block(language: str, holding: str) -> str:
    blocks = (part.split("```")[0] for part in PAGE.split(f"```{language}\n")[1:])
    return next(text for text in blocks if holding in text)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages that holds the plug-in."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "my_package.py").write_text(block("python", "@register"))
    (source / "pyproject.toml").write_text(block("toml", "nextbatch.strategies"))
    install = ["uv", "pip", "install", "--offline", "--no-deps", "--no-build-isolation", "--python", sys.executable]

    done = subprocess.run(
        [sys.executable, "-m", *install, "--target", str(target), str(source)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    return target


def test_it_is_short() -> None:
    assert len(block("python", "@register").splitlines()) <= 30


def test_installed_it_is_a_name_like_the_others(site: Path) -> None:
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])

    done = subprocess.run(
        [sys.executable, "-c", USE], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )

    assert done.returncode == 0, done.stderr
    picks, quota, refusal = done.stdout.splitlines()
    shares = np.array([0.7, 0.3])
    assert picks == f"[3, 0] {(1 - shares[::-1] ** 2).round(4).tolist()} its class has 30% of the pool"
    assert quota == "[3, 0]"
    assert refusal == "Parameter 'power' of strategy 'rare_guess' must be a number from 0.1 to 10.0, not 99."


def test_where_it_is_not_installed_the_name_is_unknown() -> None:
    done = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True)

    assert "AssertionError" in done.stderr
