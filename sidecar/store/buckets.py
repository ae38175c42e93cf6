"""Buckets across customers: whose reset is due."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, select, tuple_

from .tables import buckets, customers


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
            buckets.c.removed_at.is_(None), buckets.c.next_reset_at > 0,
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
