"""The balance model's calls: track, check, entities, caps, time.

`Model` is one customer of one catalog with a clock of its own. A call first carries out what is
due, then decides on a copy of the account, and takes the copy only if the call stands: so a
refused call cannot have changed anything but what was due anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Hashable

from .account import CUSTOMER, Account, Sums
from .balances import Balances
from .caps import Caps
from .core import (
    CONFLICT, DONE, HELD_BY_OTHERS, INSUFFICIENT, NOT_HELD, REFUSED, SPEND_LIMIT, USAGE_LIMIT, USAGE_LIMIT_EXCEEDED,
    CheckAnswer, FeatureAnswer, Share, TrackAnswer,
)
from .holds import Holds
from .refunds import Refunds
from .walk import CAP, REJECT, Outcome, Step, apply, own_steps, walk

__all__ = [
    "CONFLICT", "DONE", "HELD_BY_OTHERS", "INSUFFICIENT", "NOT_HELD", "REFUSED", "SPEND_LIMIT", "USAGE_LIMIT",
    "USAGE_LIMIT_EXCEEDED", "CheckAnswer", "FeatureAnswer", "Model", "TrackAnswer",
]

LOCK_EXISTS = "lock_already_exists"


@dataclass
class Model(Holds, Refunds, Balances):
    """A customer; see core.Core for its fields."""

    def sums(self, feature_id: str, entity_id: str = CUSTOMER) -> Sums:
        """The feature as a scope sees it now."""
        self.due()
        return self.account.sums(feature_id, entity_id, self.now)

    def set_caps(self, feature_id: str, caps: Caps | None, entity_id: str = CUSTOMER) -> None:
        """Puts the caps of a feature in force, for the customer or as an entity's own; None: no more,
        and an entity's own counters are forgotten."""
        self.due()
        self.account.caps.pop((feature_id, entity_id), None)
        if caps is None and entity_id != CUSTOMER:
            windows = self.account.windows
            self.account.windows = {key: window for key, window in windows.items() if key[:2] != (feature_id, entity_id)}
        if caps is not None:
            self.account.caps[feature_id, entity_id] = caps

    def track(
        self, values: dict[str, int], mode: str = CAP, entity_id: str = CUSTOMER, key: str | None = None,
        call: Hashable = None,
    ) -> TrackAnswer:
        """An event of scaled value per feature, applied to all of them at once: in reject mode,
        all or none, and the first that does not fit says why. `call` is what a repeat under the
        same key must equal."""
        self.due()
        call = call if call is not None else ("track", tuple(values.items()), mode, entity_id)
        return self.once(key, call, TrackAnswer(CONFLICT), lambda: self._track(values, mode, entity_id))

    def _track(self, values: dict[str, int], mode: str, entity_id: str) -> TrackAnswer:
        account, shares = self.account.copy(), []
        for feature_id, value in values.items():
            before = account.copy()
            shares.append(self.share(account, feature_id, value, mode, entity_id))
            if mode == REJECT and _does_not_fit(shares[-1].answer):
                reason = self.reason(before, feature_id, value, entity_id)
                return TrackAnswer(USAGE_LIMIT_EXCEEDED if reason == USAGE_LIMIT else INSUFFICIENT, reason=reason)
        event = self.record(account, entity_id, tuple(shares))
        self.account = account
        return TrackAnswer(DONE, tuple(share.answer for share in shares), event=event)

    def check(
        self, feature_id: str, required: int, entity_id: str = CUSTOMER, send_event: bool = False,
        key: str | None = None, call: Hashable = None,
    ) -> CheckAnswer:
        """May this scope use `required` units; with `send_event`, use them if it may."""
        self.due()
        call = call if call is not None else ("check", feature_id, required, entity_id, send_event)
        if not send_event:
            return self._decide(feature_id, required, entity_id)[0]
        conflict = CheckAnswer(False, CONFLICT, feature_id, required)
        return self.once(key, call, conflict, lambda: self._send(feature_id, required, entity_id))

    def hold(
        self, lock_id: str, feature_id: str, required: int, entity_id: str = CUSTOMER, expires_at: int | None = None,
        key: str | None = None, call: Hashable = None,
    ) -> CheckAnswer:
        """A check that takes what it may under a lock until it is finalized, or `expires_at` (24 h by
        default) has come. A lock that is open is not taken twice; a settled one's id is free."""
        self.due()
        if self.catalog[feature_id].type in ("boolean", "continuous_use"):
            return CheckAnswer(False, REFUSED, feature_id, required)
        call = call if call is not None else ("hold", lock_id, feature_id, required, entity_id, expires_at)
        conflict = CheckAnswer(False, CONFLICT, feature_id, required)
        return self.once(key, call, conflict, lambda: self._hold(lock_id, feature_id, required, entity_id, expires_at))

    def _hold(self, lock_id: str, feature_id: str, required: int, entity_id: str, expires_at: int | None) -> CheckAnswer:
        if lock_id in self.account.open_holds:
            return CheckAnswer(False, LOCK_EXISTS, feature_id, required)
        answer = self._send(feature_id, required, entity_id, lock_id=lock_id)
        if answer.allowed:
            self.open_hold(lock_id, answer.event, expires_at)
        return answer

    def _send(self, feature_id: str, required: int, entity_id: str, **more) -> CheckAnswer:
        answer, account, share = self._decide(feature_id, required, entity_id)
        if not answer.allowed:
            return answer
        event = self.record(account, entity_id, (share,), **more)
        self.account = account
        return replace(answer, spent=share.answer, event=event)

    def _decide(self, feature_id: str, required: int, entity_id: str) -> tuple[CheckAnswer, Account, Share]:
        """The answer, and the account as it would be after the event."""
        account = self.account.copy()
        share = self.share(account, feature_id, required, REJECT, entity_id)
        reason = None
        if not share.answer.held:
            reason = NOT_HELD
        elif _does_not_fit(share.answer):
            reason = self.reason(self.account, feature_id, required, entity_id)
        shown = self._shown(feature_id, required, entity_id)
        return CheckAnswer(reason is None, reason, shown, self._converted(feature_id, shown, required)), account, share

    def open_entity(self, entity_id: str, feature_id: str) -> str:
        """Creates an entity: uses 1 of its feature where it is held, opens a slot at the starting
        balance in each grant per entity of that feature. Refused when the 1 does not fit."""
        self.due()
        account = self.account.copy()
        if self._seat(account, feature_id, 1).left > 0:
            return REFUSED
        account.entities[entity_id] = feature_id
        for bucket in account.buckets:
            if bucket.entity_feature == feature_id:
                bucket.slots[entity_id] = bucket.granted
        self.account = account
        return DONE

    def close_entity(self, entity_id: str) -> None:
        """Deletes an entity: gives the 1 back, drops its slots with their rollovers and the buckets
        attached to it."""
        self.due()
        feature_id = self.account.entities.pop(entity_id)
        self._seat(self.account, feature_id, -1)
        self.account.buckets = [b for b in self.account.buckets if b.entity_id != entity_id]
        for bucket in self.account.buckets:
            if bucket.slots.pop(entity_id, None) is not None:
                bucket.rollovers = [row for row in bucket.rollovers if row.entity_id != entity_id]
        self.account.caps = {key: caps for key, caps in self.account.caps.items() if key[1] != entity_id}
        self.account.windows = {key: window for key, window in self.account.windows.items() if key[1] != entity_id}

    def _seat(self, account: Account, feature_id: str, seats: int) -> Outcome:
        """Uses (or gives back) an entity's unit of the customer's own buckets of the feature. Caps are
        for what callers use: a seat is bounded by what is held."""
        feature = self.catalog[feature_id]
        parts = account.rollovers({feature_id}, CUSTOMER, self.now) + account.parts({feature_id}, CUSTOMER, self.now)
        steps = own_steps(feature, [part for part in parts if not part.bucket.per_entity])
        if not steps or feature.type == "boolean":
            return Outcome(0, 0, ())
        limits = self.limits(replace(account, caps={}), CUSTOMER)
        return apply(feature, steps, seats * 10**feature.precision, CAP, limits)

    def _shown(self, feature_id: str, required: int, entity_id: str) -> str:
        """The feature if it alone suffices, else the first held credit system that does, else the
        first held credit system, else the feature."""
        systems = [s.id for s, _ in self.catalog.systems_of(feature_id)]
        held = [s for s in systems if self.account.holds({s}, entity_id, self.now)]
        for candidate in [feature_id, *held]:
            if self._suffices_alone(candidate, feature_id, required, entity_id):
                return candidate
        return held[0] if held else feature_id

    def _suffices_alone(self, candidate: str, feature_id: str, required: int, entity_id: str) -> bool:
        """Whether the candidate's buckets would do, within the caps in force."""
        if not self.account.holds({candidate}, entity_id, self.now):
            return False
        account = self.account.copy()
        steps = _only(candidate, walk(self.catalog, account, feature_id, entity_id, self.now))
        if required <= 0:
            return True
        return apply(self.catalog[feature_id], steps, required, REJECT, self.limits(account, entity_id)).left == 0

    def _converted(self, feature_id: str, shown: str, required: int) -> int:
        """What is required, in terms of the feature that is shown."""
        if shown == feature_id:
            return required
        rate = next(cost for s, cost in self.catalog.systems_of(feature_id) if s.id == shown)
        return -(-required * rate.numerator // rate.denominator)


def _only(feature_id: str, steps: list[Step]) -> list[Step]:
    return [step for step in steps if step.feature.id == feature_id]


def _does_not_fit(answer: FeatureAnswer) -> bool:
    return answer.left > 0
