"""The balance model's receipts: which parts paid an event, and how units go back to them.

A receipt has the draws in the order in which they were made. What F units would have taken is found
by walking F over it as if its draws were the buckets; the rest goes back, the last draw first.
docs/balances.md, "Refunds" and "Holds".
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from .account import Account, Owed
from .buckets import Bucket, Part, roll_over, trim
from .caps import Limits
from .features import Catalog
from .walk import CAP, Outcome, Pool, floor_room, refund, walk

Changes = list[tuple[tuple[int, str], int]]
"""What happened to parts by name, in order."""


@dataclass(frozen=True)
class Draw:
    """One draw: `amount` taken (negative: put there, `healed` on a debt) from the part of this name
    in `bucket_no`, of a feature converted at `rate`, at an instant. Of a rollover: when it ends."""

    name: tuple[int, str]
    bucket_no: int
    feature_id: str
    rate: Fraction
    amount: int
    at: int
    healed: bool = False
    is_rollover: bool = False
    expires_at: int = 0


Receipt = tuple[Draw, ...]


def receipt_of(outcome: Outcome, now: int) -> Receipt:
    """The draws of an outcome."""
    return tuple(
        Draw(
            c.step.part.name, c.step.part.bucket.no, c.step.feature.id, c.step.pool.rate, -c.delta, now, c.healed,
            c.step.part.rollover is not None, c.step.part.rollover.expires_at if c.step.part.rollover else 0,
        ) for c in outcome.changes
    )


def walked(receipt: Receipt, units: int) -> list[int]:
    """What a walk of so many units over a receipt takes from each draw (or gives, where the draws
    gave), systems converted as a whole."""
    pools: dict[str, Pool] = {}
    left, amounts = abs(units), []
    for draw in receipt:
        pool = pools.setdefault(draw.feature_id, Pool(draw.rate))
        move = pool.pay if draw.amount > 0 else pool.give_back
        credits, done = move(left, abs(draw.amount)) if left else (0, 0)
        left -= done
        amounts.append(credits)
    return amounts


def rest(receipt: Receipt, units: int) -> list[int]:
    """What such a walk does not take of each draw."""
    return [abs(draw.amount) - amount for draw, amount in zip(receipt, walked(receipt, units))]


@dataclass(frozen=True)
class Undoing:
    """Gives back what draws took, and takes back what they gave, on an account as it is now."""

    catalog: Catalog
    account: Account
    entity_id: str
    now: int

    def undo(self, receipt: Receipt, amounts: list[int]) -> Changes:
        """Undoes an amount of each draw, the last one first."""
        changes: Changes = []
        for draw, amount in reversed(list(zip(receipt, amounts))):
            if amount:
                changes += self._give_back(draw, amount) if draw.amount > 0 else self._take_back(draw, amount)
        return changes

    def _give_back(self, draw: Draw, amount: int) -> Changes:
        part = self.account.part(draw.name, self.now)
        if draw.is_rollover and 0 < draw.expires_at <= self.now:
            return []
        if part is None:
            bucket = next((b for b in self.account.buckets if b.no == draw.bucket_no), None)
            trimmed_away = draw.is_rollover and bucket is not None and not bucket.expired(self.now)
            return [] if trimmed_away else self._plain(draw.feature_id, amount)
        if part.rollover:
            return self._to_rollover(part, amount)
        reset_at = first_reset_after(part, draw.at)
        if part.unlimited:
            return [] if reset_at else _changed(part, min(amount, part.bucket.used))
        if reset_at:
            return self._across(part, reset_at, amount)
        return _changed(part, min(amount, max(0, part.granted - part.balance)))

    def _to_rollover(self, part: Part, amount: int) -> Changes:
        """Up to what the row was made of; what a reset since would have cut is cut."""
        before = _balances(part.bucket)
        part.change(min(amount, part.granted - part.balance))
        trim(part.bucket, part.rollover.entity_id)
        return _differences(before, _balances(part.bucket))

    def _across(self, part: Part, reset_at: int, amount: int) -> Changes:
        """What the amount would have done just before that reset: less of the overage billed or
        carried there, then a larger rollover; a reset refilled the bucket itself anyway."""
        bucket, key = part.bucket, (reset_at, part.entity_id)
        found = bucket.before[key]
        bucket.before[key] = then = min(found + amount, max(found, bucket.granted))
        less_over = max(0, -found) - max(0, -then)
        changes: Changes = []
        if less_over and bucket.usage_allowed:
            self.account.credited.append(Owed(bucket.no, less_over, reset_at))
        elif less_over and self.account.carry_debts:
            changes = _changed(part, min(less_over, max(0, bucket.granted - part.balance)))
        if bucket.rolls:
            before = _balances(bucket)
            roll_over(bucket, part.entity_id, reset_at, max(0, then) - max(0, found), self.account.next_rollover, self.now)
            self.account.next_rollover += any(row.no == self.account.next_rollover for row in bucket.rollovers)
            changes += _differences(before, _balances(bucket))
        return changes

    def _plain(self, feature_id: str, amount: int) -> Changes:
        """A plain refund of the feature whose bucket is gone, as the call that paid would make it."""
        steps = walk(self.catalog, self.account, feature_id, self.entity_id, self.now)
        return [(c.step.part.name, c.delta) for c in refund(steps, amount, CAP).changes]

    def _take_back(self, draw: Draw, amount: int) -> Changes:
        """A healed debt comes back down to the bucket's floor, what was refilled is taken as far as
        the bucket still has it. From a bucket that is gone or was reset since, nothing."""
        part = self.account.part(draw.name, self.now)
        if part is None or first_reset_after(part, draw.at) is not None:
            return []
        if part.unlimited:
            return _changed(part, -amount)
        room = floor_room(part, CAP, Limits(self.account, self.entity_id, self.now)) if draw.healed else max(0, part.balance)
        return _changed(part, -(amount if room is None else min(amount, room)))


def first_reset_after(part: Part, at: int) -> int | None:
    """The first reset of a bucket or slot since an instant."""
    return min((t for t, entity_id in part.bucket.before if t > at and entity_id == part.entity_id), default=None)


def _changed(part: Part, delta: int) -> Changes:
    part.change(delta)
    return [(part.name, delta)] if delta else []


def _balances(bucket: Bucket) -> dict[tuple[int, str], int]:
    return {(row.no, row.entity_id): row.balance for row in bucket.rollovers}


def _differences(before: dict, after: dict) -> Changes:
    both = [(name, after.get(name, 0) - before.get(name, 0)) for name in {**before, **after}]
    return [(name, delta) for name, delta in both if delta]
