"""The balance model's rows: buckets, their rollovers, and what a walk takes from.

A bucket keeps its rollovers itself, one row per reset (and entity); docs/balances.md, "Resets".
Quantities are scaled ints.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from sidecar.domain.intervals import LIFETIME, MONTH, QUARTER, SEMI_ANNUAL, YEAR, add_interval, length_ms

CUSTOMER = ""
"""The scope of a call without entity, and the owner of a customer-level bucket."""

NEVER = 1 << 62


@dataclass(frozen=True)
class RolloverRule:
    """How an item rolls over: for `length` months (0: for ever), up to `max` units or
    `percent` (scaled: percent × 10^4) of the grant, rounded down; neither is no maximum."""

    length: int
    max: int | None = None
    percent: int | None = None

    def most(self, granted: int) -> int:
        """The units that a bucket's rollovers may hold together."""
        if self.percent is not None:
            return granted * self.percent // 1_000_000
        return NEVER if self.max is None else self.max


@dataclass
class Rollover:
    """What one reset carried over, of a bucket or of one entity's slot of it. `granted` is what it
    was made of: a trim lowers it with the balance, a spend does not. Rows made at one reset of a
    grant per entity have one number."""

    no: int
    balance: int
    granted: int
    expires_at: int = 0
    created_at: int = 0
    entity_id: str = CUSTOMER

    def expired(self, now: int) -> bool:
        return 0 < self.expires_at <= now


@dataclass
class Bucket:
    """What a customer holds of one item; `slots` has the balance of each entity of a grant per
    entity (then `balance` is unused). An unlimited bucket counts `used` instead of a balance, a
    grant per entity too: once for all its entities. `paid`: the item has a price. `plan_id` is
    empty for a loose grant. `before` has the balance that each reset found, by (instant, entity)."""

    no: int
    feature_id: str
    granted: int = 0
    balance: int = 0
    used: int = 0
    unlimited: bool = False
    usage_allowed: bool = False
    purchasable: int | None = None
    paid: bool = False
    interval: int = LIFETIME
    interval_count: int = 1
    anchor: int = 0
    next_reset_at: int = 0
    expires_at: int = 0
    entity_id: str = CUSTOMER
    entity_feature: str = ""
    add_on: bool = False
    plan_id: str = ""
    created_at: int = 0
    slots: dict[str, int] = field(default_factory=dict)
    rolls: RolloverRule | None = None
    rollovers: list[Rollover] = field(default_factory=list)
    before: dict[tuple[int, str], int] = field(default_factory=dict)

    @property
    def per_entity(self) -> bool:
        return self.entity_feature != ""

    def expired(self, now: int) -> bool:
        return 0 < self.expires_at <= now

    def copy(self) -> Bucket:
        """An independent copy."""
        rollovers = [replace(row) for row in self.rollovers]
        return replace(self, slots=dict(self.slots), rollovers=rollovers, before=dict(self.before))


@dataclass(frozen=True)
class Part:
    """What a walk takes from: a bucket, one entity's slot of a bucket, or a rollover of either."""

    bucket: Bucket
    entity_id: str
    rollover: Rollover | None = None

    @property
    def is_slot(self) -> bool:
        return self.bucket.per_entity and not self.bucket.unlimited

    @property
    def unlimited(self) -> bool:
        return self.bucket.unlimited and self.rollover is None

    @property
    def name(self) -> tuple[int, str]:
        """Number of the bucket or rollover, and the entity of a slot or ''."""
        return (self.rollover or self.bucket).no, self.entity_id if self.is_slot else CUSTOMER

    @property
    def granted(self) -> int:
        return (self.rollover or self.bucket).granted

    @property
    def balance(self) -> int:
        if self.rollover:
            return self.rollover.balance
        return self.bucket.slots[self.entity_id] if self.is_slot else self.bucket.balance

    def change(self, delta: int) -> None:
        """Adds delta to the balance; for an unlimited bucket, a debit counts as usage."""
        if self.rollover:
            self.rollover.balance += delta
        elif self.bucket.unlimited:
            self.bucket.used -= delta
        elif self.is_slot:
            self.bucket.slots[self.entity_id] += delta
        else:
            self.bucket.balance += delta


