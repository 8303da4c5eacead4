"""Label configurations: the XML in which Label Studio describes a task, and the JSON of its answers.

nextbatch reads what it can learn from: one `<Choices>`, with one answer or several, one `<Number>` or one `<Rating>`,
on one `<Image>` or `<Text>`.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import defusedxml
from defusedxml.ElementTree import fromstring

from backend.errors import BadLabelConfig, UnknownLabel
from backend.questions import ANY, NUMBER, HowMuch, Question, Scale, question
from backend.settings import Kind
from strategies import Task

MAX_CONFIG_CHARACTERS = 1_000_000
_CONTROLS = frozenset({"Choices", "Number", "Rating"})
_KINDS: dict[str, Kind] = {"Image": "image", "Text": "text"}
# Tags that point at another tag as a control does, and answer nothing.
_SILENT = frozenset({"Filter", "Shortcut"})


@dataclass(frozen=True)
class LabelTask:
    """What people are asked of the image or text in `data[data_key]`: by `task` which one of `choices` fits, which of
    them do, or a number of `scale`. `answer` is the kind of an answer's results, and where their value stands.

    `control` and `object` are the names of the tag that asks and of the tag that it is about.
    """

    control: str
    object: str
    data_key: str
    kind: Kind
    choices: tuple[str, ...]
    is_inline: bool = False
    """Whether `data[data_key]` is the text itself and no address."""
    is_open: bool = False
    """Whether a label that is no choice yet becomes one: a project of the API, made without label names."""
    task: Task = Task.CLASSIFICATION
    answer: str = "choices"
    scale: Scale = ANY

    @classmethod
    def parse(cls, label_config: str) -> "LabelTask":
        """Read a labelling configuration. Raises BadLabelConfig, which names the tag and says how to mend it."""
        root = _read(label_config)
        control = _the_control(root)
        shown = _the_object(root, control)
        value = shown.get("value", "")
        if not value.startswith("$") or len(value) == 1:
            raise BadLabelConfig(
                problem=f"{_named(shown)} shows {value!r}, no field of the task's data",
                mend='Give one field of the data, such as value="$image".',
            )
        kind = _KINDS[shown.tag]
        is_inline = kind == "text" and shown.get("valueType", "text") == "text"
        is_open = control.get("open") == "true"
        names = control.get("name", ""), shown.get("name", ""), value[1:]
        if control.tag != "Choices":
            answer = control.tag.lower()
            return cls(*names, kind, NUMBER, is_inline, False, Task.REGRESSION, answer, _scale(control))
        task = Task.MULTI_LABEL if control.get("choice") == "multiple" else Task.CLASSIFICATION
        return cls(*names, kind, _choices(control), is_inline, is_open, task)

    @property
    def question(self) -> Question:
        """What labels mean."""
        asked = question(self.task, self.choices)
        return replace(asked, scale=self.scale) if isinstance(asked, HowMuch) else asked

    def to_result(self, label: str) -> list[dict[str, Any]]:
        """`label` as the result of an annotation or a prediction. Raises UnknownLabel."""
        if not self.question.knows(label):
            raise UnknownLabel(label=label, choices=", ".join(self.choices))
        values = self.question.values(label)
        if not values:
            return []
        value = {self.answer: values if self.answer == "choices" else values[0]}
        return [{"from_name": self.control, "to_name": self.object, "type": self.answer, "value": value}]

    def label_of(self, annotation: Mapping[str, Any]) -> str | None:
        """What an annotation says; None for a skip, a choice that is gone by now, or not one where one is asked for."""
        if annotation.get("was_cancelled"):
            return None
        results = [found for found in annotation.get("result") or [] if found.get("from_name") == self.control]
        given = [(found.get("value") or {}).get(self.answer) for found in results]
        if self.answer == "choices":
            given = [label for labels in given for label in labels or ()]
        return self.question.label(given)


def config_hash(label_config: str) -> str:
    """A digest that stays as it is when only white space, quotes or the order of attributes change."""
    plain = ElementTree.tostring(_read(label_config), encoding="unicode")
    canonical = ElementTree.canonicalize(plain, strip_text=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def image_config(labels: Sequence[str], is_open: bool = False) -> str:
    """The labelling configuration of a new project: images, each with one of `labels`."""
    return _config('<Image name="image" value="$image"/>', "image", labels, is_open)


def text_config(labels: Sequence[str], is_inline: bool = True, is_open: bool = False) -> str:
    """The same for texts: each in its task's data, or behind an address there."""
    kind = "" if is_inline else ' valueType="url"'
    return _config(f'<Text name="text" value="$text"{kind}/>', "text", labels, is_open)


def _config(shown: str, name: str, labels: Sequence[str], is_open: bool) -> str:
    choices = "\n".join(f"    <Choice value={quoteattr(label)}/>" for label in labels)
    more = ' open="true"' if is_open else ""
    config = (
        f'<View>\n  {shown}\n  <Choices name="label" toName="{name}" choice="single" showInLine="true"{more}>\n'
        f"{choices}\n  </Choices>\n</View>"
    )
    LabelTask.parse(config)
    return config


