"""A listing against the catalogue: what did not change is not touched, what is gone is not picked, labels stay."""

import datetime as dt
from collections.abc import Iterable, Iterator

import pytest

from backend.database import Annotation, Item, Project, reading, transaction
from backend.pool import catalog
from backend.pool.catalog import NewItem, item_key
from backend.pool.refresh import Refreshed, refresh
from tests.pool.conftest import Row, rows


def listing(**validators: str) -> list[NewItem]:
    return [NewItem(uri, validator=validator) for uri, validator in validators.items()]


def encode(project_id: int, **hashes: str) -> None:
    with transaction() as session:
        ids = {uri: id_ for id_, uri in catalog.new_items(session, project_id)}
        catalog.mark_encoded(session, {ids[uri]: hash_ for uri, hash_ in hashes.items()})


def label(project_id: int, uri: str, given: str | None) -> None:
    moment = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
    with transaction() as session:
        item = session.query(Item).filter_by(project_id=project_id, uri=uri).one()
        session.add(
            Annotation(
                project_id=project_id,
                item_id=item.id,
                external_id=item.id,
                label=given,
                created_at=moment,
                updated_at=moment,
            )
        )


def test_every_kind_of_change_is_seen_and_nothing_else_is_touched(project_id: int) -> None:
    refresh(project_id, listing(same="1", changed="1", gone="1", labelled="1", skipped="1"))
    encode(project_id, same="s", changed="c", gone="g", labelled="l", skipped="k")
    label(project_id, "labelled", "cat")
    label(project_id, "skipped", None)

    seen = refresh(project_id, listing(same="1", changed="2", added="1"))

    assert seen == Refreshed(added=1, changed=1, gone=2, back=0, unchanged=1)
    assert rows(project_id) == {
        "same": Row("encoded", "s"),
        "changed": Row("new", None),
        "gone": Row("gone", "g"),
        "labelled": Row("encoded", "l"),
        "skipped": Row("gone", "k"),
        "added": Row("new", None),
    }


def test_a_second_look_changes_nothing(project_id: int) -> None:
    found = listing(**{f"{number}.jpg": "1" for number in range(12)})
    refresh(project_id, found)
    before = rows(project_id)

    again = refresh(project_id, found)

    assert again == Refreshed(added=0, changed=0, gone=0, back=0, unchanged=12)
    assert rows(project_id) == before


def test_what_comes_back_is_what_it_was_unless_it_changed(project_id: int) -> None:
    refresh(project_id, listing(same="1", other="1", never="1"))
    encode(project_id, same="s", other="o")
    refresh(project_id, [])

    seen = refresh(project_id, listing(same="1", other="2", never="1"))

    assert seen == Refreshed(added=0, changed=0, gone=0, back=3, unchanged=0)
    assert rows(project_id) == {"same": Row("encoded", "s"), "other": Row("new", None), "never": Row("new", None)}


def test_a_listing_that_breaks_off_takes_nothing_away(project_id: int) -> None:
    refresh(project_id, listing(a="1", b="1"))

    def breaks_off() -> Iterator[NewItem]:
        yield NewItem("c", validator="1")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        refresh(project_id, breaks_off())

    assert all(row.state == "new" for row in rows(project_id).values())


def test_tasks_and_the_holdout_are_none_of_a_listing_s_business(project_id: int) -> None:
    with transaction() as session:
        catalog.add_items(session, project_id, [NewItem("task", task_id=7), NewItem("held", is_holdout=True)])

    refresh(project_id, listing(held="1"))
    seen = refresh(project_id, listing(held="1"))

    assert seen.unchanged == 1
    assert rows(project_id) == {"task": Row("new", None), "held": Row("new", None, is_holdout=True)}


def test_what_was_encoded_before_it_was_first_listed_is_read_once_more(project_id: int) -> None:
    with transaction() as session:
        catalog.add_items(session, project_id, [NewItem("old")])
    encode(project_id, old="h")

    assert refresh(project_id, listing(old="1")).changed == 1
    assert rows(project_id) == {"old": Row("new", None)}


def test_what_could_not_be_read_is_tried_again_when_it_changed(project_id: int) -> None:
    refresh(project_id, listing(same="1", mended="1"))
    with transaction() as session:
        catalog.mark_failed(session, {id_: "broken" for id_, _ in catalog.new_items(session, project_id)})

    refresh(project_id, listing(same="1", mended="2"))

    assert {uri: row.state for uri, row in rows(project_id).items()} == {"same": "failed", "mended": "new"}


def test_an_item_listed_twice_is_one(project_id: int) -> None:
    twice = [*listing(a="1", b="1"), *listing(a="1")]

    assert refresh(project_id, twice).added == 2
    assert refresh(project_id, twice, max_items=9).unchanged == 2
    assert len(rows(project_id)) == 2


def test_only_new_leaves_what_is_known_to_the_round(project_id: int) -> None:
    refresh(project_id, listing(changed="1", gone="1"))
    encode(project_id, changed="c", gone="g")

    seen = refresh(project_id, listing(changed="2", added="1"), only_new=True)

    assert (seen.added, seen.changed, seen.gone) == (1, 0, 0)
    assert rows(project_id)["changed"] == Row("encoded", "c")
    assert rows(project_id)["gone"] == Row("encoded", "g")


def test_a_sample_is_uniform_stable_and_never_exceeded(project_id: int) -> None:
    names = [f"{number}.jpg" for number in range(400)]

    def taken(found: Iterable[str], seed: int = 0) -> Refreshed:
        return refresh(project_id, listing(**dict.fromkeys(found, "1")), max_items=100, seed=seed)

    first = taken(names)
    chosen = set(rows(project_id))
    again = taken([*names, "401.jpg"], seed=5)

    assert (first.added, again.added, again.unchanged) == (100, 0, 100)
    assert set(rows(project_id)) == chosen
    assert 30 <= sum(names.index(name) < 200 for name in chosen) <= 70


def test_a_sample_does_not_depend_on_the_order_of_the_listing(project_id: int) -> None:
    with transaction() as session:
        other = Project(name="trees", config={"name": "trees"})
        session.add(other)
    found = listing(**{f"{number}.jpg": "1" for number in range(60)})

    refresh(project_id, found, max_items=10, seed=3)
    refresh(other.id, found[::-1], max_items=10, seed=3)

    assert set(rows(project_id)) == set(rows(other.id))


def test_task_ids_are_filled_in_and_nothing_is_added_twice(project_id: int) -> None:
    with transaction() as session:
        assert catalog.add_items(session, project_id, [NewItem("a"), NewItem("b", task_id=2), NewItem("a")]) == 2
    with transaction() as session:
        assert catalog.add_items(session, project_id, [NewItem("a", task_id=1), NewItem("b"), NewItem("c")]) == 1

    with reading() as session:
        found = {item.key: item.task_id for item in session.query(Item).filter_by(project_id=project_id)}
    assert found == {item_key("a"): 1, item_key("b"): 2, item_key("c"): None}


def test_tasks_are_assigned_by_key_and_only_in_their_project(project_id: int) -> None:
    with transaction() as session:
        other = Project(name="trees", config={"name": "trees"})
        session.add(other)
        session.flush()
        catalog.add_items(session, other.id, [NewItem("a")])
        catalog.add_items(session, project_id, [NewItem("a"), NewItem("b")])

        catalog.assign_tasks(session, project_id, {item_key("a"): 5, item_key("unknown"): 6})

    with reading() as session:
        found = {(item.project_id, item.uri): item.task_id for item in session.query(Item)}
    assert found == {(other.id, "a"): None, (project_id, "a"): 5, (project_id, "b"): None}
