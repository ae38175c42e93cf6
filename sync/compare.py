"""One customer's state in Redis against what SQL, the unread log and the outbox say it must be.

Pure: both sides are given. To the last unit: every column of every bucket, every slot that is not of
an earlier period, the header, the entities and their counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, Mapping

import msgpack

from sidecar.domain import layout
from sidecar.domain.layout import Row, Slot


@dataclass(frozen=True)
class Difference:
    """Something in which the stores disagree. `kind`: customer, header, bucket, slot, entity,
    idempotency, ledger, log, rejected. `bucket` is its number, 0 where none is meant."""

    customer: str
    kind: str
    bucket: int
    column: str
    redis: Any
    sql: Any

    def __str__(self) -> str:
        where = f" bucket {self.bucket}" if self.bucket else ""
        return f"{self.customer}: {self.kind}{where} {self.column}: Redis {self.redis!r}, SQL {self.sql!r}"


@dataclass(frozen=True)
class Expected:
    """What SQL, with the unread log played on it, says."""

    cid: int
    version: int
    last_ms: int
    rows: Mapping[int, tuple[str, Row]]
    """(feature id, bucket) by number."""
    slots: Mapping[tuple[int, str], Slot]
    """By bucket number and entity id."""
    entities: Mapping[str, str]
    """Feature id by entity id."""
    unread_entry: tuple[int, int] | None
    """The customer's last entry in the unread log."""
    synced_entry: tuple[int, int]
    """The last one that SQL has."""


@dataclass(frozen=True)
class State:
    """A customer's hash and its entity set, as Redis has them."""

    fields: Mapping[bytes, bytes]
    members: frozenset[bytes]


def compare(customer_id: str, state: State, expected: Expected) -> Iterator[Difference]:
    """Every difference. Raises nothing: a state that cannot be read is a difference too."""
    try:
        yield from _header(customer_id, state, expected)
        yield from _buckets(customer_id, state, expected)
        yield from _entities(customer_id, state, expected)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, msgpack.UnpackException) as error:
        yield Difference(customer_id, "customer", 0, "state", f"unreadable: {error}", "")


def _header(customer_id: str, state: State, expected: Expected) -> Iterator[Difference]:
    cid, version, gen, seq, last_ms, _dead = layout.unpack_header(state.fields[b"h"])
    for column, redis, sql in (
        ("cid", cid, expected.cid), ("version", version, expected.version), ("last_ms", last_ms, expected.last_ms),
    ):
        if redis != sql:
            yield Difference(customer_id, "header", 0, column, redis, sql)
    entry = (gen, seq)
    if expected.unread_entry is not None and entry != expected.unread_entry:
        yield Difference(customer_id, "header", 0, "entry", entry, expected.unread_entry)
    elif entry < expected.synced_entry:  # one loaded from SQL has the cursor it was loaded at
        yield Difference(customer_id, "header", 0, "entry", entry, expected.synced_entry)


def _buckets(customer_id: str, state: State, expected: Expected) -> Iterator[Difference]:
    rows: dict[int, tuple[str, Row]] = {}
    slots: dict[tuple[int, str], Slot] = {}
    for feature_id, entity_id, blob in _blobs(state.fields):
        for row in blob.rows:
            if row.entity_id != entity_id or row.no in rows:
                yield Difference(customer_id, "bucket", row.no, "place", f"{feature_id}/{entity_id}", row.entity_id)
            rows[row.no] = feature_id, row
        for slot in blob.slots:
            slots[slot.no, entity_id] = slot
        numbers = [row.no for row in blob.rows]
        ordered = [row.no for row in sorted(blob.rows, key=layout.spending_key)]
        if numbers != ordered:
            yield Difference(customer_id, "bucket", numbers[0], "order", numbers, ordered)
    for no in sorted(rows.keys() | expected.rows.keys()):
        if no not in rows or no not in expected.rows:
            yield Difference(customer_id, "bucket", no, "row", rows.get(no), expected.rows.get(no))
            continue
        (redis_feature, redis_row), (sql_feature, sql_row) = rows[no], expected.rows[no]
        if redis_feature != sql_feature:
            yield Difference(customer_id, "bucket", no, "feature_id", redis_feature, sql_feature)
        for column, redis, sql in zip(Row._fields, redis_row, sql_row):
            if redis != sql:
                yield Difference(customer_id, "bucket", no, column, redis, sql)
    yield from _slots(customer_id, _live(slots, rows), _live(expected.slots, expected.rows))


