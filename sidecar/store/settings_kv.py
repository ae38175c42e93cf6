"""What all processes on one database share: partition count, catalog version, test-clock offset."""

from __future__ import annotations

import json

from sqlalchemy import BigInteger, Connection, String, cast, select, update

from . import dialects
from .tables import settings

PARTITION_COUNT = "partition_count"
CATALOG_VERSION = "catalog_version"
CLOCK_OFFSET_MS = "clock_offset_ms"
SYNC_STOPPED = "sync_stopped"


def get(conn: Connection, key: str) -> str | None:
    """The value of a setting, None if it was never put."""
    return conn.execute(select(settings.c.value).where(settings.c.key == key)).scalar_one_or_none()


def get_int(conn: Connection, key: str, default: int = 0) -> int:
    """The value of a whole-number setting."""
    value = get(conn, key)
    return default if value is None else int(value)


def put(conn: Connection, key: str, value: str | int) -> None:
    """Sets a setting."""
    conn.execute(dialects.upsert(conn, settings), {"key": key, "value": str(value)})


def put_if_absent(conn: Connection, key: str, value: str | int) -> str:
    """Sets a setting unless it has a value, and returns the value it has; of several at once one
    wins and all get the same answer."""
    statement = dialects.insert(conn, settings).on_conflict_do_nothing()
    conn.execute(statement, {"key": key, "value": str(value)})
    found = get(conn, key)
    assert found is not None
    return found


def add(conn: Connection, key: str, amount: int) -> int:
    """Adds to a whole-number setting (0 before) and returns the sum, atomically."""
    put_if_absent(conn, key, 0)
    changed = (
        update(settings)
        .where(settings.c.key == key)
        .values(value=cast(cast(settings.c.value, BigInteger) + amount, String))
        .returning(settings.c.value)
    )
    return int(conn.execute(changed).scalar_one())


def catalog_version(conn: Connection) -> int:
    """How often the catalog was changed; processes read it again when this moves."""
    return get_int(conn, CATALOG_VERSION)


def bump_catalog_version(conn: Connection) -> int:
    """Says that the catalog changed, in the transaction that changed it; the new version."""
    return add(conn, CATALOG_VERSION, 1)


def clock_offset_ms(conn: Connection) -> int:
    """How far the test clock is ahead of the machine's."""
    return get_int(conn, CLOCK_OFFSET_MS)


def move_clock(conn: Connection, offset_ms: int) -> int:
    """Sets the test clock's offset unless it would go back; the offset there is now. Forward
    only, also when two callers race."""
    put_if_absent(conn, CLOCK_OFFSET_MS, 0)
    conn.execute(
        update(settings)
        .where(settings.c.key == CLOCK_OFFSET_MS, cast(settings.c.value, BigInteger) < offset_ms)
        .values(value=str(offset_ms))
    )
    return clock_offset_ms(conn)


def sync_stopped(conn: Connection) -> dict[int, str]:
    """The partitions whose log cannot be carried into SQL, with the reason; a sync worker keeps
    this."""
    return {int(p): reason for p, reason in json.loads(get(conn, SYNC_STOPPED) or "{}").items()}
