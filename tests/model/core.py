"""The balance model's machinery: what is due, one feature's share of a call, why a call is denied,
events and idempotency keys. The calls themselves build on it (calls, holds, refunds, balances).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Callable, Hashable

from .account import Account
from .caps import Counted, Limits
from .features import Catalog
from .receipts import Receipt, receipt_of
from .walk import REJECT, Outcome, Step, apply, drawn, spend, walk

DONE = "done"
INSUFFICIENT = "insufficient_balance"
NOT_HELD = "not_held"
USAGE_LIMIT = "usage_limit"
SPEND_LIMIT = "spend_limit"
HELD_BY_OTHERS = "held_by_others"
USAGE_LIMIT_EXCEEDED = "usage_limit_exceeded"
CONFLICT = "duplicate_idempotency_key"
REFUSED = "refused"


@dataclass(frozen=True)
class FeatureAnswer:
    """What an event did to one feature: requested and applied units, what did not fit of them, and
    each bucket's change as (bucket or rollover number, entity of a slot or '', delta), in order."""

    feature_id: str
    held: bool
    requested: int
    applied: int
    left: int = 0
    changes: tuple[tuple[int, str, int], ...] = ()


@dataclass(frozen=True)
class TrackAnswer:
    """The outcome of an event, why it was refused, and the number of the event that was recorded."""

    status: str
    features: tuple[FeatureAnswer, ...] = ()
    replayed: bool = False
    reason: str | None = None
    event: int | None = None


@dataclass(frozen=True)
class CheckAnswer:
    """The decision, the reason of a denial, and which feature's balance is shown with what is
    required of it. `spent` is the event of a `send_event` or hold that was allowed."""

    allowed: bool
    reason: str | None
    shown: str
    required: int
    spent: FeatureAnswer | None = None
    replayed: bool = False
    event: int | None = None


@dataclass(frozen=True)
class Share:
    """One feature's share of an event: the answer, who paid, and which windows counted it. `undone`
    units of what was applied undid a hold, and have no receipt."""

    answer: FeatureAnswer
    receipt: Receipt = ()
    counted: tuple[Counted, ...] = ()
    undone: int = 0

    @property
    def units(self) -> int:
        """What can be returned of it: the units it used."""
        return max(0, self.answer.applied - self.undone)


@dataclass(frozen=True)
class Event:
    """A recorded event. `returned` units are given back already, by feature; the event of a hold
    has nothing to return while the hold is open. `is_refund`: it returned another one's units."""

    at: int
    entity_id: str
    shares: tuple[Share, ...]
    returned: tuple[int, ...]
    is_refund: bool = False
    lock_id: str | None = None