def _slots(
    customer_id: str, redis: Mapping[tuple[int, str], Slot], sql: Mapping[tuple[int, str], Slot]
) -> Iterator[Difference]:
    for no, entity_id in sorted(redis.keys() | sql.keys()):
        ours, theirs = redis.get((no, entity_id)), sql.get((no, entity_id))
        if ours != theirs:
            yield Difference(
                customer_id, "slot", no, entity_id, ours.balance if ours else None, theirs.balance if theirs else None
            )


def _live(
    slots: Mapping[tuple[int, str], Slot], rows: Mapping[int, tuple[str, Row]]
) -> dict[tuple[int, str], Slot]:
    """The slots that count: one of an earlier period, or of no bucket, is as good as none."""
    return {
        key: slot for key, slot in slots.items() if key[0] in rows and rows[key[0]][1].next_reset_at == slot.period
    }


def _entities(customer_id: str, state: State, expected: Expected) -> Iterator[Difference]:
    fields = state.fields
    redis = {name[2:].decode(): value.decode() for name, value in fields.items() if name.startswith(b"e:")}
    for entity_id in sorted(redis.keys() | expected.entities.keys()):
        if redis.get(entity_id) != expected.entities.get(entity_id):
            yield Difference(
                customer_id, "entity", 0, entity_id, redis.get(entity_id), expected.entities.get(entity_id)
            )
    members = frozenset(f"{feature}\0{entity}".encode() for entity, feature in expected.entities.items())
    if state.members != members:
        yield Difference(customer_id, "entity", 0, "members", sorted(state.members), sorted(members))
    counts: dict[str, int] = {}
    for feature_id in expected.entities.values():
        counts[feature_id] = counts.get(feature_id, 0) + 1
    kept = {name[2:].decode(): int(value) for name, value in fields.items() if name.startswith(b"n:")}
    for feature_id in sorted(counts.keys() | kept.keys()):
        if kept.get(feature_id, 0) != counts.get(feature_id, 0):
            yield Difference(
                customer_id, "entity", 0, f"count of {feature_id}", kept.get(feature_id, 0), counts.get(feature_id, 0)
            )
    yield from _lists(customer_id, fields, expected)


def _lists(customer_id: str, fields: Mapping[bytes, bytes], expected: Expected) -> Iterator[Difference]:
    """The lists by which scripts find per-entity grants and entities' own buckets. The first two
    may name a feature that has none any more."""
    per_entity = {feature_id for feature_id, row in expected.rows.values() if row.per_entity}
    own: dict[str, set[str]] = {}
    for feature_id, row in expected.rows.values():
        if row.entity_id:
            own.setdefault(feature_id, set()).add(row.entity_id)
    for name, least in (("p", per_entity), ("q", set(own))):
        kept = set(_list(fields.get(name.encode())))
        if not least <= kept:
            yield Difference(customer_id, "entity", 0, name, sorted(kept), sorted(least))
    attached = {name[2:].decode(): set(_list(value)) for name, value in fields.items() if name.startswith(b"a:")}
    for feature_id in sorted(attached.keys() | own.keys()):
        if attached.get(feature_id, set()) != own.get(feature_id, set()):
            yield Difference(
                customer_id, "entity", 0, f"a:{feature_id}",
                sorted(attached.get(feature_id, ())), sorted(own.get(feature_id, ())),
            )


def _list(data: bytes | None) -> list[str]:
    return list(msgpack.unpackb(data)) if data else []


def _blobs(fields: Mapping[bytes, bytes]) -> Iterator[tuple[str, str, layout.Blob]]:
    for name, value in fields.items():
        if name.startswith(b"b:"):
            yield name[2:].decode(), "", layout.unpack(value)
        elif name.startswith(b"x:"):
            feature_id, _, entity_id = name[2:].partition(b"\0")
            yield feature_id.decode(), entity_id.decode(), layout.unpack(value)
