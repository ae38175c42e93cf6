"""Keeps the hot state of long lives small: decides which buckets leave it.

Of a feature's used-up buckets all but the newest few are archived: they count on as a sum, and come
back when a refund needs them. What has expired is dropped. Both are steps like any other: decided
here in SQL under the customer's row lock, carried out by the script, which looks at the live
balances itself. SQL's may be behind; then a later pass decides again.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, NamedTuple, Sequence

from sqlalchemy import Connection

from sidecar.store import buckets, customers, outbox

DRAINED_KEPT = 4
"""Used-up buckets of a feature that stay in the hot state: the newest."""
ROWS_PER_PASS = 5000
CUSTOMERS_PER_PASS = 200
NUMBERS_PER_STEP = 250
"""Bounds the script that carries a step out."""
EXPIRED_PER_PASS = 500

Op = list[Any]


class Page(NamedTuple):
    """What one look found: operations by customer, and the customer to go on after (0: from the
    start again)."""

    ops: dict[int, list[Op]]
    after_cid: int


def used_up(conn: Connection, after_cid: int) -> Page:
    """Archivings for the next customers after one."""
    rows = buckets.lasting(conn, after_cid, ROWS_PER_PASS)
    complete = len(rows) < ROWS_PER_PASS
    if not complete and rows[0].cid != rows[-1].cid:
        rows = [row for row in rows if row.cid != rows[-1].cid]  # of whom there may be more
    found: dict[int, list[Op]] = {}
    last = 0
    for cid, theirs in groupby(rows, key=lambda row: row.cid):
        if ops := _archivings(list(theirs)):
            found[cid] = ops
        last = cid
        if len(found) == CUSTOMERS_PER_PASS:
            return Page(found, last)
    return Page(found, 0 if complete else last)


def _archivings(rows: Sequence[buckets.Lasting]) -> list[Op]:
    by_place: dict[tuple[str, str], list[buckets.Lasting]] = {}
    for row in rows:
        if row.drained:
            by_place.setdefault((row.feature_id, row.entity_id), []).append(row)
    ops: list[Op] = []
    room = NUMBERS_PER_STEP
    for (feature_id, entity_id), drained in sorted(by_place.items()):
        oldest_first = sorted(drained, key=lambda row: (row.created_at, row.no))
        numbers = [row.no for row in oldest_first[:-DRAINED_KEPT]][:room]
        if numbers:
            ops.append(["archive", feature_id, entity_id, numbers])
            room -= len(numbers)
    return ops


def expired(conn: Connection, now_ms: int) -> dict[int, list[Op]]:
    """Drops of what has ended, by customer."""
    found: dict[int, list[Op]] = {}
    for row in buckets.expired(conn, now_ms, EXPIRED_PER_PASS):
        found.setdefault(row.cid, []).append(["drop", row.feature_id, row.no, row.entity_id, 0, 1])
    return found


def decide(conn: Connection, cid: int, ops: list[Op], now_ms: int) -> str | None:
    """Writes the step; the customer's name. None, and nothing is written, for one that is gone or
    has steps under way: what was read of it may be of before them."""
    customer = customers.lock(conn, cid)
    if customer is None or customer.deleted_at is not None or customer.structure_version != customer.applied_version:
        return None
    outbox.append(conn, cid, customers.take_version(conn, cid).version, ops, now_ms)
    return customer.id
