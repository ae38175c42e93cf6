"""The few statements that SQLite and PostgreSQL spell alike but SQLAlchemy keeps per dialect."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert(conn: Connection, table: Table) -> Any:
    """An INSERT of this connection's dialect, which has `on_conflict_do_nothing/_update`."""
    return (sqlite if conn.dialect.name == "sqlite" else postgresql).insert(table)


def upsert(conn: Connection, table: Table) -> Any:
    """An INSERT that replaces every other column of a row with the same primary key."""
    statement = insert(conn, table)
    keys = [column.name for column in table.primary_key.columns]
    others = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=others)
