"""Migrations and tables agree on both databases, and moments keep their zone."""

import datetime as dt

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from backend.database import Event, Item, Project, Table, engine, reading, transaction
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


def test_items_of_the_first_tables_outlive_the_migrations() -> None:
    with engine().begin() as connection:
        for table in reversed(Table.metadata.sorted_tables):
            connection.execute(sa.schema.DropTable(table))
        connection.execute(sa.text("DELETE FROM alembic_version"))
    upgrade(engine(), "0001")
    with engine().begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO projects (id, name, config, config_version, label_config, created_at)"
                " VALUES (1, 'birds', '{}', 1, '', '2026-05-01')"
            )
        )
        connection.execute(
            sa.text(
                "INSERT INTO items (id, project_id, key, uri, is_holdout, state, data, created_at)"
                " VALUES (1, 1, 'k', 's3://a/b.jpg', false, 'encoded', '{}', '2026-05-01')"
            )
        )

    upgrade(engine())

    with reading() as session:
        item = session.get_one(Item, 1)
    assert (item.uri, item.state, item.validator) == ("s3://a/b.jpg", "encoded", None)


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
