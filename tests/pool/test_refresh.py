"""A listing against the catalogue: what did not change is not touched, what is gone is not picked, labels stay."""

import datetime as dt
from collections.abc import Iterable, Iterator

import pytest

from backend.database import Annotation, Item, Project, reading, transaction
from backend.errors import PoolEmptied
from backend.pool import catalog
from backend.pool.catalog import NewItem, item_key
from backend.pool.refresh import Refreshed, refresh
from tests.pool.conftest import Row, rows


def listing(**validators: str) -> list[NewItem]:
    return [NewItem(uri, validator=validator) for uri, validator in validators.items()]


def encode(pool_id: int, **hashes: str) -> None:
    with transaction() as session:
        ids = {uri: id_ for id_, uri in catalog.new_items(session, pool_id)}
        catalog.mark_encoded(session, {ids[uri]: hash_ for uri, hash_ in hashes.items()})


def label(pool_id: int, uri: str, given: str | None) -> None:
    moment = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)
    with transaction() as session:
        item = session.query(Item).filter_by(project_id=pool_id, uri=uri).one()
        session.add(
            Annotation(
                project_id=pool_id,
                item_id=item.id,
                external_id=item.id,
                label=given,
                created_at=moment,
                updated_at=moment,
            )
        )


def test_every_kind_of_change_is_seen_and_nothing_else_is_touched(pool_id: int) -> None:
    refresh(pool_id, listing(same="1", changed="1", gone="1", labelled="1", skipped="1"))
    encode(pool_id, same="s", changed="c", gone="g", labelled="l", skipped="k")
    label(pool_id, "labelled", "cat")
    label(pool_id, "skipped", None)

    seen = refresh(pool_id, listing(same="1", changed="2", added="1"))

    assert seen == Refreshed(added=1, changed=1, gone=2, back=0, unchanged=1)
    assert rows(pool_id) == {
        "same": Row("encoded", "s"),
        "changed": Row("new", None),
        "gone": Row("gone", "g"),
        "labelled": Row("encoded", "l"),
        "skipped": Row("gone", "k"),
        "added": Row("new", None),
    }


def test_a_second_look_changes_nothing(pool_id: int) -> None:
    found = listing(**{f"{number}.jpg": "1" for number in range(12)})
    refresh(pool_id, found)
    before = rows(pool_id)

    again = refresh(pool_id, found)

    assert again == Refreshed(added=0, changed=0, gone=0, back=0, unchanged=12)
    assert rows(pool_id) == before


def test_what_comes_back_is_what_it_was_unless_it_changed(pool_id: int) -> None:
    refresh(pool_id, listing(same="1", other="1", never="1"))
    encode(pool_id, same="s", other="o")
    refresh(pool_id, listing(meanwhile="1"))

    seen = refresh(pool_id, listing(same="1", other="2", never="1"))

    assert seen == Refreshed(added=0, changed=0, gone=1, back=3, unchanged=0)
    assert rows(pool_id) == {
        "same": Row("encoded", "s"),
        "other": Row("new", None),
        "never": Row("new", None),
        "meanwhile": Row("gone", None),
    }


def test_a_listing_that_breaks_off_takes_nothing_away(pool_id: int) -> None:
    refresh(pool_id, listing(a="1", b="1"))

    def breaks_off() -> Iterator[NewItem]:
        yield NewItem("c", validator="1")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        refresh(pool_id, breaks_off())

    assert all(row.state == "new" for row in rows(pool_id).values())


def test_a_pool_that_is_suddenly_empty_takes_nothing_away(pool_id: int) -> None:
    assert refresh(pool_id, []) == Refreshed(added=0, changed=0, gone=0, back=0, unchanged=0)
    refresh(pool_id, listing(a="1", b="1"))

    with pytest.raises(PoolEmptied, match="where 2 were"):
        refresh(pool_id, [])

    assert {row.state for row in rows(pool_id).values()} == {"new"}


def test_tasks_and_the_holdout_are_none_of_a_listing_s_business(pool_id: int) -> None:
    with transaction() as session:
        catalog.add_items(session, pool_id, [NewItem("task", task_id=7), NewItem("held", is_holdout=True)])

    refresh(pool_id, listing(held="1"))
    seen = refresh(pool_id, listing(held="1"))

    assert seen.unchanged == 1
    assert rows(pool_id) == {"task": Row("new", None), "held": Row("new", None, is_holdout=True)}


def test_what_was_encoded_before_it_was_first_listed_is_read_once_more(pool_id: int) -> None:
    with transaction() as session:
        catalog.add_items(session, pool_id, [NewItem("old")])
    encode(pool_id, old="h")

    assert refresh(pool_id, listing(old="1")).changed == 1
    assert rows(pool_id) == {"old": Row("new", None)}


