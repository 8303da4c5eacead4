"""A project file is read whole or refused with the line and the way out; the example and the schema are true."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.configuration import dump, json_schema, load, loads, schema_text
from backend.errors import BadConfiguration
from backend.settings import BatchSection, LabelStudioSection, PoolSection, ProjectConfig, StrategySection

CONFIGS = Path(__file__).parent.parent / "configs"


def refusal(text: str) -> str:
    with pytest.raises(BadConfiguration) as caught:
        loads(text, "birds.yaml")
    return str(caught.value)


def test_the_example_spells_out_the_defaults() -> None:
    example = load(CONFIGS / "example.yaml")

    defaults = ProjectConfig(name="example", label_studio=LabelStudioSection(title="Example", labels=("cat", "dog")))
    assert example == defaults


def test_the_example_names_every_key() -> None:
    text = (CONFIGS / "example.yaml").read_text()

    sections = [ProjectConfig, *(field.annotation for field in ProjectConfig.model_fields.values())]
    names = {name for section in sections for name in getattr(section, "model_fields", {})}
    assert [name for name in sorted(names) if f"{name}:" not in text] == []


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_configuration_loads(path: Path) -> None:
    assert load(path).name


def test_the_schema_file_is_what_the_program_accepts() -> None:
    assert (CONFIGS / "schema.json").read_text() == schema_text()
    assert json.loads(schema_text()) == json_schema()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("name: a\nbatch:\n  sise: 3\n", 3, ["unknown key 'batch.sise'", "Did you mean 'size'?", "holdout_share"]),
        ("name: a\nencodr: {}\n", 2, ["unknown key 'encodr'", "Did you mean 'encoder'?"]),
        (
            "name: a\nencoder:\n  name: resnet-18\n",
            3,
            ["'resnet-18'", "Did you mean 'resnet18'?", "efficientnet-lite0"],
        ),
        ("name: a\npublish: recreate\n", 2, ["'recreate'", "Did you mean 'create'?", "reorder"]),
        ("name: a\nbatch:\n  size: 0\n", 3, ["batch.size is 0", "greater than or equal to 1"]),
        ("name: a\nlabel_studio:\n  labels:\n    - cat\n    - yes\n", 5, ["labels.1 is True", "in quotes"]),
        ("name: a\n\nname: b\n", 3, ["name is given twice, first in line 1"]),
        ("name: a\nbatch: {size: 1, size: 2}\n", 2, ["batch.size is given twice"]),
        ("batch:\n  size: 5\n", 1, ["name is missing"]),
        ("name: Not A Name\n", 1, ["name is 'Not A Name'"]),
        ("name: a\nbatch:\n\tsize: 3\n", 3, ["no YAML"]),
        ("name: a\nbatch: !!python/object/apply:os.system [ls]\n", 2, []),
        ("name: !!python/name:os.system\n", 1, ["could not determine a constructor"]),
        ("- a\n- b\n", 1, ["keys and values"]),
        ("? [a]\n: b\n", 1, ["plain text"]),
        ("name: 2026-13-45\n", 1, []),
        ("name: a\n---\nname: b\n", 2, ["single document"]),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, line: int, words: list[str]) -> None:
    message = refusal(text)

    assert message.startswith(f"birds.yaml:{line}: ")
    assert [word for word in words if word not in message] == []


def test_all_mistakes_are_named_in_the_order_of_the_file() -> None:
    message = refusal("name: a\nencoder:\n  name: x\nbatch:\n  size: many\n")

    assert [line.split(" ")[0] for line in message.splitlines()] == ["birds.yaml:3:", "birds.yaml:5:"]


def test_aliases_that_multiply_are_refused() -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )

    assert "once its aliases are expanded" in refusal(laughs)


@pytest.mark.parametrize(
    "text",
    ["a: &a [*a]\n", "a: &a {b: *a}\n", "a: " + "[" * 2_000, "name: a\nstrategy: " + "{a: " * 40 + "1" + "}" * 40],
)
def test_endless_nesting_is_refused(text: str) -> None:
    assert "nested deeper" in refusal(text)


def test_a_large_file_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text("name: a\n#" + "x" * 2**20)

    with pytest.raises(BadConfiguration, match=r"large\.yaml: larger than 1 MiB"):
        load(path)


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), (b"name: \xff", "no UTF-8 text")])
def test_an_unreadable_file_says_why(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "a.yaml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(BadConfiguration, match=words):
        load(path)


parameters = st.dictionaries(
    st.text(min_size=1, max_size=8),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    max_size=3,
)
configs = st.builds(
    ProjectConfig,
    name=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True),
    seed=st.integers(),
    publish=st.sampled_from(["reorder", "create"]),
    label_studio=st.builds(LabelStudioSection, labels=st.lists(st.text(max_size=8)).map(tuple)),
    pool=st.builds(PoolSection, path=st.none() | st.text(), max_items=st.none() | st.integers(1)),
    batch=st.builds(BatchSection, size=st.integers(1, 100_000), holdout_share=st.floats(0, 1, exclude_max=True)),
    strategy=st.builds(StrategySection, name=st.text(), parameters=parameters),
)


@given(configs)
def test_what_is_written_reads_back_equal(config: ProjectConfig) -> None:
    assert loads(dump(config), "birds.yaml") == config


@given(st.text())
def test_any_text_is_a_configuration_or_says_why_not(text: str) -> None:
    try:
        loads(text, "birds.yaml")
    except BadConfiguration as refused:
        message = str(refused)
    else:
        message = "birds.yaml"
    assert message.startswith("birds.yaml")