def spending_key(part: Part) -> tuple:
    """Order of buckets, first difference decides. Whether an entity's or the customer's buckets
    come first depends on the call, so it is not in here."""
    b = part.bucket
    return (
        not b.unlimited,
        b.interval == LIFETIME,
        length_ms(b.interval, b.interval_count),
        b.expires_at or NEVER,
        part.entity_id,
        b.add_on,
        b.usage_allowed,
        b.created_at,
        b.no,
    )


def rollover_key(part: Part) -> tuple:
    """Order of rollovers: the soonest to expire first, never last; then as buckets go, older first."""
    row = part.rollover
    return row.expires_at or NEVER, part.entity_id, row.created_at, spending_key(part)


def all_parts(bucket: Bucket) -> list[Part]:
    """A bucket's balances: itself, or each entity's slot."""
    if not bucket.per_entity:
        return [Part(bucket, bucket.entity_id)]
    if bucket.unlimited:
        return [Part(bucket, CUSTOMER)] if bucket.slots else []
    return [Part(bucket, e) for e in bucket.slots]


def rollover_parts(bucket: Bucket, now: int) -> list[Part]:
    """A bucket's rollovers that have not expired."""
    return [Part(bucket, row.entity_id or bucket.entity_id, row) for row in bucket.rollovers if not row.expired(now)]


def overage(bucket: Bucket) -> int:
    """Units below zero, over all slots."""
    return sum(max(0, -part.balance) for part in all_parts(bucket))


def rollover_end(bucket: Bucket, reset_at: int) -> int:
    """When what rolls over at this reset expires; 0 for never. `length` months from the reset, on
    the anchor's day where the interval is of months, else on the reset's."""
    months = bucket.rolls.length
    if months == 0:
        return 0
    if bucket.interval in (MONTH, QUARTER, SEMI_ANNUAL, YEAR):
        anchor, at = (datetime.fromtimestamp(ms / 1000, timezone.utc) for ms in (bucket.anchor, reset_at))
        passed = (at.year - anchor.year) * 12 + at.month - anchor.month
        return add_interval(bucket.anchor, MONTH, 1, passed + months)
    return add_interval(reset_at, MONTH, 1, months)


def roll_over(bucket: Bucket, entity_id: str, reset_at: int, units: int, no: int, now: int) -> int:
    """Adds units to the rollover that this reset makes (for ever: the one row there is), then trims
    all to the maximum. `no` is for a row that has to be made. Returns what the row got."""
    expires_at = rollover_end(bucket, reset_at)
    bucket.rollovers = [row for row in bucket.rollovers if not row.expired(now)]
    if units <= 0 or 0 < expires_at <= now:
        return 0
    slot = entity_id if bucket.per_entity else CUSTOMER
    mine = [row for row in bucket.rollovers if row.entity_id == slot]
    row = next((r for r in mine if (r.created_at == reset_at if expires_at else not r.expires_at)), None)
    if row is None:
        row = Rollover(no, 0, 0, expires_at, reset_at, slot)
        bucket.rollovers.append(row)
    had = row.balance
    if expires_at:  # a row that never expires is made of many resets
        units = max(0, min(units, bucket.rolls.most(bucket.granted) - row.granted))
    row.granted += units
    row.balance += units
    trim(bucket, slot)
    return row.balance - had


def trim(bucket: Bucket, slot: str) -> None:
    """Cuts what is above the maximum of the rollovers of a bucket or slot, the soonest-expiring
    first. A row that is cut to nothing is gone; one that was spent stays until it expires."""
    mine = sorted((r for r in bucket.rollovers if r.entity_id == slot), key=lambda r: (r.expires_at or NEVER, r.created_at))
    surplus = sum(row.balance for row in mine) - bucket.rolls.most(bucket.granted)
    for row in mine:
        cut = max(0, min(surplus, row.balance))
        surplus -= cut
        row.balance -= cut
        row.granted -= cut
    bucket.rollovers = [row for row in bucket.rollovers if row.granted or row.balance]
