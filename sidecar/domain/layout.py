"""How a customer's buckets are packed in Redis: the one place that names the columns.

A feature's buckets are one MessagePack array, flat, in spending order:

    [format, rows, row × rows …, slots, slot × slots …]

A row has `ROW_WIDTH` columns, a slot (an entity's share of a per-entity grant) `SLOT_WIDTH`.
`lua/include/rows.lua` has the same numbers; a test compares the two. Times are milliseconds since
the epoch, 0 for none; quantities are integers scaled by the feature's precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, NamedTuple, Sequence

import msgpack

FORMAT = 1
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

INTERVALS = ("lifetime", "minute", "hour", "day", "week", "month", "quarter", "semi_annual", "year")
"""Interval names; the index is the code stored in a row."""


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


def pack(rows: Sequence[Row], slots: Sequence[Slot] = ()) -> bytes:
    """The packed form of a feature's buckets."""
    flat: list[Any] = [FORMAT, len(rows)]
    for row in rows:
        flat.extend(row)
    flat.append(len(slots))
    for slot in slots:
        flat.extend(slot)
    return msgpack.packb(flat)


def unpack(data: bytes) -> Blob:
    """The buckets in a packed blob. Raises ValueError for a format this release cannot read."""
    return read(msgpack.unpackb(data))


def read(flat: Sequence[Any]) -> Blob:
    """The buckets in an already decoded blob. Raises ValueError for an unknown format."""
    if flat[0] != FORMAT:
        raise ValueError(f"buckets are packed in format {flat[0]}, this release reads {FORMAT}")
    at = 2 + flat[1] * ROW_WIDTH
    rows = tuple(Row(*flat[i : i + ROW_WIDTH]) for i in range(2, at, ROW_WIDTH))
    end = at + 1 + flat[at] * SLOT_WIDTH
    slots = tuple(Slot(*flat[i : i + SLOT_WIDTH]) for i in range(at + 1, end, SLOT_WIDTH))
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
    from .intervals import length_ms

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


def iter_blobs(fields: dict[bytes, bytes], prefix: bytes) -> Iterator[tuple[bytes, Blob]]:
    """The blobs among a customer hash's fields whose name begins with `prefix`, by the rest."""
    for name, data in fields.items():
        if name.startswith(prefix):
            yield name[len(prefix) :], unpack(data)
