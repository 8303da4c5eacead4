"""Names, parameters, and strategies of other packages."""

import subprocess
import sys
from pathlib import Path

import pytest

import strategies
from strategies import (
    BrokenPlugin,
    DuplicateStrategy,
    StrategyError,
    UnknownStrategy,
    WrongParameter,
    WrongValue,
    create,
    find,
)
from strategies.registry import BUILT_IN, register


def test_the_public_names_are_these() -> None:
    assert sorted(strategies.__all__) == [
        "BadRequest", "BadSelection", "BrokenPlugin", "Cost", "DuplicateStrategy", "MissingInput", "Needs", "Pointwise",
        "Request", "Scores", "Selection", "Strategy", "StrategyError", "Task", "UnknownStrategy", "Wrapper",
        "WrongParameter", "WrongTask", "WrongValue", "check_task", "choice",
            "create", "find", "highest", "names", "parameter", "parameters",
        "part", "register", "run",
    ]  # fmt: skip
    assert all(getattr(strategies, name) is not None for name in strategies.__all__)


def test_creating_every_strategy_imports_no_torch_and_no_backend() -> None:
    script = (
        "import sys, strategies\n"
        "assert 'numpy' not in sys.modules, 'numpy'\n"
        "[strategies.create(name) for name in strategies.names()]\n"
        "print([m for m in ('torch', 'scipy', 'backend') if m in sys.modules])\n"
    )

    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert printed == "[]\n"


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_knows_its_name_its_paper_or_purpose_and_what_it_costs(name: str) -> None:
    strategy = find(name)

    assert strategy.name == name
    assert strategy.__module__ == f"strategies.{name}"
    assert len((strategy.__doc__ or "").split("\n")) > 3
    assert strategy.tasks
    assert strategy.cost


def test_a_name_that_is_nearly_right_gets_a_hint() -> None:
    with pytest.raises(UnknownStrategy, match=r"'margn'. Did you mean 'margin'\?.*max_herding"):
        create("margn")


def test_a_parameter_that_is_nearly_right_gets_a_hint_and_the_allowed_ones() -> None:
    with pytest.raises(
        WrongParameter, match=r"'target'. Did you mean 'targets'\?.*candidates, dimensions, targets, width"
    ):
        create("max_herding", target=3)
    with pytest.raises(WrongParameter, match="Allowed: none"):
        create("gini", n=3)


@pytest.mark.parametrize("value", ["many", 0, -3, 2.5, True, None, 10**9])
def test_a_value_that_makes_no_sense_is_refused_with_its_range(value: object) -> None:
    with pytest.raises(
        WrongValue, match=r"'targets' of strategy 'max_herding' must be a whole number from 1 to 100000"
    ):
        create("max_herding", targets=value)


def test_a_number_may_be_written_without_a_point() -> None:
    assert create("max_herding", width=2).width == 2  # type: ignore[attr-defined]
    with pytest.raises(WrongValue, match="width"):
        create("max_herding", width=float("nan"))


def test_a_name_belongs_to_one_class() -> None:
    with pytest.raises(DuplicateStrategy, match="another name"):
        register("margin")(type("Margin", (strategies.Strategy,), {}))
    with pytest.raises(DuplicateStrategy, match="another name"):
        register("ratio")(type("NotYetImported", (strategies.Strategy,), {"__module__": "elsewhere"}))


PLUGIN = '''
from dataclasses import dataclass
import numpy as np
from strategies import Cost, Needs, Request, Selection, Strategy, parameter, register

@register("longest_name")
@dataclass(frozen=True)
class LongestName(Strategy):
    """Pick the items with the longest id."""

    needs = Needs.NOTHING
    cost = Cost.POINTWISE
    weight: float = parameter(1.0, 0.0, 10.0)

    def select(self, request: Request) -> Selection:
        return request.take_highest(self.weight * np.char.str_len(request.ids), reason="its id is long")
'''

USE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import strategies
assert "longest_name" in strategies.names() and "other_package" not in sys.modules
request = strategies.Request(ids=np.array(["a", "ccc", "bb"]), budget=2)
print(strategies.run(strategies.create("longest_name", weight=2), request).ids.tolist())
for name in ("broken", "no_strategy"):
    try:
        strategies.create(name)
    except strategies.BrokenPlugin as error:
        print(error)
"""


def test_another_package_adds_a_strategy_by_entry_point(tmp_path: Path) -> None:
    (tmp_path / "other_package.py").write_text(PLUGIN)
    metadata = tmp_path / "other_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[nextbatch.strategies]\n"
        "longest_name = other_package:LongestName\n"
        "broken = not_there:Thing\n"
        "no_strategy = other_package:np\n"
    )

    done = subprocess.run([sys.executable, "-c", USE, str(tmp_path)], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    picks, broken, no_strategy = done.stdout.splitlines()
    assert picks == "['ccc', 'bb']"
    assert "ModuleNotFoundError" in broken
    assert "not a subclass of Strategy" in no_strategy


def test_every_error_is_a_value_error_with_its_facts_in_the_message() -> None:
    error = BrokenPlugin(name="x", origin="y:z", problem="it is broken.")

    assert isinstance(error, StrategyError)
    assert isinstance(error, ValueError)
    assert str(error) == "The plug-in 'x' (y:z) cannot be used: it is broken."
