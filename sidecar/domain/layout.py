"""How a customer's state is packed in Redis: the one place that names the columns.

A feature's buckets are one string, in spending order:

    format · rows · slots · archived | hot columns of each row | slots | cold columns of all rows (MessagePack)

The hot columns, which every call reads, have fixed width and place, so that a script takes a balance
without unpacking the rest and puts it back where it was. A row has `ROW_WIDTH` columns in all, a
slot (an entity's share of a per-entity grant) `SLOT_WIDTH`. `lua/include/rows.lua` has the same
formats; a test compares the two. Times are milliseconds since the epoch, 0 for none; quantities are
integers scaled by the feature's precision.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Iterable, NamedTuple, Sequence

import msgpack

from .intervals import INTERVALS as INTERVALS
from .intervals import length_ms

FORMAT = 2
COUNTS = struct.Struct(">BHHHqq")
HOT = struct.Struct(">IqqHqqq")
SLOT = struct.Struct(">Iqqqq")
HEADER = struct.Struct(">BqqqqqBI")
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
ROLLOVER = 256

DEAD = 1
CAPS = 2
LOADING = 4
"""Flags of a header: only what a deleted customer left behind; some feature has caps; steps that SQL
decided before the load are still to come, so that nobody may be answered from this state yet."""

ROLLOVER_NO_MIN = 1 << 31
"""Numbers from here on are given to rollovers by the scripts; smaller ones by SQL."""

ROW_WIDTH = 25
SLOT_WIDTH = 5
USED_HIGH_UNIT = 1 << 52
"""An unlimited bucket counts usage in two parts: granted × this − balance."""

class Row(NamedTuple):
    """One bucket, column by column as stored. A rollover is a bucket too: `parent` is the one it
    comes from. Of a grant per entity, `granted` is one entity's; of its rollovers it is 0 and
    `prepaid` the sum of what they were made of."""

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
    parent: int = 0
    roll_length: int = -1
    """Months that a rollover lives: 0 for ever, -1 where nothing rolls over."""
    roll_max: int = -1
    roll_percent: int = -1
    """Of 1,000,000; -1 for none."""
    reset_at: int = 0
    """When the last reset was due, and the overage there was."""
    reset_over: int = 0
    held: int = 0
    """What open holds have of the usage."""

    @property
    def unlimited(self) -> bool:
        return bool(self.flags & UNLIMITED)

    @property
    def per_entity(self) -> bool:
        return bool(self.flags & PER_ENTITY)

    @property
    def rollover(self) -> bool:
        return bool(self.flags & ROLLOVER)


class Slot(NamedTuple):
    """An entity's share of the per-entity bucket `no`, valid while `period` is that bucket's
    `next_reset_at`. `granted` is what a rollover's share was made of, else 0."""

    no: int
    balance: int
    period: int
    granted: int = 0
    held: int = 0


class Archived(NamedTuple):
    """Buckets of a feature that are used up and left the hot state: how many, and what they had
    been granted and of that bought."""

    count: int = 0
    granted: int = 0
    prepaid: int = 0

    @classmethod
    def sum(cls, several: Iterable[Archived]) -> Archived:
        """All of them together."""
        return cls(*(sum(column) for column in zip(cls(), *several)))


@dataclass(frozen=True)
class Blob:
    """The buckets (and, in an entity's blob, the slots) of one feature."""

    rows: tuple[Row, ...] = ()
    slots: tuple[Slot, ...] = ()
    archived: Archived = Archived()


class Header(NamedTuple):
    """What a state says of its customer: internal id, structure version, the last log entry, the
    time of that call, flags (DEAD, CAPS, LOADING), and the number of the next rollover."""

    cid: int
    version: int
    log_gen: int
    log_seq: int
    last_ms: int
    flags: int = 0
    next_roll: int = ROLLOVER_NO_MIN

    @property
    def dead(self) -> bool:
        """Whether it is only what a deleted customer left behind."""
        return bool(self.flags & DEAD)


def pack_header(header: Header) -> bytes:
    """The packed form of a header."""
    return HEADER.pack(FORMAT, *header)


def unpack_header(data: bytes) -> Header:
    """The header in its packed form. Raises ValueError for one this release cannot read."""
    if len(data) != HEADER.size or data[0] != FORMAT:
        raise ValueError(f"a header of {len(data)} bytes in format {data[0] if data else None}")
    return Header(*HEADER.unpack(data)[1:])


def pack(rows: Sequence[Row], slots: Sequence[Slot] = (), archived: Archived = Archived()) -> bytes:
    """The packed form of a feature's buckets."""
    parts = [COUNTS.pack(FORMAT, len(rows), len(slots), *archived)]
    parts += [HOT.pack(*row[:HOT_WIDTH]) for row in rows]
    parts += [SLOT.pack(*slot) for slot in slots]
    if rows:
        parts.append(msgpack.packb([column for row in rows for column in row[HOT_WIDTH:]]))
    return b"".join(parts)


def unpack(data: bytes) -> Blob:
    """The buckets in a packed blob. Raises ValueError for a format this release cannot read."""
    try:
        form, row_count, slot_count, *left = COUNTS.unpack_from(data)
        archived = Archived(*left)
        if form != FORMAT:
            raise ValueError(f"buckets are packed in format {form}, this release reads {FORMAT}")
        at = COUNTS.size + row_count * HOT.size
        end = at + slot_count * SLOT.size
        if len(data) < end:
            raise ValueError(f"damaged buckets: {len(data)} bytes of {end}")
        slots = tuple(Slot(*slot) for slot in SLOT.iter_unpack(data[at:end]))
        if not row_count:
            return Blob((), slots, archived)
        cold = msgpack.unpackb(data[end:])
        width = ROW_WIDTH - HOT_WIDTH
        rows = tuple(
            Row(*hot, *cold[i * width : (i + 1) * width])
            for i, hot in enumerate(HOT.iter_unpack(data[COUNTS.size : at]))
        )
    except (struct.error, TypeError, msgpack.exceptions.UnpackException) as problem:
        raise ValueError(f"damaged buckets: {problem}") from problem
    return Blob(rows, slots, archived)


def used(row: Row) -> int:
    """Units used of a bucket, scaled; exact for unlimited ones too."""
    if row.unlimited:
        return row.granted * USED_HIGH_UNIT - row.balance
    if row.per_entity:
        return (row.prepaid if row.rollover else row.granted * row.slots) - row.balance
    return row.granted - row.balance


def spending_key(row: Row) -> tuple[Any, ...]:
    """Sorts buckets of one feature into spending order (the entity criterion apart, which
    depends on the call). See docs/balances.md, "Order of spending"."""
    if row.rollover:
        return (-1, row.expires_at or 1 << 62, row.created_at, row.no)
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

