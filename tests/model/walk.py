"""The balance model's verbs: which buckets pay, how much of each, and what a refund gives back.

A walk is a list of steps in spending order: the feature's own parts, then those of its credit
systems. Every step says which *pool* it belongs to; the feature itself is a pool at the rate 1,
so that units and credits need no separate code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from .account import Account, Part
from .caps import Limits
from .features import Catalog, Feature

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
    feature: Feature
    """The feature of the part: the call's own, or a credit system."""


@dataclass(frozen=True)
class Change:
    """One draw on a part, or what a refund put there; `healed`: onto a debt."""

    step: Step
    delta: int
    healed: bool = False


@dataclass(frozen=True)
class Outcome:
    """Units applied (signed like the request) and what is left of it, and each change in order."""

    applied: int
    left: int
    changes: tuple[Change, ...]


def walk(catalog: Catalog, account: Account, feature_id: str, entity_id: str, now: int) -> list[Step]:
    """The order of spending: the feature itself, then its credit systems in one list, in each the
    rollovers before the buckets. An unlimited bucket among the feature's own alone pays."""
    own = account.parts({feature_id}, entity_id, now)
    if own and any(part.unlimited for part in own):
        return own_steps(catalog[feature_id], own)
    own = own_steps(catalog[feature_id], account.rollovers({feature_id}, entity_id, now) + own)
    systems = {system.id: (Pool(cost), system) for system, cost in catalog.systems_of(feature_id)}
    theirs = account.rollovers(set(systems), entity_id, now) + account.parts(set(systems), entity_id, now)
    return own + [Step(part, *systems[part.bucket.feature_id]) for part in theirs]


def own_steps(feature: Feature, parts: list[Part]) -> list[Step]:
    """The steps of a feature's own parts; of the first unlimited one alone if there is any."""
    unlimited = [part for part in parts if part.unlimited]
    pool = Pool(Fraction(1))
    return [Step(part, pool, feature) for part in unlimited[:1] or parts]


def apply(feature: Feature, steps: list[Step], value: int, mode: str, limits: Limits) -> Outcome:
    """Applies a value to a walk, changing its buckets, as far as the mode lets it. (Refusing what
    does not fit is up to the caller, who works on a copy.)"""
    if value < 0:
        return refund(steps, -value, mode)
    room = None if feature.is_system or mode == OVERFLOW else limits.window_room(feature.id)
    outcome = spend(steps, value if room is None else min(value, room), mode, limits)
    return Outcome(outcome.applied, value - outcome.applied, outcome.changes)


def spend(steps: list[Step], units: int, mode: str, limits: Limits) -> Outcome:
    """Pass 1 takes each bucket down to zero; pass 2, with something outstanding, takes those that
    may go negative down to their floors. A usage limit window of a credit system is a further
    bound on what its buckets (not rollovers) give."""
    left, changes = units, []
    native = {step.feature.id for step in steps if step.part.bucket.usage_allowed}
    for room_of in (_room_above_zero, lambda step: _room_above_floor(step, mode, limits, native)):
        for step in steps:
            room = room_of(step)
            if left == 0 or room == INELIGIBLE:
                continue
            credits, paid = step.pool.pay(left, _within_window(step, room, mode, limits, changes))
            left -= paid
            _change(step, -credits, changes)
    return Outcome(units - left, left, tuple(changes))


def refund(steps: list[Step], units: int, mode: str) -> Outcome:
    """Heals negative balances to zero over the whole order, then refills each to its grant over
    the whole order; the rest is dropped, or in overflow goes on the first bucket, if that is
    finite. Rollovers get nothing. An unlimited bucket gives back what it has counted, in the
    second pass."""
    left, changes = units, []
    steps = [step for step in steps if not step.part.rollover]
    for room_of in (_room_to_heal, _room_to_refill):
        for step in steps:
            room = room_of(step.part)
            if left == 0 or room <= 0:
                continue
            credits, given = step.pool.give_back(left, room)
            left -= given
            _change(step, credits, changes, healed=room_of is _room_to_heal)
    if left and mode == OVERFLOW and steps and not steps[0].part.unlimited:
        credits, given = steps[0].pool.give_back(left, None)
        left -= given
        _change(steps[0], credits, changes)
    return Outcome(left - units, -left, tuple(changes))


INELIGIBLE = -1


def _room_above_zero(step: Step) -> int | None:
    return None if step.part.unlimited else max(0, step.part.balance)


def _room_above_floor(step: Step, mode: str, limits: Limits, native: set[str]) -> int | None:
    if not _may_go_negative(step, mode, limits, native):
        return INELIGIBLE
    return floor_room(step.part, mode, limits)


def floor_room(part: Part, mode: str, limits: Limits) -> int | None:
    """What a finite bucket may give down to its floor; None where it has none: a spend limit, in
    every mode, else the usage limit, which overflow does not mind."""
    spend_room = limits.spend_room(part.bucket.feature_id)
    if spend_room is not None:
        return max(0, part.balance) + spend_room
    if mode == OVERFLOW or part.bucket.purchasable is None:
        return None
    return max(0, part.balance + part.bucket.purchasable)


def _may_go_negative(step: Step, mode: str, limits: Limits, native: set[str]) -> bool:
    """`native`: the features that have pay-per-use buckets in this walk, where switching overage on
    adds nothing."""
    bucket, control = step.part.bucket, limits.control(step.feature.id)
    if step.part.rollover or bucket.unlimited:
        return False
    if mode == OVERFLOW:
        return True
    if control is False:
        return False
    if bucket.usage_allowed or (control and step.feature.id not in native):
        return True
    return not bucket.paid and step.feature.continuous and mode != REJECT


def _within_window(step: Step, room: int | None, mode: str, limits: Limits, changes: list[Change]) -> int | None:
    """The room of a part within its credit system's windows, of which this call has had some."""
    if not step.feature.is_system or step.part.rollover or mode == OVERFLOW:
        return room
    window = limits.window_room(step.feature.id)
    if window is None:
        return room
    window = max(0, window - drawn(step.feature.id, changes))
    return window if room is None else min(room, window)


def drawn(system_id: str, changes: list[Change] | tuple[Change, ...]) -> int:
    """The credits that these changes drew from a system's buckets, rollovers left out."""
    ours = [c for c in changes if c.step.feature.id == system_id and not c.step.part.rollover]
    return -sum(change.delta for change in ours)


def _room_to_heal(part: Part) -> int:
    return 0 if part.unlimited else max(0, -part.balance)


def _room_to_refill(part: Part) -> int:
    if part.unlimited:
        return part.bucket.used
    return part.bucket.granted - max(0, part.balance)


def _change(step: Step, delta: int, changes: list[Change], healed: bool = False) -> None:
    step.part.change(delta)
    if delta:
        changes.append(Change(step, delta, healed))
