"""What nextbatch can learn from is read; everything else is refused with the tag's name and the way to mend it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import BadLabelConfig, UnknownLabel
from backend.questions import ANY, Scale, names_in, set_label
from backend.studio.labels import MAX_CONFIG_CHARACTERS, LabelTask, config_hash, image_config, text_config
from strategies import Task

CHOICES = '<Choices name="label" toName="image"><Choice value="cat"/><Choice value="dog"/></Choices>'
IMAGE = '<Image name="image" value="$photo"/>'


def test_an_image_configuration_is_read() -> None:
    task = LabelTask.parse(f"<View><Header value='Which?'/>{IMAGE}{CHOICES}</View>")

    assert task == LabelTask("label", "image", "photo", "image", ("cat", "dog"))


def test_a_text_configuration_is_read_and_an_alias_is_what_answers_carry() -> None:
    task = LabelTask.parse(
        '<View><Text name="t" value="$body"/><Choices name="c" toName="t" choice="single-radio">'
        '<Choice value="Yes, it is" alias="yes"/><Choice value="no"/></Choices></View>'
    )

    assert task == LabelTask("c", "t", "body", "text", ("yes", "no"), is_inline=True)


@pytest.mark.parametrize("is_inline", [True, False])
def test_a_text_may_stand_in_its_task_or_behind_an_address(is_inline: bool) -> None:
    task = LabelTask.parse(text_config(["spam", "ham"], is_inline))

    assert task == LabelTask("label", "text", "text", "text", ("spam", "ham"), is_inline)
    result = [{"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": ["ham"]}}]
    assert task.to_result("ham") == result
    assert task.label_of({"result": result}) == "ham"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("", "no XML"),
        ("<View>", "no XML"),
        ("<View>\ud800</View>", "no XML"),
        ("<View/>", "exactly one <Choices>"),
        (f'<View>{IMAGE}<Rating name="r" toName="image" maxRating="many"/></View>', "maxRating='many'"),
        (f'<View>{IMAGE}<Number name="n" toName="image" min="3" max="1"/></View>', "from 3.0 to 1.0"),
        (f'<View>{IMAGE}{CHOICES}<Number name="n" toName="image"/></View>', "exactly one <Choices>"),
        (f"<View>{IMAGE}{CHOICES}{CHOICES}</View>", "exactly one <Choices>"),
        (f'<View>{IMAGE}{CHOICES}<TextArea name="why" toName="image"/></View>', "<TextArea name='why'>"),
        (f'<View>{IMAGE}<RectangleLabels name="box" toName="image"/></View>', "<RectangleLabels name='box'>"),
        (f"<View>{IMAGE}{CHOICES}</View>".replace("toName", 'choice="ranked" toName'), "choice='ranked'"),
        (f"<View>{IMAGE}{CHOICES}</View>".replace("toName", 'perRegion="true" toName'), "per region"),
        (f"<View>{IMAGE}{CHOICES}</View>".replace("toName", 'value="$options" toName'), "from the task"),
        (f"<View>{CHOICES}</View>", "no tag has"),
        (f'<View><Audio name="image" value="$a"/>{CHOICES}</View>', "<Audio name='image'>"),
        (f'<View><Image name="image" valueList="$many"/>{CHOICES}</View>', "shows a list"),
        (f'<View><Image name="image" value="cat.jpg"/>{CHOICES}</View>', "no field"),
        (f'<View>{IMAGE}<Text name="t" value="$caption"/>{CHOICES}</View>', "<Text name='t'>"),
        (f'<View><Text name="image" value="$a" encoding="base64"/>{CHOICES}</View>', "base64"),
        (f"<View>{IMAGE}{CHOICES}</View>".replace("dog", "cat"), "['cat', 'cat']"),
        (f"<View>{IMAGE}{CHOICES}</View>".replace("dog", ""), "['cat', '']"),
    ],
)
def test_a_configuration_that_cannot_be_learned_is_refused_by_name(config: str, named: str) -> None:
    with pytest.raises(BadLabelConfig) as refusal:
        LabelTask.parse(config)

    assert named in str(refusal.value)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE View [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE View [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x.dtd"> %x;]>',
        '<!DOCTYPE View [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY x "&b;&b;&b;&b;">]>',
        '<!DOCTYPE View SYSTEM "http://127.0.0.1:9/x.dtd">',
    ],
)
def test_entities_and_outside_documents_are_never_read(doctype: str) -> None:
    with pytest.raises(BadLabelConfig, match="DOCTYPE"):
        LabelTask.parse(f"{doctype}<View>{IMAGE}{CHOICES}&x;</View>")


def test_a_huge_configuration_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(BadLabelConfig, match="characters"):
        LabelTask.parse("<View>" + " " * MAX_CONFIG_CHARACTERS + "</View>")


# XML has no way to write control characters, surrogates and a few others.
_WRITABLE = st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\ufffe\uffff")
_LABELS = st.lists(st.text(_WRITABLE, min_size=1), min_size=2, max_size=8, unique=True)


@given(_LABELS)
def test_any_labels_survive_the_way_through_xml_and_back_from_an_answer(labels: list[str]) -> None:
    task = LabelTask.parse(image_config(labels))

    assert task.choices == tuple(labels)
    assert [task.label_of({"result": task.to_result(label)}) for label in labels] == labels


def test_an_answer_without_exactly_one_known_choice_is_no_label() -> None:
    task = LabelTask.parse(image_config(["cat", "dog"]))
    cat, dog = task.to_result("cat"), task.to_result("dog")
    gone = [{**cat[0], "value": {"choices": ["horse"]}}]
    both = [{**cat[0], "value": {"choices": ["cat", "dog"]}}]
    other = [{**cat[0], "from_name": "mood"}]

    answers: list[dict[str, Any]] = [{"result": cat, "was_cancelled": True}, {"result": []}, {"result": None}, {}]
    answers += [{"result": result} for result in (cat + dog, both, gone, other)]

    assert [task.label_of(answer) for answer in answers] == [None] * len(answers)


def test_several_answers_are_a_set_whatever_their_order_and_none_is_one_too() -> None:
    config = f"<View>{IMAGE}{CHOICES}</View>".replace("toName", 'choice="multiple" toName')
    task = LabelTask.parse(config)
    both = {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["dog", "cat"]}}

    said = [task.label_of({"result": result}) for result in ([both], [], None)]

    assert task.task is Task.MULTI_LABEL
    assert said == [set_label(["cat", "dog"]), "[]", "[]"]
    assert task.to_result(set_label(["dog", "cat"])) == [{**both, "value": {"choices": ["cat", "dog"]}}]
    assert task.to_result("[]") == []
    assert task.label_of({"result": [both], "was_cancelled": True}) is None
    assert task.label_of({"result": [{**both, "value": {"choices": ["cat", "horse"]}}]}) is None
    with pytest.raises(UnknownLabel, match="cat, dog"):
        task.to_result(set_label(["horse"]))


@given(_LABELS, st.data())
def test_any_set_survives_the_way_to_an_answer_and_back(labels: list[str], data: st.DataObject) -> None:
    task = LabelTask.parse(image_config(labels).replace('choice="single"', 'choice="multiple"', 1))
    chosen = data.draw(st.sets(st.sampled_from(labels)))

    label = task.label_of({"result": task.to_result(set_label(chosen))})

    assert label is not None
    assert set(names_in(label)) == chosen


@pytest.mark.parametrize(
    ("tag", "scale", "right", "wrong"),
    [
        ('<Rating name="a" toName="image" maxRating="4"/>', Scale(1, 4, 1), [1, 4], [0, 5, "3", True, None]),
        ('<Number name="a" toName="image" min="-1" max="2.5"/>', Scale(-1, 2.5), [-1, 0.125, 2.5], [3, [1], "x"]),
        ('<Number name="a" toName="image" step="any"/>', ANY, [1e300, -7, 0.1], [float("nan"), float("inf")]),
    ],
)
def test_a_number_is_read_where_it_can_be_given(tag: str, scale: Scale, right: list[Any], wrong: list[Any]) -> None:
    task = LabelTask.parse(f"<View>{IMAGE}{tag}</View>")
    kind = tag[1:7].lower()

    def label(value: Any) -> str | None:
        return task.label_of({"result": [{"from_name": "a", "to_name": "image", "type": kind, "value": {kind: value}}]})

    assert (task.task, task.answer, task.scale) == (Task.REGRESSION, kind, scale)
    labels = [label(value) for value in right]
    assert [task.to_result(one or "")[0]["value"] for one in labels] == [{kind: value} for value in right]
    assert [label(value) for value in wrong] == [None] * len(wrong)
    assert task.label_of({"result": []}) is None
    assert label(right[0]) == label(float(right[0]))


def test_a_label_that_is_no_choice_cannot_become_a_result() -> None:
    task = LabelTask.parse(image_config(["cat", "dog"]))

    with pytest.raises(UnknownLabel, match="cat, dog"):
        task.to_result("horse")


def test_the_hash_changes_with_the_choices_and_not_with_the_layout() -> None:
    config = f"<View>{IMAGE}{CHOICES}</View>"
    layout = config.replace("><", ">\n  <").replace('name="label" toName="image"', "toName='image' name='label'")

    assert config_hash(layout) == config_hash(config)
    assert config_hash(config.replace("dog", "fox")) != config_hash(config)
