"""The balance model's caps: spend limits, usage limit windows and overage control in force.

Caps are given as they hold after the tiers are resolved: an entry for the customer, and one for an
entity that has some of its own. docs/balances.md, "Caps".
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

from sidecar.domain.intervals import DAY, LIFETIME, MONTH, WEEK, YEAR, add_interval

from .account import CUSTOMER, Account
from .buckets import Bucket, Part, all_parts, spending_key

ABSOLUTE, PERCENT = 0, 1
BILLING_CYCLE, UTC = 0, 1

NO_END = 1 << 60
"""What a spend limit leaves that leaves everything."""
_MONDAY = 4 * 86_400_000
_CALENDAR = {DAY: 0, WEEK: _MONDAY, MONTH: 0, YEAR: 0}
"""A date at which the calendar's day, week, month and year begin (1970-01-01, or the Monday after)."""


@dataclass(frozen=True)
class Caps:
    """The caps of a feature; None is none here (an entity then has the customer's). `spend` has
    (kind, value) pairs, a percentage scaled by 10^4; `windows` (limit, interval, anchor kind).
    Empty ones say that there are none, and hide the customer's. `control` off forbids overage."""

    spend: tuple[tuple[int, int], ...] | None = None
    control: bool | None = None
    windows: tuple[tuple[int, int, int], ...] | None = None


@dataclass(frozen=True)
class Window:
    """A counter of what was used from `start` until `end`."""

    start: int
    end: int
    used: int


Counted = tuple[str, str, int, int, int]
"""Where something was counted: feature, entity or '', interval, anchor kind, the window's start."""


@dataclass(frozen=True)
class Limits:
    """The caps in force for a call of this scope. Without `windows` it tells what would be without
    those, without `spend` what would be if spend limits left everything: that is how the reason of a
    denial is found. (A spend limit stands in for usage limits, so without one there may be less.)"""

    account: Account
    entity_id: str
    now: int
    windows: bool = True
    spend: bool = True

    def control(self, feature_id: str) -> bool | None:
        """Whether overage is switched on or off; None where nothing says so."""
        return self._in_force(feature_id, "control")[1]

    def spend_room(self, feature_id: str) -> int | None:
        """What spend limits still leave of the feature's overage; None where there is none."""
        owner, limits = self._in_force(feature_id, "spend")
        if not limits:
            return None
        rooms = [value for kind, value in limits if kind == ABSOLUTE]
        if base := self._base(feature_id, owner):
            rooms += [base * value // 1_000_000 for kind, value in limits if kind == PERCENT]
        over = sum(max(0, -part.balance) for part in self._in_scope(feature_id, owner))
        if not rooms:
            return None
        return max(0, min(rooms) - over) if self.spend else NO_END

    def window_room(self, feature_id: str) -> int | None:
        """What the tightest window of the feature leaves; None where there is none."""
        owner, windows = self._in_force(feature_id, "windows")
        if not self.windows or not windows:
            return None
        return min(max(0, limit - self._counter(feature_id, owner, *kind).used) for limit, *kind in windows)

    def count(self, feature_id: str, amount: int) -> list[Counted]:
        """Counts an amount in every window of the feature, once each; tells where."""
        owner, windows = self._in_force(feature_id, "windows")
        counted = []
        for interval, anchor in dict.fromkeys((i, a) for _, i, a in windows or ()) if amount else ():
            counter = self._counter(feature_id, owner, interval, anchor)
            self.account.windows[feature_id, owner, interval, anchor] = replace(counter, used=counter.used + amount)
            counted.append((feature_id, owner, interval, anchor, counter.start))
        return counted

    def _in_force(self, feature_id: str, what: str):
        """Whose entry is in force ('' the customer's), and what it says."""
        for owner in (self.entity_id, CUSTOMER):
            caps = self.account.caps.get((feature_id, owner))
            if caps and getattr(caps, what) is not None:
                return owner, getattr(caps, what)
        return CUSTOMER, None

    def _in_scope(self, feature_id: str, owner: str) -> list[Part]:
        """The customer's and all entities' buckets; for an entity's own entry, its and the customer's."""
        if owner == CUSTOMER:
            parts = [part for b in self.account.usable({feature_id}, self.now) for part in all_parts(b)]
        else:
            parts = self.account.parts({feature_id}, owner, self.now)
        return [part for part in parts if not part.unlimited]

    def _base(self, feature_id: str, owner: str) -> int:
        """What percentages are of: grants that recur and come from main plans."""
        buckets = [part.bucket for part in self._in_scope(feature_id, owner)]
        return sum(b.granted for b in buckets if b.interval != LIFETIME and b.plan_id and not b.add_on)

    def _counter(self, feature_id: str, owner: str, interval: int, anchor: int) -> Window:
        """The counter of the window that is open now; one of another start is over."""
        start, end = self._bounds(feature_id, owner, interval, anchor)
        stored = self.account.windows.get((feature_id, owner, interval, anchor))
        return stored if stored and stored.start == start else Window(start, end, 0)

    def _bounds(self, feature_id: str, owner: str, interval: int, anchor: int) -> tuple[int, int]:
        first = self._first_recurring(feature_id, owner) if anchor == BILLING_CYCLE else None
        origin = first.anchor if first else _CALENDAR[interval]
        k = bisect_right(range(-40_000, 80_000), self.now, key=lambda k: add_interval(origin, interval, 1, k)) - 40_001
        return add_interval(origin, interval, 1, k), add_interval(origin, interval, 1, k + 1)

    def _first_recurring(self, feature_id: str, owner: str) -> Bucket | None:
        """The first bucket that resets, in spending order: of the customer (before there are
        entities too), or of the entity."""
        if owner == CUSTOMER:
            usable = [b for b in self.account.usable({feature_id}, self.now) if b.entity_id == CUSTOMER]
            ordered = sorted(usable, key=lambda b: (b.per_entity, spending_key(Part(b, CUSTOMER))))
        else:
            ordered = [part.bucket for part in self.account.parts({feature_id}, owner, self.now)]
        return next((b for b in ordered if b.interval != LIFETIME), None)


def give_room_back(account: Account, counted: list[Counted], feature_id: str, amount: int, now: int) -> None:
    """Takes an amount off the windows that counted it, as far as they are still open."""
    for of_feature, owner, interval, anchor, start in counted:
        counter = account.windows.get((of_feature, owner, interval, anchor))
        if of_feature == feature_id and counter and counter.start == start and now < counter.end:
            account.windows[of_feature, owner, interval, anchor] = replace(counter, used=max(0, counter.used - amount))
