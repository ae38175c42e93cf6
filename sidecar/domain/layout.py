"""How a customer's state is packed in Redis: the one place that names the columns.

A feature's buckets are one string, in spending order:

    format · rows · slots | hot columns of each row | slots | cold columns of all rows (MessagePack)

The hot columns, which every call reads, have fixed width and place, so that a script takes a balance
without unpacking the rest and puts it back where it was. A row has `ROW_WIDTH` columns in all, a
slot (an entity's share of a per-entity grant) `SLOT_WIDTH`. `lua/include/rows.lua` has the same
formats; a test compares the two. Times are milliseconds since the epoch, 0 for none; quantities are
integers scaled by the feature's precision.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple, Sequence

import msgpack

from .intervals import INTERVALS as INTERVALS
from .intervals import length_ms

FORMAT = 1
COUNTS = struct.Struct(">BHH")
HOT = struct.Struct(">IqqHqqq")
SLOT = struct.Struct(">Iqq")
HEADER = struct.Struct(">BqqqqqB")
HOT_WIDTH = 7
"""The first columns of a row are its hot ones."""

UNLIMITED = 1
USAGE_ALLOWED = 2
PREPAID = 4
CONTINUOUS = 8
ADD_ON = 16
PER_ENTITY = 32
BOOLEAN = 64
PAID = 128

ROW_WIDTH = 18
SLOT_WIDTH = 3
USED_HIGH_UNIT = 1 << 52
"""An unlimited bucket counts usage in two parts: granted × this − balance."""

class Row(NamedTuple):
    """One bucket, column by column as stored."""

    no: int
    balance: int
    granted: int
    flags: int
    purchasable: int
    next_reset_at: int
    expires_at: int
    anchor: int
    interval: int
    interval_count: int
    entity_id: str
    plan_id: str
    prepaid: int
    item: int
    created_at: int
    slots: int
    over: int
    entity_feature: str

    @property
    def unlimited(self) -> bool:
        return bool(self.flags & UNLIMITED)

    @property
    def per_entity(self) -> bool:
        return bool(self.flags & PER_ENTITY)


class Slot(NamedTuple):
    """An entity's share of the per-entity bucket `no`, valid while `period` is that bucket's
    `next_reset_at`."""

    no: int
    balance: int
    period: int


@dataclass(frozen=True)
class Blob:
    """The buckets (and, in an entity's blob, the slots) of one feature."""

    rows: tuple[Row, ...] = ()
    slots: tuple[Slot, ...] = ()


class Header(NamedTuple):
    """What a state says of its customer: internal id, structure version, the last log entry, the
    time of that call, and whether it is only what a deleted customer left behind."""

    cid: int
    version: int
    log_gen: int
    log_seq: int
    last_ms: int
    dead: bool = False


def pack_header(header: Header) -> bytes:
    """The packed form of a header."""
    return HEADER.pack(FORMAT, *header)


def unpack_header(data: bytes) -> Header:
    """The header in its packed form. Raises ValueError for one this release cannot read."""
    if len(data) != HEADER.size or data[0] != FORMAT:
        raise ValueError(f"a header of {len(data)} bytes in format {data[0] if data else None}")
    *fields, dead = HEADER.unpack(data)[1:]
    return Header(*fields, dead=bool(dead))


def pack(rows: Sequence[Row], slots: Sequence[Slot] = ()) -> bytes:
    """The packed form of a feature's buckets."""
    parts = [COUNTS.pack(FORMAT, len(rows), len(slots))]
    parts += [HOT.pack(*row[:HOT_WIDTH]) for row in rows]
    parts += [SLOT.pack(*slot) for slot in slots]
    if rows:
        parts.append(msgpack.packb([column for row in rows for column in row[HOT_WIDTH:]]))
    return b"".join(parts)


def unpack(data: bytes) -> Blob:
    """The buckets in a packed blob. Raises ValueError for a format this release cannot read."""
    try:
        form, row_count, slot_count = COUNTS.unpack_from(data)
        if form != FORMAT:
            raise ValueError(f"buckets are packed in format {form}, this release reads {FORMAT}")
        at = COUNTS.size + row_count * HOT.size
        end = at + slot_count * SLOT.size
        if len(data) < end:
            raise ValueError(f"damaged buckets: {len(data)} bytes of {end}")
        slots = tuple(Slot(*slot) for slot in SLOT.iter_unpack(data[at:end]))
        if not row_count:
            return Blob((), slots)
        cold = msgpack.unpackb(data[end:])
        width = ROW_WIDTH - HOT_WIDTH
        rows = tuple(
            Row(*hot, *cold[i * width : (i + 1) * width])
            for i, hot in enumerate(HOT.iter_unpack(data[COUNTS.size : at]))
        )
    except (struct.error, TypeError, msgpack.exceptions.UnpackException) as problem:
        raise ValueError(f"damaged buckets: {problem}") from problem
    return Blob(rows, slots)


def used(row: Row) -> int:
    """Units used of a bucket, scaled; exact for unlimited ones too."""
    if row.unlimited:
        return row.granted * USED_HIGH_UNIT - row.balance
    if row.per_entity:
        return row.granted * row.slots - row.balance
    return row.granted - row.balance


def spending_key(row: Row) -> tuple[Any, ...]:
    """Sorts buckets of one feature into spending order (the entity criterion apart, which
    depends on the call). See docs/balances.md, "Order of spending"."""
    return (
        0 if row.unlimited else 1,
        0 if row.interval else 1,
        length_ms(row.interval, row.interval_count),
        row.expires_at or 1 << 62,
        row.entity_id,
        1 if row.flags & ADD_ON else 0,
        1 if row.flags & USAGE_ALLOWED else 0,
        row.created_at,
        row.no,
    )

