"""Finding the event that is to be given back: what each bucket paid is in its log entry, and in SQL
once that has left Redis. A refund itself is an ordinary call of the script (spend.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

import msgpack
from sqlalchemy import Connection as SqlConnection

from ..domain import receipt
from ..store import customers, events, holds
from . import keys
from .call import Refunded
from .spend import CustomerMissing

if TYPE_CHECKING:
    from .engine import Engine

RECORD_FORMAT, USE = 2, 1
RESET_WIDTH = 7
SYSTEM_MARK, SLOT_MARK = -1, -2


class EventMissing(Exception):
    """The customer has no such event."""


class NotRefundable(Exception):
    """The event cannot be given back; the message says why."""


class Line(NamedTuple):
    """What one feature of an event took, scaled, and what each bucket paid (sync/records.py)."""

    feature_id: str
    applied: int
    parts: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Event:
    """An event as far as giving it back needs it. `lock_id` is the hold that it may be."""

    cid: int
    gen: int
    seq: int
    made_ms: int
    entity_id: str
    lines: tuple[Line, ...]
    is_refund: bool
    lock_id: str

    @property
    def refunded(self) -> Refunded:
        """What the script is told."""
        marked = {name: None for line in self.lines for name in _systems(line.parts)}
        taken = [(max(0, line.applied), line.parts) for line in self.lines]
        return Refunded(self.gen, self.seq, self.made_ms, taken, self.lock_id, tuple(marked))


async def find(engine: Engine, customer_id: str, reference: str) -> Event:
    """The customer's event of that id, or the one sent with that idempotency key. Raises
    CustomerMissing, EventMissing, NotRefundable, and the engine's errors."""
    customer = await engine.store.read(customers.by_id, customer_id)
    if customer is None:
        raise CustomerMissing(customer_id)
    place = events.parse_event_id(reference)
    found = await _read(engine, place) if place is not None else None
    if found is None:
        place = await _by_key(engine, customer_id, customer.cid, reference)
        found = await _read(engine, place) if place is not None else None
    if found is None:
        raise EventMissing(reference)
    if found.cid != customer.cid:
        raise NotRefundable("is an event of another customer")
    if found.is_refund:
        raise NotRefundable("is a refund itself")
    if all(line.applied <= 0 for line in found.lines):
        raise NotRefundable("took nothing")
    return found


async def _by_key(engine: Engine, customer_id: str, cid: int, key: str) -> events.EntryId | None:
    """The log entry of the customer's call with that idempotency key."""
    p = engine.partition_of(customer_id)
    await engine.open_partitions([p])
    record = await (await engine.connected()).call("GET", keys.record(p, keys.digest(customer_id, key)))
    if record is not None:
        found, entry_id = receipt.unpack_record(record)
        if found.cid == cid:
            return events.EntryId(p, *map(int, entry_id.split(b"-")))
    return await engine.store.read(events.by_key, cid, key)


async def _read(engine: Engine, place: events.EntryId) -> Event | None:
    """The event in a log entry: from the log, else from SQL, which has what the log has no more."""
    if place.p < engine.settings.partitions:
        await engine.open_partitions([place.p])
        at = b"%d-%d" % (place.gen, place.seq)
        entries = await (await engine.connected()).call("XRANGE", keys.log(place.p), at, at)
        if entries:
            return _of_record(place, msgpack.unpackb(entries[0][1][1], raw=True))
    return await engine.store.read(_in_sql, place)


def _of_record(place: events.EntryId, record: list[Any]) -> Event | None:
    """The event in a log record (sync/records.py), None for a record of none."""
    if record[0] != RECORD_FORMAT or record[1] != USE:
        return None
    _, _, cid, ms, _, entity_id, info, resets, *_ = record
    at = 8 + resets * RESET_WIDTH
    lines = []
    count, at = record[at], at + 1
    for _ in range(count):
        feature_id, _requested, applied, size = record[at : at + 4]
        lines.append(Line(feature_id.decode(), applied, [_text(part) for part in record[at + 4 : at + 4 + size]]))
        at += 4 + size
    told = msgpack.unpackb(info, raw=False, strict_map_key=False) if info else {}
    return Event(cid, place.gen, place.seq, ms, entity_id.decode(), tuple(lines), "r" in told, told.get("l", ""))


def _in_sql(conn: SqlConnection, place: events.EntryId) -> Event | None:
    lines = events.by_event_id(conn, place)
    if not lines:
        return None
    first = lines[0]
    lock_id = next((one.lock_id for one in holds.open_of(conn, first.cid) if (one.gen, one.seq) == place[1:]), "")
    return Event(
        first.cid, place.gen, place.seq, first.recorded_at, first.entity_id,
        tuple(Line(one.feature_id, one.applied, msgpack.unpackb(one.parts or events.NO_PARTS)) for one in lines),
        first.refund_of is not None, lock_id,
    )


def _text(part: Any) -> Any:
    return part.decode() if isinstance(part, bytes) else part


def _systems(parts: Sequence[Any]) -> list[str]:
    """The credit systems that paid."""
    found, at = [], 0
    while at < len(parts):
        if parts[at] == SYSTEM_MARK:
            found.append(parts[at + 1])
        at += 4 if parts[at] == SYSTEM_MARK else 6 if parts[at] == SLOT_MARK else 2
    return found
