"""The balance model's nouns: features, buckets, a customer's account, and what it shows.

This package is a plain Python twin of the balance rules (docs/balances.md), written to be read
beside them and obviously right; the property tests hold the real scripts against it. It knows
nothing of Redis, HTTP or SQL. Quantities are scaled ints, conversions are Fractions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction

from sidecar.domain.intervals import LIFETIME, length_ms, next_reset

CUSTOMER = ""
"""The scope of a call without entity, and the owner of a customer-level bucket."""

NEVER = 1 << 62


@dataclass(frozen=True)
class Feature:
    """A feature; `credit_schema` has scaled credits per scaled unit for each member."""

    id: str
    type: str = "single_use"
    precision: int = 6
    credit_schema: tuple[tuple[str, Fraction], ...] = ()
    event_names: tuple[str, ...] = ()

    @property
    def continuous(self) -> bool:
        return self.type == "continuous_use"


@dataclass(frozen=True)
class Catalog:
    """Features in order of creation, which decides among credit systems and event features."""

    features: tuple[Feature, ...]

    def __getitem__(self, feature_id: str) -> Feature:
        return next(f for f in self.features if f.id == feature_id)

    def systems_of(self, member: str) -> list[tuple[Feature, Fraction]]:
        return [(f, cost) for f in self.features for m, cost in f.credit_schema if m == member]

    def features_of_event(self, event_name: str) -> list[str]:
        return [f.id for f in self.features if event_name in f.event_names]


@dataclass
class Bucket:
    """What a customer holds of one item; `slots` has the balance of each entity of a grant per
    entity (then `balance` is unused). An unlimited bucket counts `used` instead of a balance, a
    grant per entity too: once for all its entities. `paid`: the item has a price."""

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
    created_at: int = 0
    slots: dict[str, int] = field(default_factory=dict)

    @property
    def per_entity(self) -> bool:
        return self.entity_feature != ""

    def expired(self, now: int) -> bool:
        return 0 < self.expires_at <= now


@dataclass(frozen=True)
class Part:
    """What a walk takes from: a bucket, or one entity's slot of a bucket."""

    bucket: Bucket
    entity_id: str

    @property
    def is_slot(self) -> bool:
        return self.bucket.per_entity and not self.bucket.unlimited

    @property
    def balance(self) -> int:
        return self.bucket.slots[self.entity_id] if self.is_slot else self.bucket.balance

    def change(self, delta: int) -> None:
        """Adds delta to the balance; for an unlimited bucket, a debit counts as usage."""
        if self.bucket.unlimited:
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


@dataclass(frozen=True)
class Owed:
    """Overage on a pay-per-use bucket that a period owes."""

    no: int
    units: int
    period_end: int


@dataclass(frozen=True)
class Sums:
    """What a feature's view adds up to; all 0 but `usage` when unlimited."""

    unlimited: bool
    granted: int
    remaining: int
    overage: int
    usage: int

    @property
    def balance(self) -> int:
        """The signed balance of version 1.2."""
        return self.remaining - self.overage


@dataclass
class Account:
    """A customer: buckets, entities by id with their feature, and what its periods owed."""

    buckets: list[Bucket] = field(default_factory=list)
    entities: dict[str, str] = field(default_factory=dict)
    owed: list[Owed] = field(default_factory=list)

    def copy(self) -> Account:
        """An independent copy, for decisions that may come to nothing."""
        buckets = [replace(b, slots=dict(b.slots)) for b in self.buckets]
        return Account(buckets, dict(self.entities), list(self.owed))

    def add(self, bucket: Bucket) -> Bucket:
        """Grants a bucket; a grant per entity opens a slot for each of its feature's entities."""
        if bucket.per_entity:
            bucket.slots = {e: bucket.granted for e, f in self.entities.items() if f == bucket.entity_feature}
        self.buckets.append(bucket)
        return bucket

    def find(self, no: int) -> Bucket:
        """The bucket of that number."""
        return next(b for b in self.buckets if b.no == no)

    def parts(self, feature_ids: set[str], entity_id: str, now: int) -> list[Part]:
        """The buckets of these features that take part in a call of this scope, in order."""
        usable = [b for b in self.buckets if b.feature_id in feature_ids and not b.expired(now)]
        direct = sorted((Part(b, CUSTOMER) for b in usable if _is_customers(b)), key=spending_key)
        if entity_id == CUSTOMER:
            slots = [part for b in usable if b.per_entity for part in _all_parts(b)]
            return direct + sorted(slots, key=spending_key)
        own = [Part(b, entity_id) for b in usable if entity_id in (b.entity_id, *b.slots)]
        return sorted(own, key=spending_key) + direct

    def holds(self, feature_ids: set[str], entity_id: str, now: int) -> bool:
        """Whether the scope has any usable bucket of these features; to a customer a grant per
        entity counts before there is an entity."""
        usable = [b for b in self.buckets if b.feature_id in feature_ids and not b.expired(now)]
        return any(_is_customers(b) or _in_scope(b, entity_id) for b in usable)

    def reset_due(self, now: int) -> None:
        """Resets every bucket whose period is over, to the state that resets on time would have
        left: overage on pay-per-use is owed, then the balance is the starting balance."""
        for bucket in self.buckets:
            if 0 < bucket.next_reset_at <= now:
                self._reset(bucket, now)

    def _reset(self, bucket: Bucket, now: int) -> None:
        if overage(bucket) and bucket.usage_allowed:
            self.owed.append(Owed(bucket.no, overage(bucket), bucket.next_reset_at))
        bucket.balance, bucket.used = bucket.granted, 0
        bucket.slots = dict.fromkeys(bucket.slots, bucket.granted)
        bucket.next_reset_at = next_reset(bucket.anchor, bucket.interval, bucket.interval_count, now)

    def sums(self, feature_id: str, entity_id: str, now: int) -> Sums:
        """The feature as seen by a scope: a customer sees every entity's buckets, an entity its
        own and the customer-level ones."""
        held = [b for b in self.buckets if b.feature_id == feature_id and not b.expired(now)]
        if entity_id == CUSTOMER:
            parts = [p for b in held for p in _all_parts(b)]
        else:
            parts = self.parts({feature_id}, entity_id, now)
        return _sums(parts)


def overage(bucket: Bucket) -> int:
    """Units below zero, over all slots."""
    return sum(max(0, -part.balance) for part in _all_parts(bucket))


def _is_customers(bucket: Bucket) -> bool:
    return bucket.entity_id == CUSTOMER and not bucket.per_entity


def _in_scope(bucket: Bucket, entity_id: str) -> bool:
    if entity_id == CUSTOMER:
        return bucket.per_entity
    return entity_id == bucket.entity_id or entity_id in bucket.slots


def _all_parts(bucket: Bucket) -> list[Part]:
    if not bucket.per_entity:
        return [Part(bucket, bucket.entity_id)]
    if bucket.unlimited:
        return [Part(bucket, CUSTOMER)] if bucket.slots else []
    return [Part(bucket, e) for e in bucket.slots]


def _sums(parts: list[Part]) -> Sums:
    unlimited = [p for p in parts if p.bucket.unlimited]
    if unlimited:
        return Sums(True, 0, 0, 0, sum(p.bucket.used for p in unlimited))
    granted = sum(p.bucket.granted for p in parts)
    remaining = sum(max(0, p.balance) for p in parts)
    over = sum(max(0, -p.balance) for p in parts)
    return Sums(False, granted, remaining, over, granted - remaining + over)
