"""Migrations and tables agree on both databases, and moments keep their zone."""

import datetime as dt

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from backend.database import Event, Project, Table, engine, reading, transaction
from backend.migrations import upgrade

pytestmark = pytest.mark.usefixtures("store")


def is_ours(_object: object, name: str | None, kind: str, _reflected: bool, _compare_to: object) -> bool:
    return not (kind == "table" and name not in Table.metadata.tables)


def test_the_migrations_make_exactly_the_tables_of_the_code() -> None:
    with engine().connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_ours, "compare_type": True})

        assert compare_metadata(context, Table.metadata) == []


def test_migrating_twice_changes_nothing() -> None:
    upgrade(engine())
    upgrade(engine())


def test_a_moment_comes_back_in_utc() -> None:
    moment = dt.datetime(2026, 5, 1, 12, 30, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    with transaction() as session:
        project = Project(name="birds", config={"name": "birds"})
        session.add(project)
        session.flush()
        event = Event(project_id=project.id, action="PROJECT_UPDATED", received_at=moment)
        session.add(event)

    with reading() as session:
        received = session.get_one(Event, event.id).received_at

    assert received == moment
    assert received.utcoffset() == dt.timedelta(0)
