"""The balance model's nouns: a customer's account, what resets do to it, and what it shows.

This package is a plain Python twin of the balance rules (docs/balances.md), written to be read
beside them and obviously right; the property tests hold the real scripts against it. It knows
nothing of Redis, HTTP or SQL. Quantities are scaled ints, conversions are Fractions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from sidecar.domain.intervals import next_reset

from .buckets import (
    CUSTOMER, NEVER, Bucket, Part, Rollover, RolloverRule, all_parts, overage, roll_over, rollover_key, rollover_parts,
    spending_key,
)
from .features import Catalog, Feature

__all__ = [
    "CUSTOMER", "NEVER", "Account", "Bucket", "Catalog", "Feature", "Owed", "Part", "Rollover", "RolloverRule", "Sums",
    "overage", "spending_key",
]

FIRST_ROLLOVER = 1 << 31
"""Rollovers are numbered from here, buckets from 1."""


@dataclass(frozen=True)
class Owed:
    """Overage on a pay-per-use bucket that a period owes, or (in `credited`) owes no more."""

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
    """A customer: buckets, entities by id with their feature, and what its periods owed. Caps by
    (feature, entity or ''), window counters alike, events by number, open holds by lock id and how
    settled ones ended. `carry_debts`: a reset does not forgive debts on free buckets."""

    buckets: list[Bucket] = field(default_factory=list)
    entities: dict[str, str] = field(default_factory=dict)
    owed: list[Owed] = field(default_factory=list)
    credited: list[Owed] = field(default_factory=list)
    carry_debts: bool = False
    next_rollover: int = FIRST_ROLLOVER
    caps: dict[tuple[str, str], Any] = field(default_factory=dict)
    windows: dict[tuple[str, str, int, int], Any] = field(default_factory=dict)
    events: dict[int, Any] = field(default_factory=dict)
    open_holds: dict[str, Any] = field(default_factory=dict)
    settled: dict[str, tuple[str, int]] = field(default_factory=dict)

    def copy(self) -> Account:
        """An independent copy, for decisions that may come to nothing."""
        return replace(
            self, buckets=[b.copy() for b in self.buckets], entities=dict(self.entities), owed=list(self.owed),
            credited=list(self.credited), caps=dict(self.caps), windows=dict(self.windows), events=dict(self.events),
            open_holds=dict(self.open_holds), settled=dict(self.settled),
        )

    def add(self, bucket: Bucket) -> Bucket:
        """Grants a bucket; a grant per entity opens a slot for each of its feature's entities."""
        if bucket.per_entity:
            bucket.slots = {e: bucket.granted for e, f in self.entities.items() if f == bucket.entity_feature}
        self.buckets.append(bucket)
        return bucket

    def find(self, no: int) -> Bucket:
        """The bucket of that number."""
        return next(b for b in self.buckets if b.no == no)

    def part(self, name: tuple[int, str], now: int) -> Part | None:
        """The bucket, slot or rollover of this name; None if it is gone or has expired."""
        for bucket in self.buckets:
            if not bucket.expired(now):
                shared = [Part(bucket, bucket.entity_id)] if bucket.unlimited else all_parts(bucket)  # also without an entity
                for part in shared + rollover_parts(bucket, now):
                    if part.name == name:
                        return part
        return None

    def usable(self, feature_ids: set[str], now: int) -> list[Bucket]:
        """The buckets of these features that have not expired, whoever has them."""
        return [b for b in self.buckets if b.feature_id in feature_ids and not b.expired(now)]

    def parts(self, feature_ids: set[str], entity_id: str, now: int) -> list[Part]:
        """The buckets of these features that take part in a call of this scope, in order."""
        first, then = self._levels(feature_ids, entity_id, now, lambda b: all_parts(b))
        return sorted(first, key=spending_key) + sorted(then, key=spending_key)

    def rollovers(self, feature_ids: set[str], entity_id: str, now: int) -> list[Part]:
        """The rollovers that take part, in order: the soonest to expire first on both levels alike,
        and only of those that expire together the level that goes first with buckets."""
        first, then = self._levels(feature_ids, entity_id, now, lambda b: rollover_parts(b, now))
        in_order = sorted(first, key=rollover_key) + sorted(then, key=rollover_key)
        return sorted(in_order, key=lambda part: part.rollover.expires_at or NEVER)

    def _levels(self, feature_ids, entity_id, now, parts_of) -> tuple[list[Part], list[Part]]:
        """The parts of the level that goes first in a call of this scope, and of the other."""
        usable = self.usable(feature_ids, now)
        direct = [part for b in usable if _is_customers(b) for part in parts_of(b)]
        if entity_id == CUSTOMER:
            return direct, [part for b in usable if b.per_entity for part in parts_of(b)]
        own = [b for b in usable if entity_id in (b.entity_id, *b.slots)]
        return [replace(p, entity_id=entity_id) for b in own for p in parts_of(b) if _is_of(p, entity_id)], direct

    def holds(self, feature_ids: set[str], entity_id: str, now: int) -> bool:
        """Whether the scope has any usable bucket of these features; to a customer a grant per
        entity counts before there is an entity."""
        return any(_is_customers(b) or _in_scope(b, entity_id) for b in self.usable(feature_ids, now))

    def reset_due(self, now: int) -> None:
        """Resets every bucket whose period is over, one period after the other in order of time,
        just as if someone had looked at each reset date."""
        while due := [b for b in self.buckets if 0 < b.next_reset_at <= now]:
            bucket = min(due, key=lambda b: (b.next_reset_at, spending_key(Part(b, CUSTOMER))))
            self._reset(bucket, bucket.next_reset_at)

    def _reset(self, bucket: Bucket, at: int) -> None:
        """A reset on time: overage on pay-per-use is owed, what is unspent rolls over, then the
        balance is the grant again (less a debt that is carried)."""
        if overage(bucket) and bucket.usage_allowed:
            self.owed.append(Owed(bucket.no, overage(bucket), at))
        number = self.next_rollover
        for part in all_parts(bucket):
            bucket.before[at, part.entity_id] = part.balance
            if bucket.unlimited:
                continue
            if bucket.rolls:
                roll_over(bucket, part.entity_id, at, part.balance, number, at)
            debt = min(0, part.balance) if self.carry_debts and not bucket.usage_allowed else 0
            part.change(bucket.granted + debt - part.balance)
        if any(row.no == number for row in bucket.rollovers):
            self.next_rollover += 1
        bucket.used = 0
        bucket.next_reset_at = next_reset(bucket.anchor, bucket.interval, bucket.interval_count, at)

    def sums(self, feature_id: str, entity_id: str, now: int) -> Sums:
        """The feature as seen by a scope: a customer sees every entity's buckets, an entity its
        own and the customer-level ones; rollovers count with them."""
        if entity_id == CUSTOMER:
            return _sums([p for b in self.usable({feature_id}, now) for p in all_parts(b) + rollover_parts(b, now)])
        return _sums(self.parts({feature_id}, entity_id, now) + self.rollovers({feature_id}, entity_id, now))


def _is_customers(bucket: Bucket) -> bool:
    return bucket.entity_id == CUSTOMER and not bucket.per_entity


def _in_scope(bucket: Bucket, entity_id: str) -> bool:
    if entity_id == CUSTOMER:
        return bucket.per_entity
    return entity_id == bucket.entity_id or entity_id in bucket.slots


def _is_of(part: Part, entity_id: str) -> bool:
    """Whether a part of an entity's buckets is the entity's own."""
    return part.entity_id == entity_id or part.unlimited


def _sums(parts: list[Part]) -> Sums:
    unlimited = [p for p in parts if p.unlimited]
    if unlimited:
        return Sums(True, 0, 0, 0, sum(p.bucket.used for p in unlimited))
    granted = sum(p.granted for p in parts)
    remaining = sum(max(0, p.balance) for p in parts)
    over = sum(max(0, -p.balance) for p in parts)
    return Sums(False, granted, remaining, over, granted - remaining + over)
