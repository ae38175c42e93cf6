"""Brings a database to this release's schema. The revisions are inside the package.

Any number of processes may start at once: one migrates, the others wait and find nothing to do. Whether
there is anything to do is seen without Alembic, which takes longer to load than the rest of the look.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from .db import Store

if TYPE_CHECKING:
    from alembic.config import Config

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
    return _revisions()[-1]


def revision(conn: Connection) -> str | None:
    """The revision a database is at; None for an empty one."""
    if not inspect(conn).has_table("alembic_version"):
        return None
    found: str | None = conn.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _revisions() -> list[str]:
    """All of this release, in order: a revision's file begins with its name, `0002_whole_engine.py`."""
    return sorted(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def config(conn: Connection | None = None) -> Config:
    """Alembic's configuration, without a file."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = conn
    return made


def _upgrade(conn: Connection, head: str) -> None:
    if conn.dialect.name == "postgresql":  # on SQLite the transaction itself is the lock
        conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
    current = revision(conn)
    if current is not None and current not in _revisions():
        raise SchemaTooNew(f"the database is at schema revision {current}, this release knows up to {head}")
    if current != head:
        from alembic import command

        command.upgrade(config(conn), "head")
