"""What happened to features of a customer, newest first: log entries as events and ledger tell them."""

from __future__ import annotations

from typing import Collection, NamedTuple, Sequence

from sqlalchemy import Connection, select

from .events import Event, LedgerLine
from .tables import buckets, events, ledger

LINES_MAX = 5_000
"""Read for one history. An entry that moved a thousand shares has a thousand lines."""


class BucketLabel(NamedTuple):
    """What a bucket is, also one that is gone."""

    no: int
    feature_id: str
    plan_id: str
    interval: int
    interval_count: int
    next_reset_at: int


class Entry(NamedTuple):
    """One log entry: its events and what it did to each bucket, in order; of the features asked for."""

    p: int
    gen: int
    seq: int
    at: int
    events: tuple[Event, ...]
    lines: tuple[LedgerLine, ...]


def newest(conn: Connection, cid: int, feature_ids: Collection[str], entity_id: str, limit: int) -> list[Entry]:
    """The newest entries that fed or moved one of these features, at most `limit`. With an entity:
    without what only another entity had."""
    e, x = events.c, ledger.c
    whose = ("", entity_id)
    fed = select(events).where(e.cid == cid, e.feature_id.in_(feature_ids))
    moved = select(ledger).where(x.cid == cid, x.feature_id.in_(feature_ids))
    if entity_id:
        moved = moved.where(x.entity_id.in_(whose))
    by_entry: dict[tuple[int, int, int], tuple[list[Event], list[LedgerLine]]] = {}
    at: dict[tuple[int, int, int], int] = {}
    rows = conn.execute(moved.order_by(x.at.desc(), x.gen.desc(), x.seq.desc(), x.line).limit(LINES_MAX)).all()
    if len(rows) == LINES_MAX:  # of the last entry there may be more
        last = rows[-1]
        rows = [row for row in rows if (row.gen, row.seq) != (last.gen, last.seq)] or rows
    for row in rows:
        key = row.p, row.gen, row.seq
        by_entry.setdefault(key, ([], []))[1].append(LedgerLine(**row._mapping))
        at[key] = row.at
    for row in conn.execute(fed.order_by(e.recorded_at.desc(), e.gen.desc(), e.seq.desc(), e.line).limit(LINES_MAX)):
        key = row.p, row.gen, row.seq
        if key in by_entry or not entity_id or row.entity_id in whose:
            by_entry.setdefault(key, ([], []))[0].append(Event(**row._mapping))
            at.setdefault(key, row.recorded_at)
    found = sorted(by_entry, key=lambda key: (key[1], key[2]), reverse=True)[:limit]
    return [Entry(*key, at[key], tuple(by_entry[key][0]), tuple(by_entry[key][1])) for key in found]


def labels(conn: Connection, cid: int, numbers: Sequence[int]) -> dict[int, BucketLabel]:
    """What a customer's buckets of these numbers are or were."""
    columns = [buckets.c[name] for name in BucketLabel._fields]
    query = select(*columns).where(buckets.c.cid == cid, buckets.c.no.in_(numbers))
    return {row.no: BucketLabel(*row) for row in conn.execute(query)}
