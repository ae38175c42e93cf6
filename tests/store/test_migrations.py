"""The migrated schema is the one the code speaks of, on both dialects, however many start at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from sidecar.store.db import Store
from sidecar.store.migrate import SchemaTooNew, config, head_revision, revision, upgrade
from sidecar.store.tables import metadata


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return str(request.getfixturevalue("pg_url"))


def differences(conn: Connection) -> list[object]:
    context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": True})
    return compare_metadata(context, metadata)


def test_migrated_schema_is_the_tables(store: Store) -> None:
    with store.engine.connect() as conn:
        assert differences(conn) == []


def test_partial_indexes_are_migrated_with_their_condition(store: Store) -> None:
    """Alembic's comparison does not look at an index's WHERE."""
    wanted = {
        index.name: bool(index.dialect_options[dialect]["where"] is not None)
        for dialect in [store.engine.dialect.name]
        for table in metadata.tables.values()
        for index in table.indexes
    }
    with store.engine.connect() as conn:
        found = {
            index["name"]: bool(index.get("dialect_options", {}).get(f"{store.engine.dialect.name}_where") is not None)
            for table in metadata.tables
            for index in inspect(conn).get_indexes(table)
            if not index.get("duplicates_constraint")
        }
    assert found == wanted


def test_a_missing_column_is_seen(store: Store) -> None:
    with store.engine.begin() as conn:
        conn.execute(text("ALTER TABLE customers DROP COLUMN stripe_id"))
    with store.engine.connect() as conn:
        assert [d[0] for d in differences(conn)] == ["add_column"]  # type: ignore[index]


def test_the_newest_file_is_the_head_of_an_unbroken_line() -> None:
    """The start reads the files' names where Alembic would read the files."""
    scripts = ScriptDirectory.from_config(config())
    line = [script.revision for script in scripts.walk_revisions()]
    assert scripts.get_current_head() == line[0] == head_revision()
    assert line == sorted((Path(script.path).name.partition("_")[0] for script in scripts.walk_revisions()), reverse=True)


def test_upgrade_again_changes_nothing(store: Store) -> None:
    assert upgrade(store) == head_revision()
    assert store.read_sync(revision) == head_revision()


def test_four_processes_start_at_once(empty_url: str) -> None:
    stores = [Store(empty_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(upgrade, stores)) == {head_revision()}
    with stores[0].engine.connect() as conn:
        assert differences(conn) == []
    for store in stores:
        store.close()


def test_a_later_release_is_refused_in_words(store: Store) -> None:
    with store.engine.begin() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaTooNew, match="9999"):
        upgrade(store)


def test_a_cid_is_never_given_twice(store: Store) -> None:
    """Balances and idempotency are kept by cid: a deleted customer's must not return."""
    insert = text(
        "INSERT INTO customers (id, p, metadata, created_at) VALUES (:id, 0, '{}', 0) RETURNING cid"
    )
    with store.engine.begin() as conn:
        first = conn.execute(insert, {"id": "a"}).scalar_one()
        conn.execute(text("DELETE FROM customers"))
        assert conn.execute(insert, {"id": "a"}).scalar_one() > first