def test_what_could_not_be_read_is_tried_again_when_it_changed(pool_id: int) -> None:
    refresh(pool_id, listing(same="1", mended="1"))
    with transaction() as session:
        catalog.mark_failed(session, {id_: "broken" for id_, _ in catalog.new_items(session, pool_id)})

    refresh(pool_id, listing(same="1", mended="2"))

    assert {uri: row.state for uri, row in rows(pool_id).items()} == {"same": "failed", "mended": "new"}


def test_what_changes_while_a_scan_reads_it_is_read_once_more(pool_id: int) -> None:
    refresh(pool_id, listing(a="1", b="1"))

    meanwhile = refresh(pool_id, listing(a="2", b="1"))
    encode(pool_id, a="what it was", b="b")
    after = refresh(pool_id, listing(a="2", b="1"))
    found = rows(pool_id)
    encode(pool_id, a="what it is")
    at_last = refresh(pool_id, listing(a="2", b="1"))

    assert (meanwhile.changed, after.changed, at_last.changed) == (0, 1, 0)
    assert found == {"a": Row("new", None), "b": Row("encoded", "b")}
    assert rows(pool_id)["a"] == Row("encoded", "what it is")


def test_an_item_listed_twice_is_one(pool_id: int) -> None:
    twice = [*listing(a="1", b="1"), *listing(a="1")]

    assert refresh(pool_id, twice).added == 2
    assert refresh(pool_id, twice, max_items=9).unchanged == 2
    assert len(rows(pool_id)) == 2


def test_only_new_leaves_what_is_known_to_the_round(pool_id: int) -> None:
    refresh(pool_id, listing(changed="1", gone="1"))
    encode(pool_id, changed="c", gone="g")

    seen = refresh(pool_id, listing(changed="2", added="1"), only_new=True)

    assert (seen.added, seen.changed, seen.gone) == (1, 0, 0)
    assert rows(pool_id)["changed"] == Row("encoded", "c")
    assert rows(pool_id)["gone"] == Row("encoded", "g")


def test_a_sample_is_uniform_stable_and_never_exceeded(pool_id: int) -> None:
    names = [f"{number}.jpg" for number in range(400)]

    def taken(found: Iterable[str], seed: int = 0) -> Refreshed:
        return refresh(pool_id, listing(**dict.fromkeys(found, "1")), max_items=100, seed=seed)

    first = taken(names)
    chosen = set(rows(pool_id))
    again = taken([*names, "401.jpg"], seed=5)

    assert (first.added, again.added, again.unchanged) == (100, 0, 100)
    assert set(rows(pool_id)) == chosen
    assert 30 <= sum(names.index(name) < 200 for name in chosen) <= 70


def test_a_sample_does_not_depend_on_the_order_of_the_listing(pool_id: int) -> None:
    with transaction() as session:
        other = Project(name="trees", config={"name": "trees"})
        session.add(other)
    found = listing(**{f"{number}.jpg": "1" for number in range(60)})

    refresh(pool_id, found, max_items=10, seed=3)
    refresh(other.id, found[::-1], max_items=10, seed=3)

    assert set(rows(pool_id)) == set(rows(other.id))


def test_task_ids_are_filled_in_and_nothing_is_added_twice(pool_id: int) -> None:
    with transaction() as session:
        assert catalog.add_items(session, pool_id, [NewItem("a"), NewItem("b", task_id=2), NewItem("a")]) == 2
    with transaction() as session:
        assert catalog.add_items(session, pool_id, [NewItem("a", task_id=1), NewItem("b"), NewItem("c")]) == 1

    with reading() as session:
        found = {item.key: item.task_id for item in session.query(Item).filter_by(project_id=pool_id)}
    assert found == {item_key("a"): 1, item_key("b"): 2, item_key("c"): None}


def test_tasks_are_assigned_by_key_and_only_in_their_project(pool_id: int) -> None:
    with transaction() as session:
        other = Project(name="trees", config={"name": "trees"})
        session.add(other)
        session.flush()
        catalog.add_items(session, other.id, [NewItem("a")])
        catalog.add_items(session, pool_id, [NewItem("a"), NewItem("b")])

        catalog.assign_tasks(session, pool_id, {item_key("a"): 5, item_key("unknown"): 6})

    with reading() as session:
        found = {(item.project_id, item.uri): item.task_id for item in session.query(Item)}
    assert found == {(other.id, "a"): None, (pool_id, "a"): 5, (pool_id, "b"): None}
