"""What a view holds of one feature: its buckets, rollovers and sums, scaled, before any API version
puts names to them.

See docs/balances.md, "What callers see". Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Sequence

from ..domain.layout import (
    BOOLEAN, CONTINUOUS, PER_ENTITY, UNLIMITED, USAGE_ALLOWED, Archived, Row, Slot, spending_key, used,
)

if TYPE_CHECKING:
    from ..store.history import BucketLabel

NEVER_ENDS_MS = 253_370_764_800_000
"""What is shown as the end of a rollover that has none, 9999-01-01: strict clients want a number."""


class Part(NamedTuple):
    """One bucket in a view. `times` is the number of entities for which a per-entity grant counts;
    `overage` what of it is below zero, entity by entity."""

    row: Row
    balance: int
    granted: int
    overage: int
    held: int
    times: int

    @property
    def remaining(self) -> int:
        return self.balance + self.overage

    @property
    def prepaid(self) -> int:
        return 0 if self.row.rollover else self.row.prepaid * self.times

    @property
    def usage(self) -> int:
        """What was used; of an unlimited bucket too, which has neither balance nor grant."""
        return used(self.row) if self.row.unlimited else self.granted - self.balance


@dataclass(frozen=True)
class FeatureView:
    """A feature in a view. `entries` are the buckets shown one by one, in spending order; `rollovers`
    soonest-ending first; the sums are over these, over used-up loose grants, which are not shown, and
    over what left the hot state."""

    entries: tuple[Part, ...]
    rollovers: tuple[Part, ...]
    boolean: bool
    unlimited: bool
    rolls_over: bool
    """Whether a bucket has rollovers, or may come to have some."""
    balance: int
    granted: int
    prepaid: int
    overage: int
    usage: int
    held: int
    purchasable: int | None
    """Units that may be used beyond the grants; None without a pay-per-use bucket or when one of
    them has no end."""

    @property
    def remaining(self) -> int:
        return self.balance + self.overage

    @property
    def overage_allowed(self) -> bool:
        return any(open_ended(part.row) for part in self.entries)


def view_of(
    rows: Sequence[Row], slots: Sequence[Slot] | None = None, archived: Archived = Archived()
) -> FeatureView | None:
    """The view over `rows`, the buckets in scope after due resets, expired ones left out; None if
    nothing is held. Without `slots` (None) it is the customer's view: a per-entity grant counts for
    all entities. With `slots`, those of one entity (there may be none), it is that entity's view: a
    per-entity grant counts once. `archived` is what left the hot state in that scope."""
    if not rows and not archived.count:
        return None
    parts = [_part(row, slots) for row in _in_view_order(rows, slots is not None)]
    finite = [part for part in parts if not part.row.unlimited]
    return FeatureView(
        entries=tuple(part for part in parts if not part.row.rollover and not _is_spent(part)),
        rollovers=tuple(part for part in parts if part.row.rollover),
        boolean=any(row.flags & BOOLEAN for row in rows),
        unlimited=len(finite) < len(parts),
        rolls_over=any(row.rollover or row.roll_length >= 0 for row in rows),
        balance=sum(part.balance for part in finite),
        granted=archived.granted + sum(part.granted for part in finite),
        prepaid=archived.prepaid + sum(part.prepaid for part in finite),
        overage=sum(part.overage for part in finite),
        usage=archived.granted + sum(part.usage for part in parts),
        held=sum(part.held for part in parts),
        purchasable=purchasable_of(parts),
    )


def _in_view_order(rows: Sequence[Row], for_entity: bool) -> Sequence[Row]:
    """`rows` in the order in which a call in this scope would spend them: rollovers, then an entity's
    call its own and per-entity grants first, a customer's call the customer-level ones first."""
    if not any(row.entity_id or row.flags & PER_ENTITY for row in rows):
        return rows

    def key(row: Row) -> tuple[Any, ...]:
        later = bool(row.entity_id or row.flags & PER_ENTITY) is not for_entity
        if row.rollover:
            return (0, row.expires_at or NEVER_ENDS_MS, later, row.entity_id, *spending_key(row))
        return (1, later, *spending_key(row))

    return sorted(rows, key=key)


def _part(row: Row, slots: Sequence[Slot] | None) -> Part:
    if row.flags & UNLIMITED:
        return Part(row, 0, 0, 0, row.held, 1)
    if not row.flags & PER_ENTITY:
        return Part(row, row.balance, row.granted, max(0, -row.balance), row.held, 1)
    if slots is None:
        granted = row.prepaid if row.rollover else row.granted * row.slots
        return Part(row, row.balance, granted, row.over, row.held, row.slots)
    for slot in slots:
        if slot.no == row.no and slot.period == row.next_reset_at:
            granted = slot.granted if row.rollover else row.granted
            return Part(row, slot.balance, granted, max(0, -slot.balance), slot.held, 1)
    return Part(row, row.granted, row.granted, 0, 0, 1)


def _is_spent(part: Part) -> bool:
    """Whether it is a loose finite grant that is used up and that nothing refills by itself."""
    row = part.row
    plain = not row.plan_id and not row.flags & (UNLIMITED | BOOLEAN | PER_ENTITY | CONTINUOUS)
    return plain and not row.interval and not part.balance and not part.held


def open_ended(row: Row) -> bool:
    """Whether a bucket may be overdrawn without end."""
    return bool(row.flags & USAGE_ALLOWED) and row.purchasable < 0


def purchasable_of(parts: Sequence[Part]) -> int | None:
    """Units that may be used beyond the grants; None without a pay-per-use bucket or when one of them
    has no end."""
    caps = [(part.row.purchasable, part.times) for part in parts if part.row.flags & USAGE_ALLOWED]
    if not caps or any(cap < 0 for cap, _ in caps):
        return None
    return sum(cap * times for cap, times in caps)


def public_id(no: int) -> str:
    """The id of a customer's bucket by its number, unique within the customer."""
    return f"bkt_{no}"


def interval_count_of(row: Row | BucketLabel) -> int:
    """The interval count shown: 1 for lifetime."""
    return row.interval_count if row.interval else 1
