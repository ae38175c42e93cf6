"""The balance model's verbs: which buckets pay, how much of each, and what a refund gives back.

A walk is a list of steps in spending order: the feature's own parts, then those of its credit
systems. Every step says which *pool* it belongs to; the feature itself is a pool at the rate 1,
so that units and credits need no separate code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from .account import Account, Catalog, Part

CAP, REJECT, OVERFLOW = "cap", "reject", "overflow"


@dataclass
class Pool:
    """One feature's side of a call: converted as a whole, over all its buckets and both passes."""

    rate: Fraction
    units: int = 0
    credits: int = 0

    def pay(self, units: int, room: int | None) -> tuple[int, int]:
        """(credits taken, units paid) by a bucket with this room (None: no end) for `units`."""
        return self._move(units, room, math.ceil((self.units + units) * self.rate))

    def give_back(self, units: int, room: int | None) -> tuple[int, int]:
        """(credits given back, units that makes) to a bucket with this room."""
        return self._move(units, room, math.floor((self.units + units) * self.rate))

    def _move(self, units: int, room: int | None, total: int) -> tuple[int, int]:
        wanted = total - self.credits
        if room is None or wanted <= room:
            self.units += units
            self.credits = total
            return wanted, units
        self.credits += room
        done = math.floor(self.credits / self.rate) - self.units
        self.units += done
        return room, done


@dataclass(frozen=True)
class Step:
    part: Part
    pool: Pool


@dataclass(frozen=True)
class Outcome:
    """Units applied (signed like the request) and what is left of it, and each change in order."""

    applied: int
    left: int
    changes: tuple[tuple[Part, int], ...]


def walk(catalog: Catalog, account: Account, feature_id: str, entity_id: str, now: int) -> list[Step]:
    """The order of spending: the feature itself, then the buckets of all its credit systems in
    one list. An unlimited bucket among the feature's own alone pays."""
    own = own_steps(account.parts({feature_id}, entity_id, now))
    if own and own[0].part.bucket.unlimited:
        return own
    pools = {system.id: Pool(cost) for system, cost in catalog.systems_of(feature_id)}
    theirs = account.parts(set(pools), entity_id, now)
    return own + [Step(part, pools[part.bucket.feature_id]) for part in theirs]


def own_steps(parts: list[Part]) -> list[Step]:
    """The steps of a feature's own parts; of the first unlimited one alone if there is any."""
    unlimited = [part for part in parts if part.bucket.unlimited]
    pool = Pool(Fraction(1))
    return [Step(part, pool) for part in unlimited[:1] or parts]


def apply(catalog: Catalog, steps: list[Step], value: int, mode: str) -> Outcome:
    """Applies a value to a walk, changing its buckets, as far as the mode lets it. (Refusing what
    does not fit is up to the caller, who works on a copy.)"""
    return spend(catalog, steps, value, mode) if value >= 0 else refund(steps, -value, mode)


def spend(catalog: Catalog, steps: list[Step], units: int, mode: str) -> Outcome:
    """Pass 1 takes each bucket down to zero; pass 2, with something outstanding, takes those that
    may go negative down to their floors."""
    left, changes = units, []
    for room_of in (_room_above_zero, lambda part: _room_above_floor(catalog, part, mode)):
        for step in steps:
            room = room_of(step.part)
            if left == 0 or room == INELIGIBLE:
                continue
            credits, paid = step.pool.pay(left, room)
            left -= paid
            _change(step.part, -credits, changes)
    return Outcome(units - left, left, tuple(changes))


def refund(steps: list[Step], units: int, mode: str) -> Outcome:
    """Heals negative balances to zero over the whole order, then refills each to its grant over
    the whole order; the rest is dropped, or in overflow goes on the first bucket, if that is
    finite. An unlimited bucket gives back what it has counted, in the second pass."""
    left, changes = units, []
    for room_of in (_room_to_heal, _room_to_refill):
        for step in steps:
            room = room_of(step.part)
            if left == 0 or room <= 0:
                continue
            credits, given = step.pool.give_back(left, room)
            left -= given
            _change(step.part, credits, changes)
    if left and mode == OVERFLOW and steps and not steps[0].part.bucket.unlimited:
        credits, given = steps[0].pool.give_back(left, None)
        left -= given
        _change(steps[0].part, credits, changes)
    return Outcome(left - units, -left, tuple(changes))


INELIGIBLE = -1


def _room_above_zero(part: Part) -> int | None:
    return None if part.bucket.unlimited else max(0, part.balance)


def _room_above_floor(catalog: Catalog, part: Part, mode: str) -> int | None:
    if part.bucket.unlimited or not _may_go_negative(catalog, part, mode):
        return INELIGIBLE
    if mode == OVERFLOW or part.bucket.purchasable is None:
        return None
    return max(0, part.balance + part.bucket.purchasable)


def _may_go_negative(catalog: Catalog, part: Part, mode: str) -> bool:
    if part.bucket.usage_allowed or mode == OVERFLOW:
        return True
    return not part.bucket.paid and catalog[part.bucket.feature_id].continuous and mode != REJECT


def _room_to_heal(part: Part) -> int:
    return 0 if part.bucket.unlimited else max(0, -part.balance)


def _room_to_refill(part: Part) -> int:
    if part.bucket.unlimited:
        return part.bucket.used
    return part.bucket.granted - max(0, part.balance)


def _change(part: Part, delta: int, changes: list[tuple[Part, int]]) -> None:
    part.change(delta)
    if delta:
        changes.append((part, delta))
