"""One customer's state in Redis against what SQL, the unread log and the outbox say it must be.

Pure: both sides are given. To the last unit: every column of every bucket, every slot that is not of
an earlier period, what left the hot state, the header, the entities and their counts, caps, window
counters and open holds; and of what was given back of single events, what Redis has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, Mapping

import msgpack

from sidecar.domain import layout
from sidecar.domain.layout import Archived, Row, Slot
from sidecar.engine import state as packed


@dataclass(frozen=True)
class Difference:
    """Something in which the stores disagree. `kind`: customer, header, bucket, slot, archived,
    entity, caps, window, hold, refund, idempotency, ledger, log, rejected. `bucket` is its number, 0
    where none is meant."""

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
    next_roll: int
    rows: Mapping[int, tuple[str, Row]]
    """(feature id, bucket) by number."""
    slots: Mapping[tuple[int, str], Slot]
    """By bucket number and entity id."""
    entities: Mapping[str, str]
    """Feature id by entity id."""
    archived: Mapping[packed.Place, Archived]
    caps: Mapping[packed.Place, bytes]
    windows: Mapping[packed.Place, frozenset[packed.Window]]
    holds: Mapping[str, packed.OpenHold]
    returned: Mapping[tuple[int, int], bytes]
    """What was given back of an event, by the generation and number of its log entry."""
    unread_entry: tuple[int, int] | None
    """The customer's last entry in the unread log."""
    synced_entry: tuple[int, int]
    """The last one that SQL has."""


@dataclass(frozen=True)
class State:
    """A customer's hash and its sets, as Redis has them: entities, and its open holds by their end
    in its own set and in the partition's."""

    fields: Mapping[bytes, bytes]
    members: frozenset[bytes]
    locks: Mapping[bytes, int]
    partition_locks: Mapping[bytes, int]


def compare(customer_id: str, state: State, expected: Expected) -> Iterator[Difference]:
    """Every difference. Raises nothing: a state that cannot be read is a difference too."""
    try:
        yield from _header(customer_id, state, expected)
        yield from _buckets(customer_id, state, expected)
        yield from _entities(customer_id, state, expected)
        yield from _caps(customer_id, state, expected)
        yield from _holds(customer_id, state, expected)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, msgpack.UnpackException) as error:
        yield Difference(customer_id, "customer", 0, "state", f"unreadable: {error}", "")


def _header(customer_id: str, state: State, expected: Expected) -> Iterator[Difference]:
    header = layout.unpack_header(state.fields[b"h"])
    for column, redis, sql in (
        ("cid", header.cid, expected.cid), ("version", header.version, expected.version),
        ("last_ms", header.last_ms, expected.last_ms),
    ):
        if redis != sql:
            yield Difference(customer_id, "header", 0, column, redis, sql)
    if header.next_roll < expected.next_roll:  # a number would be given twice
        yield Difference(customer_id, "header", 0, "next_roll", header.next_roll, expected.next_roll)
    if expected.caps and not header.flags & layout.CAPS:  # scripts would not look for them
        yield Difference(customer_id, "header", 0, "flags", header.flags, layout.CAPS)
    entry = (header.log_gen, header.log_seq)
    if expected.unread_entry is not None and entry != expected.unread_entry:
        yield Difference(customer_id, "header", 0, "entry", entry, expected.unread_entry)
    elif entry < expected.synced_entry:  # one loaded from SQL has the cursor it was loaded at
        yield Difference(customer_id, "header", 0, "entry", entry, expected.synced_entry)


def _buckets(customer_id: str, state: State, expected: Expected) -> Iterator[Difference]:
    rows: dict[int, tuple[str, Row]] = {}
    slots: dict[tuple[int, str], Slot] = {}
    archived: dict[packed.Place, Archived] = {}
    for feature_id, entity_id, blob in _blobs(state.fields):
        if any(blob.archived):
            archived[feature_id, entity_id] = blob.archived
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
    yield from _all(customer_id, "archived", archived, expected.archived)


