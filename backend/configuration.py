"""A project's YAML file: read with limits, checked, and every mistake named with its line and the way out of it."""

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from backend.errors import BadConfiguration
from backend.settings import ProjectConfig

MAX_BYTES = 2**20
MAX_NODES = 50_000  # after aliases are expanded: a billion-laughs file stops here
MAX_DEPTH = 32

_ODD_BREAKS = re.compile("[\x85\u2028\u2029]")  # PyYAML writes them as line breaks and reads spaces
Location = tuple[str | int, ...]


def load(path: Path) -> ProjectConfig:
    """The configuration in that file. Raises BadConfiguration with file, line and mend."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        return loads(raw.decode("utf-8-sig"), str(path)) if len(raw) <= MAX_BYTES else _refuse_size(str(path))
    except UnicodeDecodeError as error:
        raise _bad(str(path), None, f"this is no UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise _bad(str(path), None, f"cannot be read: {error.strerror}") from error


def loads(text: str, name: str) -> ProjectConfig:
    """The configuration in `text`; `name` stands for the file in messages. Raises BadConfiguration."""
    if len(text.encode()) > MAX_BYTES:
        _refuse_size(name)
    document = _Document(name)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = {} if node is None else document.read(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise _bad(name, mark.line + 1 if mark else None, f"this is no YAML: {problem}") from error
    except yaml.YAMLError as error:
        raise _bad(name, None, f"this is no YAML: {error}") from error
    except RecursionError as error:
        raise _bad(name, None, f"nested deeper than {MAX_DEPTH} levels") from error
    if not isinstance(values, dict):
        raise _bad(name, 1, "the file must hold keys and values, beginning with `name: …`")
    try:
        return ProjectConfig.model_validate(values)
    except ValidationError as error:
        raise document.explain(error) from error


def dump(config: ProjectConfig) -> str:
    """The configuration as YAML that `loads` reads back equal."""
    values = _without_none(config.model_dump(mode="json"))
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)
    return yaml.safe_dump(values, sort_keys=False, width=110) if _ODD_BREAKS.search(text) else text


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file, for editors."""
    schema = ProjectConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "nextbatch project"}


def schema_text() -> str:
    """What configs/schema.json holds."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


class _Document:
    """One file while it is read: remembers at which line each value stands."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Location, int] = {}
        self._constructor = yaml.constructor.SafeConstructor()
        self._nodes = 0

    def read(self, node: yaml.Node, at: Location) -> Any:
        """The node as dict, list or scalar. Refuses duplicate keys, too many nodes, too deep ones."""
        line = node.start_mark.line + 1
        self.lines.setdefault(at, line)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _bad(self.name, line, f"more than {MAX_NODES} values once its aliases are expanded")
        if len(at) > MAX_DEPTH:
            raise _bad(self.name, line, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, yaml.MappingNode):
            return dict(self._pairs(node, at))
        if isinstance(node, yaml.SequenceNode):
            return [self.read(child, (*at, index)) for index, child in enumerate(node.value)]
        try:
            return self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            problem = getattr(error, "problem", None) or str(error)
            raise _bad(self.name, line, f"{_dotted(at)}: {problem}") from error

    def _pairs(self, node: yaml.MappingNode, at: Location) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise _bad(self.name, line, "a key must be plain text")
            key = key_node.value
            if key in seen:
                raise _bad(self.name, line, f"{_dotted((*at, key))} is given twice, first in line {seen[key]}")
            seen[key] = line
            self.lines[(*at, key)] = line
            yield key, self.read(value_node, (*at, key))

    def explain(self, error: ValidationError) -> BadConfiguration:
        """All that is wrong, one line each, in the order of the file."""
        found = sorted((self._line(details["loc"]), self._problem(details)) for details in error.errors())
        first_line, first = found[0]
        rest = "".join(f"\n{self.name}:{line}: {problem}" for line, problem in found[1:])
        return _bad(self.name, first_line, first + rest)

    def _line(self, location: Location) -> int:
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)

    def _problem(self, details: ErrorDetails) -> str:
        location, kind = details["loc"], details["type"]
        section = _section(location[:-1])
        if kind == "extra_forbidden" and section is not None:
            allowed = list(section.model_fields)
            return f"unknown key {_dotted(location)!r}.{_nearest(location[-1], allowed)} Allowed: {', '.join(allowed)}"
        if kind == "missing":
            return f"{_dotted(location)} is missing"
        given = repr(details["input"])
        given = given if len(given) <= 60 else given[:57] + "…"
        allowed = _literals(section, location)
        if allowed:
            return f"{_dotted(location)} is {given}.{_nearest(details['input'], allowed)} Allowed: {', '.join(allowed)}"
        message = details["msg"][:1].lower() + details["msg"][1:]
        mend = " Put it in quotes." if kind == "string_type" and not isinstance(details["input"], dict | list) else ""
        return f"{_dotted(location)} is {given}: {message}.{mend}"


def _section(location: Location) -> type[BaseModel] | None:
    """The model that describes what stands at `location`."""
    model: type[BaseModel] = ProjectConfig
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return None
        model = field.annotation
    return model


def _literals(section: type[BaseModel] | None, location: Location) -> list[str]:
    field = section.model_fields.get(str(location[-1])) if section is not None and location else None
    if field is None or get_origin(field.annotation) is not Literal:
        return []
    return [str(value) for value in get_args(field.annotation)]


def _nearest(given: object, allowed: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(given).lower(), allowed, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _dotted(location: Location) -> str:
    return ".".join(str(part) for part in location) or "the file"


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    """Fields that are not set are left out; a strategy's own parameters stay as they are."""
    return {
        key: _without_none(value) if isinstance(value, dict) and key != "parameters" else value
        for key, value in values.items()
        if value is not None
    }


def _bad(name: str, line: int | None, problem: str) -> BadConfiguration:
    return BadConfiguration(path=name, line="" if line is None else f":{line}", problem=problem)


def _refuse_size(name: str) -> ProjectConfig:
    raise _bad(name, None, f"larger than {MAX_BYTES >> 20} MiB")
