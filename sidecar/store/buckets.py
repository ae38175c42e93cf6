"""Buckets across customers: whose reset is due, which have ended, which may leave the hot state."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, literal_column, select, text, tuple_

from ..domain import layout
from .tables import LASTING, buckets, customers

NONE = literal_column("0")
"""No time. Written out: for a parameter SQLite does not see that a partial index will do."""


class Due(NamedTuple):
    """A bucket whose period has ended. The triple (next_reset_at, cid, no) orders them."""

    next_reset_at: int
    cid: int
    no: int
    customer_id: str


def due(conn: Connection, now_ms: int, after: Due | None = None, limit: int = 500) -> list[Due]:
    """Buckets of live customers whose reset is due, longest overdue first, after a place."""
    query = (
        select(buckets.c.next_reset_at, buckets.c.cid, buckets.c.no, customers.c.id)
        .join(customers, customers.c.cid == buckets.c.cid)
        .where(
            buckets.c.removed_at.is_(None), buckets.c.next_reset_at > NONE,
            buckets.c.next_reset_at <= now_ms, customers.c.deleted_at.is_(None),
            (buckets.c.expires_at == 0) | (buckets.c.expires_at > now_ms),
        )
        .order_by(buckets.c.next_reset_at, buckets.c.cid, buckets.c.no)
        .limit(limit)
    )
    if after is not None:
        place = tuple_(buckets.c.next_reset_at, buckets.c.cid, buckets.c.no)
        query = query.where(place > tuple_(*after[:3]))
    return [Due(*row) for row in conn.execute(query)]


class Lasting(NamedTuple):
    """A bucket that neither resets nor expires, is in the hot state, and holds a plain amount;
    `drained` when nothing is left and no open hold has any of it."""

    cid: int
    no: int
    feature_id: str
    entity_id: str
    created_at: int
    drained: bool


def lasting(conn: Connection, after_cid: int, limit: int) -> list[Lasting]:
    """Such buckets of the customers after one, by customer and number. Reads `limit` rows of an
    index, however many are drained."""
    b = buckets.c
    query = (
        select(b.cid, b.no, b.feature_id, b.entity_id, b.created_at, (b.balance == 0) & (b.held == 0))
        .where(text(LASTING), b.cid > after_cid)
        .order_by(b.cid, b.no)
        .limit(limit)
    )
    return [Lasting(*row[:-1], bool(row[-1])) for row in conn.execute(query)]


class Expired(NamedTuple):
    """A bucket past its end that is still there."""

    cid: int
    no: int
    feature_id: str
    entity_id: str


def expired(conn: Connection, now_ms: int, limit: int) -> list[Expired]:
    """Buckets of the hot state past their end, longest ago first; rollovers apart, which their
    bucket's reset takes out."""
    b = buckets.c
    query = (
        select(b.cid, b.no, b.feature_id, b.entity_id)
        .where(
            b.removed_at.is_(None), b.archived.is_(False), b.expires_at > NONE, b.expires_at <= now_ms,
            b.flags.bitwise_and(layout.ROLLOVER) == 0,
        )
        .order_by(b.expires_at, b.cid, b.no)
        .limit(limit)
    )
    return [Expired(*row) for row in conn.execute(query)]
