"""SQL against itself: every bucket is the sum of its ledger, and no entry was set aside."""

from __future__ import annotations

from collections import defaultdict

from sqlalchemy import Connection, func, literal_column, select

from sidecar.domain import layout
from sidecar.engine import keys
from sidecar.store import tables

from .compare import Difference

CUSTOMERS_PER_LOOK = 500
SET_ASIDE_MAX = 10_000


def compare_ledger(conn: Connection, after: int) -> tuple[list[int], list[Difference]]:
    """The next customers after an internal id, and their buckets that are not the sum of their
    ledger; nobody after the last."""
    c, b, x = tables.customers.c, tables.buckets.c, tables.ledger.c
    names = {
        cid: name for cid, name in conn.execute(select(c.cid, c.id).where(c.cid > after).order_by(c.cid).limit(CUSTOMERS_PER_LOOK))
    }
    if not names:
        return [], []
    # In two parts: the sum of an unlimited bucket may pass what SQLite adds up.
    sums = select(
        x.cid, x.no, func.sum(x.delta.op(">>")(literal_column("26"))), func.sum(x.delta.op("&")((1 << 26) - 1))
    ).where(x.cid.in_(names), x.no > 0).group_by(x.cid, x.no)
    total: dict[tuple[int, int], int] = defaultdict(int)
    for cid, no, high, low in conn.execute(sums):
        total[cid, no] = int(high) * (1 << 26) + int(low)
    rows: dict[tuple[int, int], int] = {}
    for cid, no, balance, granted, flags in conn.execute(
        select(b.cid, b.no, b.balance, b.granted, b.flags).where(b.cid.in_(names))
    ):
        rows[cid, no] = balance - (granted * layout.USED_HIGH_UNIT if flags & layout.UNLIMITED else 0)
    differences = [
        Difference(names[key[0]], "ledger", key[1], "balance", f"its ledger: {total.get(key, 0)}", rows.get(key, 0))
        for key in sorted(total.keys() | rows.keys())
        if total.get(key, 0) != rows.get(key, 0)
    ]
    return list(names), differences


def set_aside(conn: Connection) -> list[Difference]:
    """The entries that could not be applied."""
    r = tables.sync_rejected.c
    rows = conn.execute(select(r.p, r.gen, r.seq, r.error).order_by(r.p, r.gen, r.seq).limit(SET_ASIDE_MAX))
    return [Difference("", "rejected", 0, keys.event_id(p, gen, seq), "in the log", error) for p, gen, seq, error in rows]