def _slots(
    customer_id: str, redis: Mapping[tuple[int, str], Slot], sql: Mapping[tuple[int, str], Slot]
) -> Iterator[Difference]:
    for no, entity_id in sorted(redis.keys() | sql.keys()):
        ours, theirs = redis.get((no, entity_id)), sql.get((no, entity_id))
        if ours != theirs:
            yield Difference(customer_id, "slot", no, entity_id, ours and ours[1:], theirs and theirs[1:])


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
        kept, least = attached.get(feature_id, set()), own.get(feature_id, set())
        if not least <= kept <= least | {entity_id for feature, entity_id in expected.archived if feature == feature_id}:
            yield Difference(customer_id, "entity", 0, f"a:{feature_id}", sorted(kept), sorted(least))


def _caps(customer_id: str, state: State, expected: Expected) -> Iterator[Difference]:
    caps: dict[packed.Place, Any] = {}
    windows: dict[packed.Place, Any] = {}
    returned: dict[tuple[int, int], Any] = {}
    for name, value in state.fields.items():
        kind, rest = name[:2], name[2:]
        if kind == b"k:":
            caps[packed.place_of(rest)] = packed.unpack_caps(value)
        elif kind == b"w:":
            windows[packed.place_of(rest)] = frozenset(packed.unpack_windows(value))
        elif kind == b"r:":
            gen, _, seq = rest.partition(b"-")
            returned[int(gen), int(seq)] = msgpack.unpackb(value)
    wanted = {place: packed.unpack_caps(data) for place, data in expected.caps.items()}
    yield from _all(customer_id, "caps", caps, wanted)
    yield from _all(customer_id, "window", windows, expected.windows)
    for entry, units in sorted(returned.items()):  # it comes to Redis with the event, if at all
        theirs = expected.returned.get(entry)
        if theirs is None or msgpack.unpackb(theirs) != units:
            yield Difference(customer_id, "refund", 0, f"{entry[0]}-{entry[1]}", units, theirs)


def _holds(customer_id: str, state: State, expected: Expected) -> Iterator[Difference]:
    holds = {
        name[2:].decode(): packed.unpack_hold(value) for name, value in state.fields.items() if name.startswith(b"l:")
    }
    yield from _all(customer_id, "hold", holds, expected.holds)
    ends = {lock_id: hold.expires_ms for lock_id, hold in expected.holds.items()}
    for where, locks in (("its set", state.locks), ("the partition's set", state.partition_locks)):
        for name, redis, sql in _unequal({lock.decode(): end for lock, end in locks.items()}, ends):
            yield Difference(customer_id, "hold", 0, f"{name} in {where}", redis, sql)


def _all(customer_id: str, kind: str, redis: Mapping[Any, Any], sql: Mapping[Any, Any]) -> Iterator[Difference]:
    for key, ours, theirs in _unequal(redis, sql):
        name = key if isinstance(key, str) else "/".join(part for part in key if part)
        yield Difference(customer_id, kind, 0, name, ours, theirs)


def _unequal(redis: Mapping[Any, Any], sql: Mapping[Any, Any]) -> Iterator[tuple[Any, Any, Any]]:
    for key in sorted(redis.keys() | sql.keys()):
        if redis.get(key) != sql.get(key):
            yield key, redis.get(key), sql.get(key)


def _list(data: bytes | None) -> list[str]:
    return list(msgpack.unpackb(data)) if data else []


def _blobs(fields: Mapping[bytes, bytes]) -> Iterator[tuple[str, str, layout.Blob]]:
    for name, value in fields.items():
        if name.startswith(b"b:"):
            yield name[2:].decode(), "", layout.unpack(value)
        elif name.startswith(b"x:"):
            feature_id, _, entity_id = name[2:].partition(b"\0")
            yield feature_id.decode(), entity_id.decode(), layout.unpack(value)
