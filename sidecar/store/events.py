"""Usage events as recorded: one row per feature that an event fed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, tuple_

from .tables import events, ledger

NO_PARTS = b"\x90"  # an empty array
EVENT_ID = re.compile(r"evt_(0|[1-9][0-9]{0,8})_([1-9][0-9]{0,17})_(0|[1-9][0-9]{0,17})")


class EntryId(NamedTuple):
    """The place of a log entry: partition, generation, sequence number."""

    p: int
    gen: int
    seq: int


@dataclass(frozen=True)
class Event:
    """One feature's line of an event. `value` is as it was sent; `requested` and `applied` are
    scaled by the feature's precision."""

    p: int
    gen: int
    seq: int
    line: int
    cid: int
    customer_id: str
    entity_id: str
    feature_id: str
    event_name: str | None
    value: str
    requested: int
    applied: int
    timestamp: int
    recorded_at: int
    properties: Any
    idempotency_key: str | None
    parts: bytes | None = None
    """What each bucket paid, in order, packed as scripts read it."""
    refund_of: str | None = None
    """The public id of the event that this one gives back."""

    @property
    def id(self) -> str:
        """The public id of the event, the same for all its lines."""
        return event_id(self.p, self.gen, self.seq)


def event_id(p: int, gen: int, seq: int) -> str:
    """The public id of the event that a log entry recorded."""
    return f"evt_{p}_{gen}_{seq}"


def parse_event_id(text: str) -> EntryId | None:
    """The log entry behind a public event id; None if it cannot be one."""
    found = EVENT_ID.fullmatch(text)
    return EntryId(*(int(part) for part in found.groups())) if found else None


def by_customer(
    conn: Connection, cid: int, limit: int, *, before: tuple[int, EntryId] | None = None,
    feature_id: str | None = None, entity_id: str | None = None,
) -> list[Event]:
    """A customer's event lines, newest first; `before` is (recorded_at, entry id) of the last
    line of the page before."""
    query = select(events).where(events.c.cid == cid)
    if feature_id is not None:
        query = query.where(events.c.feature_id == feature_id)
    if entity_id is not None:
        query = query.where(events.c.entity_id == entity_id)
    if before is not None:
        place = tuple_(events.c.recorded_at, events.c.p, events.c.gen, events.c.seq)
        query = query.where(place < tuple_(before[0], *before[1]))
    query = query.order_by(
        events.c.recorded_at.desc(), events.c.p.desc(), events.c.gen.desc(), events.c.seq.desc(),
        events.c.line,
    )
    return [Event(**row._mapping) for row in conn.execute(query.limit(limit))]


def by_event_id(conn: Connection, entry: EntryId) -> list[Event]:
    """The lines of one event, in order; empty if SQL does not have it (yet)."""
    query = select(events).where(events.c.p == entry.p, events.c.gen == entry.gen, events.c.seq == entry.seq)
    return [Event(**row._mapping) for row in conn.execute(query.order_by(events.c.line))]


class ReceiptLine(NamedTuple):
    """What one feature of an event took: scaled; `parts` as `Event.parts`."""

    feature_id: str
    requested: int
    applied: int
    parts: bytes


class Receipt(NamedTuple):
    """An event as far as giving it back needs it."""

    entity_id: str
    refund_of: str | None
    lines: tuple[ReceiptLine, ...]


def receipt(conn: Connection, cid: int, entry: EntryId) -> Receipt | None:
    """The receipt of a customer's event; None if SQL has no such event of that customer (yet)."""
    e = events.c
    query = select(e.entity_id, e.refund_of, e.feature_id, e.requested, e.applied, e.parts).where(
        e.p == entry.p, e.gen == entry.gen, e.seq == entry.seq, e.cid == cid
    )
    rows = conn.execute(query.order_by(e.line)).all()
    if not rows:
        return None
    lines = tuple(
        ReceiptLine(row.feature_id, row.requested, row.applied, bytes(row.parts or NO_PARTS)) for row in rows
    )
    return Receipt(rows[0].entity_id, rows[0].refund_of, lines)


def by_key(conn: Connection, cid: int, idempotency_key: str) -> EntryId | None:
    """A customer's newest event that was sent with that idempotency key."""
    e = events.c
    query = select(e.p, e.gen, e.seq).where(e.cid == cid, e.idempotency_key == idempotency_key)
    row = conn.execute(query.order_by(e.gen.desc(), e.seq.desc()).limit(1)).one_or_none()
    return None if row is None else EntryId(*row)


class LedgerLine(NamedTuple):
    """What one log entry did to one bucket: a row, in the order of its columns. `kind`: use, reset,
    rollover, grant, set, entity, remove, credit, or step (a change of structure that moved no bucket;
    `no` is 0). Reset and remove lines may carry what the period owes: `over_units` scaled, `units`, `price`,
    `billing_units`, `amount` as decimal text; a credit line takes back from it, below zero."""

    p: int
    gen: int
    seq: int
    line: int
    cid: int
    no: int
    feature_id: str | None
    entity_id: str
    kind: str
    delta: int
    over_units: int
    units: str | None
    price: str | None
    billing_units: str | None
    amount: str | None
    period_end: int | None
    at: int


def ledger_of(conn: Connection, cid: int, no: int | None = None) -> list[LedgerLine]:
    """A customer's ledger in the order of the log, of one bucket if `no` is given."""
    query = select(ledger).where(ledger.c.cid == cid)
    if no is not None:
        query = query.where(ledger.c.no == no)
    query = query.order_by(ledger.c.gen, ledger.c.seq, ledger.c.line)
    return [LedgerLine(**row._mapping) for row in conn.execute(query)]
