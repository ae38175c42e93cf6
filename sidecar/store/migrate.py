"""Brings a database to this release's schema. The revisions are inside the package.

Any number of processes may start at once: one migrates, the others wait and find nothing to do.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from .db import Store

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_KEY = 0x5_1DE_CA2  # PostgreSQL advisory lock, of this schema's migrations alone


class SchemaTooNew(RuntimeError):
    """The database was migrated by a later release than this one."""


def upgrade(store: Store) -> str:
    """Brings the schema to the newest revision, in one transaction, and returns that revision.

    Does nothing on a database that has it. Raises SchemaTooNew if the database is at a revision
    that this release does not know."""
    head = head_revision()
    current = store.read_sync(revision)
    if current != head:
        store.write_sync(_upgrade, head)
    return head


def head_revision() -> str:
    """The newest revision of this release."""
    head = ScriptDirectory.from_config(config()).get_current_head()
    assert head is not None, "no revisions in the package"
    return head


def revision(conn: Connection) -> str | None:
    """The revision a database is at; None for an empty one."""
    return MigrationContext.configure(conn).get_current_revision()


def config(conn: Connection | None = None) -> Config:
    """Alembic's configuration, without a file."""
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = conn
    return made


def _upgrade(conn: Connection, head: str) -> None:
    if conn.dialect.name == "postgresql":  # on SQLite the transaction itself is the lock
        conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
    current = revision(conn)
    known = {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}
    if current is not None and current not in known:
        raise SchemaTooNew(f"the database is at schema revision {current}, this release knows up to {head}")
    if current != head:
        command.upgrade(config(conn), "head")
