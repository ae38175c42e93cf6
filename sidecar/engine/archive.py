"""Bringing buckets back that left the hot state when they were used up: a refund may refill them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Collection

from sqlalchemy import Connection, select

from ..domain.layout import Row
from ..store import customers, outbox
from ..store.customers import BUCKET_COLUMNS
from ..store.tables import buckets

if TYPE_CHECKING:
    from .engine import Engine

WAIT_S = 0.05
"""Between two looks, while SQL does not know yet which buckets left."""


async def restore(engine: Engine, customer_id: str, feature_ids: Collection[str], attempt: int) -> None:
    """Puts the archived buckets of these features back into Redis, by a step; waits a little first
    where an earlier attempt did not find them all in SQL. Raises the stores' errors."""
    if attempt:
        await asyncio.sleep(WAIT_S * attempt)
    now_ms = await engine.now_ms()
    if await engine.store.write(_write_steps, customer_id, tuple(feature_ids), now_ms):
        await engine.project(customer_id)


def _write_steps(conn: Connection, customer_id: str, feature_ids: tuple[str, ...], now_ms: int) -> bool:
    customer = customers.by_id(conn, customer_id)
    if customer is None:
        return False
    found = conn.execute(
        select(buckets.c.feature_id, *BUCKET_COLUMNS)
        .where(
            buckets.c.cid == customer.cid, buckets.c.feature_id.in_(feature_ids), buckets.c.archived.is_(True),
            buckets.c.removed_at.is_(None),
        )
        .order_by(buckets.c.no)
    ).all()
    if not found:
        return False
    ops = [
        ["restore", feature_id, [list(Row(*row[1:])) for row in found if row[0] == feature_id]]
        for feature_id in sorted({row[0] for row in found})
    ]
    version, _ = customers.take_version(conn, customer.cid)
    outbox.append(conn, customer.cid, version, ops, now_ms)
    return True
