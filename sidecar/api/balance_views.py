"""A feature's balance as API version 1.2 shows it: pure, from packed buckets to the answer's fields.

See docs/balances.md, "What callers see". Numbers are ints when whole, else exact Decimals. This
module does no I/O and knows nothing of requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Sequence

from ..domain.intervals import LIFETIME
from ..domain.layout import BOOLEAN, INTERVALS, PER_ENTITY, UNLIMITED, USAGE_ALLOWED, Row, Slot, spending_key
from ..domain.quantities import unscale

if TYPE_CHECKING:
    from ..catalog.model import Feature

MULTIPLE = "multiple"
TYPES_V12 = {"boolean": "static", "credit_system": "single_use"}
"""Feature types that 1.2 customers show under another name."""


def balance_v12(feature: Feature, rows: Sequence[Row], slots: Sequence[Slot] | None = None) -> dict[str, Any]:
    """The balance fields of `feature` over `rows`, as a 1.2 check shows them: everything of a 1.2
    feature but `id`, `type` and `name`.

    `rows` are the buckets in scope after due resets, expired ones left out. Without `slots` (None)
    it is the customer's view: a per-entity grant counts for all entities. With `slots`, those of
    one entity (there may be none), it is that entity's view: a per-entity grant counts once."""
    rows = in_view_order(rows, slots is not None)
    if not rows or rows[0].flags & BOOLEAN:
        return _flag_fields()
    parts = [bucket_part(row, slots) for row in rows]
    unlimited = any(row.flags & UNLIMITED for row in rows)
    balance = 0 if unlimited else sum(part[0] for part in parts)
    granted = 0 if unlimited else sum(part[1] for part in parts)
    fields = _interval_fields(rows)
    fields.update(
        unlimited=unlimited,
        balance=unscale(balance, feature.precision),
        usage=unscale(granted - balance, feature.precision),
        included_usage=unscale(granted, feature.precision),
        overage_allowed=any(open_ended(row) for row in rows),
    )
    purchasable = purchasable_of(rows, parts)
    if purchasable is not None and not unlimited:
        fields["usage_limit"] = unscale(granted + purchasable, feature.precision)
    fields["breakdown"] = [_entry(feature.precision, row, part) for row, part in zip(rows, parts)]
    if feature.type == "credit_system":
        fields["credit_schema"] = [
            {"feature_id": member, "credit_amount": cost} for member, cost in feature.credit_schema
        ]
    return fields


def feature_v12(feature: Feature, rows: Sequence[Row], slots: Sequence[Slot] | None = None) -> dict[str, Any]:
    """The entry of `feature` in a 1.2 customer's or entity's `features`; arguments as
    `balance_v12`."""
    return {
        "id": feature.id,
        "type": TYPES_V12.get(feature.type, feature.type),
        "name": feature.name or feature.id,
        **balance_v12(feature, rows, slots),
    }


def in_view_order(rows: Sequence[Row], for_entity: bool) -> Sequence[Row]:
    """`rows` in the order in which a call in this scope would spend them: an entity's call its own
    and per-entity grants first, a customer's call the customer-level ones first."""
    if not any(row.entity_id or row.flags & PER_ENTITY for row in rows):
        return rows
    return sorted(
        rows, key=lambda row: (bool(row.entity_id or row.flags & PER_ENTITY) is not for_entity, spending_key(row))
    )


def bucket_part(row: Row, slots: Sequence[Slot] | None) -> tuple[int, int, int]:
    """(balance, granted, times) of a bucket in the view, scaled; times is the number of entities
    for which a per-entity grant counts."""
    if row.flags & UNLIMITED:
        return 0, 0, 1
    if not row.flags & PER_ENTITY:
        return row.balance, row.granted, 1
    if slots is None:
        return row.balance, row.granted * row.slots, row.slots
    for slot in slots:
        if slot.no == row.no and slot.period == row.next_reset_at:
            return slot.balance, row.granted, 1
    return row.granted, row.granted, 1


def open_ended(row: Row) -> bool:
    """Whether a bucket may be overdrawn without end."""
    return bool(row.flags & USAGE_ALLOWED) and row.purchasable < 0


def purchasable_of(rows: Sequence[Row], parts: Sequence[tuple[int, int, int]]) -> int | None:
    """Units that may be used beyond the grants, scaled; None without a pay-per-use bucket or when
    one of them has no end."""
    caps = [(row.purchasable, part[2]) for row, part in zip(rows, parts) if row.flags & USAGE_ALLOWED]
    if not caps or any(cap < 0 for cap, _ in caps):
        return None
    return sum(cap * times for cap, times in caps)


def _interval_fields(rows: Sequence[Row]) -> dict[str, Any]:
    intervals = {(row.interval, interval_count_of(row)) for row in rows}
    if len(intervals) > 1:
        return {"interval": MULTIPLE, "interval_count": None, "next_reset_at": None}
    code, count = next(iter(intervals))
    dates = [row.next_reset_at for row in rows if row.next_reset_at]
    return {"interval": INTERVALS[code], "interval_count": count, "next_reset_at": min(dates, default=None)}


def interval_count_of(row: Row) -> int:
    """The interval count shown: 1 for lifetime."""
    return row.interval_count if row.interval != LIFETIME else 1


def _entry(precision: int, row: Row, part: tuple[int, int, int]) -> dict[str, Any]:
    balance, granted, times = part
    entry: dict[str, Any] = {
        "interval": INTERVALS[row.interval],
        "interval_count": interval_count_of(row),
        "balance": unscale(balance, precision),
        "usage": unscale(granted - balance, precision),
        "included_usage": unscale(granted, precision),
        "next_reset_at": row.next_reset_at or None,
        "overage_allowed": open_ended(row),
    }
    if row.flags & USAGE_ALLOWED and row.purchasable >= 0 and not row.flags & UNLIMITED:
        entry["usage_limit"] = unscale(granted + row.purchasable * times, precision)
    if row.expires_at:
        entry["expires_at"] = row.expires_at
    return entry


def _flag_fields() -> dict[str, Any]:
    """A boolean feature, or one of which nothing is in scope: no numbers, no interval."""
    return {
        "interval": None, "interval_count": None, "next_reset_at": None, "unlimited": False,
        "balance": 0, "usage": 0, "included_usage": 0, "overage_allowed": False,
    }