def _read(label_config: str) -> ElementTree.Element:
    if len(label_config) > MAX_CONFIG_CHARACTERS:
        problem = f"it has more than {MAX_CONFIG_CHARACTERS:,} characters"
        raise BadLabelConfig(problem=problem, mend="Remove what is not needed.")
    try:
        root: ElementTree.Element = fromstring(label_config, forbid_dtd=True)
    except defusedxml.DefusedXmlException:
        raise BadLabelConfig(problem="it has a <!DOCTYPE>", mend="Remove it: entities are not read.") from None
    except (ElementTree.ParseError, ValueError) as error:
        raise BadLabelConfig(problem=f"it is no XML ({error})", mend="Paste it from the project's settings.") from None
    return root


def _the_control(root: ElementTree.Element) -> ElementTree.Element:
    controls = [tag for tag in root.iter() if tag.get("toName") and tag.tag not in _SILENT]
    for tag in controls:
        if tag.tag not in _CONTROLS:
            raise BadLabelConfig(
                problem=f"{_named(tag)} asks for something that nextbatch does not learn",
                mend="Remove it: it learns from one <Choices>, <Number> or <Rating> on one <Image> or <Text>.",
            )
    if len(controls) != 1:
        names = ", ".join(map(_named, controls)) or "none"
        problem = f"it needs exactly one <Choices>, <Number> or <Rating>, and has {names}"
        raise BadLabelConfig(problem=problem, mend="Keep one of them.")
    control = controls[0]
    if control.get("choice", "single") not in {"single", "single-radio", "multiple"}:
        problem = f"{_named(control)} is asked in a way that is not known (choice={control.get('choice')!r})"
        raise BadLabelConfig(problem=problem, mend='Set choice="single", or choice="multiple" for several answers.')
    if control.get("perRegion") == "true" or control.get("perItem") == "true":
        raise BadLabelConfig(problem=f"{_named(control)} is asked per region or item", mend="Ask it once a task.")
    if control.get("value"):
        raise BadLabelConfig(
            problem=f"{_named(control)} takes its choices from the task ({control.get('value')})",
            mend="List them as <Choice> tags: every task needs the same.",
        )
    return control


def _the_object(root: ElementTree.Element, control: ElementTree.Element) -> ElementTree.Element:
    shown = [tag for tag in root.iter() if tag.get("name") == control.get("toName")]
    if len(shown) != 1:
        count = "several tags have" if shown else "no tag has"
        problem = f"{_named(control)} is about {control.get('toName')!r}, a name that {count}"
        raise BadLabelConfig(problem=problem, mend="Set toName to the name of the <Image> or <Text>.")
    if shown[0].tag not in _KINDS:
        problem = f"{_named(control)} is about {_named(shown[0])}"
        raise BadLabelConfig(problem=problem, mend="nextbatch reads <Image> and <Text>.")
    if shown[0].get("valueList"):
        raise BadLabelConfig(problem=f"{_named(shown[0])} shows a list", mend='Show one, with value="$image".')
    if shown[0].get("encoding", "none") != "none":
        problem = f"{_named(shown[0])} is encoded as {shown[0].get('encoding')}"
        raise BadLabelConfig(problem=problem, mend="Put the text itself into the tasks, and remove the attribute.")
    others = [tag for tag in root.iter() if tag.tag in _KINDS and tag is not shown[0] and _is_data(tag)]
    if others:
        problem = f"{_named(others[0])} stands beside {_named(shown[0])}"
        raise BadLabelConfig(problem=problem, mend="Keep the one that is judged: the model sees only that one.")
    return shown[0]


def _is_data(tag: ElementTree.Element) -> bool:
    return tag.get("value", "").startswith("$") or bool(tag.get("valueList"))


def _choices(control: ElementTree.Element) -> tuple[str, ...]:
    tags = list(control.iter("Choice"))
    if any(list(tag) for tag in tags):
        raise BadLabelConfig(problem=f"{_named(control)} has nested <Choice> tags", mend="List them on one level.")
    # Where a choice has an alias, Label Studio's answers carry the alias.
    names = [tag.get("alias") or tag.get("value") or "" for tag in tags]
    fewest = 0 if control.get("open") == "true" else 2
    if len(names) < fewest or "" in names or len(set(names)) < len(names):
        problem = f"the choices of {_named(control)} are {names}"
        raise BadLabelConfig(problem=problem, mend="Give at least two, each with a value of its own.")
    return tuple(names)


def _scale(control: ElementTree.Element) -> Scale:
    """The numbers that people may give: a rating's from 1 on, a number's as far as the tag says."""
    if control.tag == "Rating":
        return Scale(1, _float(control, "maxRating", 5), 1)
    low, high = _float(control, "min", -math.inf), _float(control, "max", math.inf)
    if not low < high:
        raise BadLabelConfig(problem=f"{_named(control)} goes from {low} to {high}", mend="Give max above min.")
    step = 0.0 if control.get("step") == "any" else _float(control, "step", 0)
    return Scale(low, high, max(0.0, step))


def _float(control: ElementTree.Element, name: str, default: float) -> float:
    given = control.get(name) or ""
    try:
        return float(given) if given else default
    except ValueError:
        problem = f"{_named(control)} has {name}={given!r}, which is no number"
        raise BadLabelConfig(problem=problem, mend="Give a number, or remove the attribute.") from None


def _named(tag: ElementTree.Element) -> str:
    return f"<{tag.tag} name={tag.get('name')!r}>" if tag.get("name") else f"<{tag.tag}>"