@dataclass
class Core:
    catalog: Catalog
    account: Account = field(default_factory=Account)
    now: int = 0
    key_ttl_ms: int = 86_400_000
    keys: dict[str, tuple[Hashable, TrackAnswer | CheckAnswer, int]] = field(default_factory=dict)
    """The live idempotency keys: call, first answer, end."""
    persist_free_overage: bool = False

    def __post_init__(self) -> None:
        self.account.carry_debts = self.persist_free_overage

    def advance(self, now: int) -> None:
        """Moves time; resets and expiries happen when someone looks."""
        self.now = max(self.now, now)

    def due(self) -> None:
        """Carries out what is due: resets, then the release of holds that have expired."""
        self.account.reset_due(self.now)

    # -- one feature of a call -------------------------------------------------------------------

    def limits(self, account: Account, entity_id: str, **switches: bool) -> Limits:
        """The caps in force on an account for a scope."""
        return Limits(account, entity_id, self.now, **switches)

    def is_held(self, account: Account, feature_id: str, entity_id: str) -> bool:
        """Whether the scope has anything of the feature or of a credit system of it."""
        systems = {system.id for system, _ in self.catalog.systems_of(feature_id)}
        return account.holds({feature_id} | systems, entity_id, self.now)

    def share(
        self, account: Account, feature_id: str, value: int, mode: str, entity_id: str, paid: Receipt = ()
    ) -> Share:
        """Applies a value to one feature of this account, as far as it goes. What was `paid` before of
        the same use counts in the conversion of credits, which is one for the whole."""
        feature = self.catalog[feature_id]
        if feature.type == "boolean":
            held = account.holds({feature_id}, entity_id, self.now)
            return Share(FeatureAnswer(feature_id, held, value, 0))
        if not self.is_held(account, feature_id, entity_id):
            return Share(FeatureAnswer(feature_id, False, value, 0))
        steps = walk(self.catalog, account, feature_id, entity_id, self.now)
        _go_on(steps, paid)
        limits = self.limits(account, entity_id)
        outcome = apply(feature, steps, value, mode, limits)
        answer = FeatureAnswer(feature_id, True, value, outcome.applied, outcome.left, numbers(outcome))
        return Share(answer, receipt_of(outcome, self.now), self.count(feature_id, steps, outcome, limits))

    def count(self, feature_id: str, steps: list[Step], outcome: Outcome, limits: Limits) -> tuple[Counted, ...]:
        """Counts what was used in the usage limit windows: units of the feature, and credits of
        every system's buckets. What is given back gives no room."""
        if outcome.applied < 0 or not steps:
            return ()
        counted = [] if self.catalog[feature_id].is_system else limits.count(feature_id, outcome.applied)
        for system_id in dict.fromkeys(step.feature.id for step in steps if step.feature.is_system):
            counted += limits.count(system_id, drawn(system_id, outcome.changes))
        return tuple(counted)

    # -- denials ---------------------------------------------------------------------------------

    def reason(self, account: Account, feature_id: str, required: int, entity_id: str) -> str:
        """Why a spend of what is held does not fit: the first cause that applies. A cap applies if
        less would be left over without it."""
        left = self._left(account, feature_id, required, entity_id)
        room = self.limits(account, entity_id).window_room(feature_id)
        if not self.catalog[feature_id].is_system and room is not None and required > room:
            return USAGE_LIMIT
        if self._left(account, feature_id, required, entity_id, windows=False) < left:
            return USAGE_LIMIT
        if self._left(account, feature_id, required, entity_id, spend=False) < left:
            return SPEND_LIMIT
        released = self.with_all_released(account)
        if self._left(released, feature_id, required, entity_id) == 0:
            return HELD_BY_OTHERS
        return INSUFFICIENT

    def _left(self, account: Account, feature_id: str, required: int, entity_id: str, **switches: bool) -> int:
        """What no bucket takes of an amount, the feature's own windows left aside."""
        account = account.copy()
        steps = walk(self.catalog, account, feature_id, entity_id, self.now)
        return spend(steps, required, REJECT, self.limits(account, entity_id, **switches)).left

    def with_all_released(self, account: Account) -> Account:
        """A copy of the account on which every open hold is released."""
        raise NotImplementedError

    # -- events and keys -------------------------------------------------------------------------

    def record(self, account: Account, entity_id: str, shares: tuple[Share, ...], **more) -> int:
        """Writes an event; returns its number."""
        number = len(account.events) + 1
        account.events[number] = Event(self.now, entity_id, shares, (0,) * len(shares), **more)
        return number

    def once(self, key: str | None, call: Hashable, conflict, act: Callable):
        """An answer under an idempotency key: the first one again for the same call, `conflict` for
        another; a refused call leaves its key free."""
        if key in self.keys and self.keys[key][2] > self.now:
            first_call, answer, _ = self.keys[key]
            return replace(answer, replayed=True) if first_call == call else conflict
        answer = act()
        stands = answer.allowed if isinstance(answer, CheckAnswer) else answer.status == DONE
        if key is not None and stands:
            self.keys[key] = (call, answer, self.now + self.key_ttl_ms)
        return answer


def numbers(outcome: Outcome) -> tuple[tuple[int, str, int], ...]:
    """An outcome's changes as an answer tells them."""
    return tuple((*change.step.part.name, change.delta) for change in outcome.changes)


def _go_on(steps: list[Step], paid: Receipt) -> None:
    """Begins the conversion of each credit system with what it paid before."""
    pools = {step.feature.id: step.pool for step in steps if step.feature.is_system}
    for system_id, pool in pools.items():
        pool.credits = sum(draw.amount for draw in paid if draw.feature_id == system_id and draw.rate == pool.rate)
        pool.units = math.floor(pool.credits / pool.rate) if pool.credits else 0
