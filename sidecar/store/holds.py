"""Holds: what is reserved under a lock's name, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, literal_column, select

from .tables import customers, holds

OPEN = "open"
STILL_OPEN = holds.c.status == literal_column("'open'")
"""Written out: for a parameter SQLite does not see that a partial index will do."""


@dataclass(frozen=True)
class Hold:
    """A hold by the log entry that made it. `status`: open, confirmed, released or expired; `final`
    is what it came to, scaled. `receipt` is packed as scripts read it."""

    p: int
    gen: int
    seq: int
    cid: int
    lock_id: str
    made_at: int
    expires_at: int
    status: str
    final: int | None
    settled_at: int | None
    receipt: bytes


class Due(NamedTuple):
    """An open hold past its end."""

    customer_id: str
    lock_id: str


def by_lock(conn: Connection, lock_id: str) -> Hold | None:
    """The newest hold of that name, whoever's it is; a name may be used again once settled."""
    query = select(holds).where(holds.c.lock_id == lock_id)
    newest = query.order_by(holds.c.made_at.desc(), holds.c.gen.desc(), holds.c.seq.desc()).limit(1)
    row = conn.execute(newest).one_or_none()
    return None if row is None else Hold(**row._mapping)


def open_of(conn: Connection, cid: int) -> list[Hold]:
    """A customer's open holds, oldest first."""
    query = select(holds).where(holds.c.cid == cid, STILL_OPEN)
    return [Hold(**row._mapping) for row in conn.execute(query.order_by(holds.c.gen, holds.c.seq))]


def due(conn: Connection, now_ms: int, limit: int = 500) -> list[Due]:
    """Open holds of live customers that have ended, longest ago first."""
    query = (
        select(customers.c.id, holds.c.lock_id)
        .join(customers, customers.c.cid == holds.c.cid)
        .where(STILL_OPEN, holds.c.expires_at <= now_ms, customers.c.deleted_at.is_(None))
        .order_by(holds.c.expires_at)
        .limit(limit)
    )
    return [Due(*row) for row in conn.execute(query)]
