"""The balance model's calls: track, check, entities, idempotency keys, time.

`Model` is one customer of one catalog with a clock of its own. A call first carries out what is
due, then decides on a copy of the account, and takes the copy only if the call stands: so a
refused call cannot have changed anything but what was due anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Hashable

from .account import CUSTOMER, Account, Catalog, Sums
from .walk import CAP, REJECT, Outcome, Step, apply, own_steps, walk

DONE = "done"
INSUFFICIENT = "insufficient_balance"
NOT_HELD = "not_held"
CONFLICT = "duplicate_idempotency_key"
REFUSED = "refused"


@dataclass(frozen=True)
class FeatureAnswer:
    """What an event did to one feature: requested and applied units, what did not fit of them, and
    each bucket's change as (bucket number, entity of a slot or '', delta)."""

    feature_id: str
    held: bool
    requested: int
    applied: int
    left: int = 0
    changes: tuple[tuple[int, str, int], ...] = ()


@dataclass(frozen=True)
class TrackAnswer:
    status: str
    features: tuple[FeatureAnswer, ...] = ()
    replayed: bool = False


@dataclass(frozen=True)
class CheckAnswer:
    """The decision, the reason of a denial, and which feature's balance is shown with what is
    required of it. `spent` is the event of a `send_event` that was allowed."""

    allowed: bool
    reason: str | None
    shown: str
    required: int
    spent: FeatureAnswer | None = None
    replayed: bool = False


@dataclass
class Model:
    catalog: Catalog
    account: Account = field(default_factory=Account)
    now: int = 0
    key_ttl_ms: int = 86_400_000
    keys: dict[str, tuple[Hashable, TrackAnswer | CheckAnswer, int]] = field(default_factory=dict)
    """The live idempotency keys: call, first answer, end."""

    def advance(self, now: int) -> None:
        """Moves time; resets happen when someone looks."""
        self.now = max(self.now, now)

    def sums(self, feature_id: str, entity_id: str = CUSTOMER) -> Sums:
        """The feature as a scope sees it now."""
        self.account.reset_due(self.now)
        return self.account.sums(feature_id, entity_id, self.now)

    def track(
        self, values: dict[str, int], mode: str = CAP, entity_id: str = CUSTOMER, key: str | None = None,
        call: Hashable = None,
    ) -> TrackAnswer:
        """An event of scaled value per feature, applied to all of them at once: in reject mode,
        all or none. `call` is what a repeat under the same key must equal."""
        self.account.reset_due(self.now)
        call = call if call is not None else ("track", tuple(values.items()), mode, entity_id)
        if self._remembers(key):
            return self._repeat(key, call, TrackAnswer(CONFLICT))
        account = self.account.copy()
        features = tuple(self._apply(account, f, value, mode, entity_id) for f, value in values.items())
        if mode == REJECT and any(_does_not_fit(answer) for answer in features):
            return TrackAnswer(INSUFFICIENT)
        self.account = account
        answer = TrackAnswer(DONE, features)
        self._remember(key, call, answer)
        return answer

    def check(
        self, feature_id: str, required: int, entity_id: str = CUSTOMER, send_event: bool = False,
        key: str | None = None, call: Hashable = None,
    ) -> CheckAnswer:
        """May this scope use `required` units; with `send_event`, use them if it may."""
        self.account.reset_due(self.now)
        call = call if call is not None else ("check", feature_id, required, entity_id, send_event)
        if send_event and self._remembers(key):
            return self._repeat(key, call, CheckAnswer(False, CONFLICT, feature_id, required))
        account = self.account.copy()
        spent = self._apply(account, feature_id, required, REJECT, entity_id)
        shown = self._shown(feature_id, required, entity_id)
        reason = NOT_HELD if not spent.held else INSUFFICIENT if _does_not_fit(spent) else None
        answer = CheckAnswer(reason is None, reason, shown, self._converted(feature_id, shown, required))
        if not send_event or reason:
            return answer
        self.account = account
        answer = replace(answer, spent=spent)
        self._remember(key, call, answer)
        return answer

    def open_entity(self, entity_id: str, feature_id: str) -> str:
        """Creates an entity: uses 1 of its feature where it is held, opens a slot at the starting
        balance in each grant per entity of that feature. Refused when the 1 does not fit."""
        self.account.reset_due(self.now)
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
        """Deletes an entity: gives the 1 back, drops its slots and the buckets attached to it."""
        self.account.reset_due(self.now)
        feature_id = self.account.entities.pop(entity_id)
        self._seat(self.account, feature_id, -1)
        self.account.buckets = [b for b in self.account.buckets if b.entity_id != entity_id]
        for bucket in self.account.buckets:
            bucket.slots.pop(entity_id, None)

    def _seat(self, account: Account, feature_id: str, seats: int) -> Outcome:
        """Uses (or gives back) an entity's unit of the customer's own buckets of the feature."""
        parts = account.parts({feature_id}, CUSTOMER, self.now)
        steps = own_steps([part for part in parts if not part.bucket.per_entity])
        if not steps or self.catalog[feature_id].type == "boolean":
            return Outcome(0, 0, ())
        return apply(self.catalog, steps, seats * 10 ** self.catalog[feature_id].precision, CAP)

    def _remembers(self, key: str | None) -> bool:
        return key in self.keys and self.keys[key][2] > self.now

    def _repeat(self, key, call, conflict):
        first_call, answer, _ = self.keys[key]
        return replace(answer, replayed=True) if first_call == call else conflict

    def _remember(self, key, call, answer) -> None:
        if key is not None:
            self.keys[key] = (call, answer, self.now + self.key_ttl_ms)

    def _apply(self, account: Account, feature_id: str, value: int, mode: str, entity_id: str) -> FeatureAnswer:
        """Applies a value to one feature of this account, as far as it goes."""
        if self.catalog[feature_id].type == "boolean":
            held = account.holds({feature_id}, entity_id, self.now)
            return FeatureAnswer(feature_id, held, value, 0)
        systems = {system.id for system, _ in self.catalog.systems_of(feature_id)}
        if not account.holds({feature_id} | systems, entity_id, self.now):
            return FeatureAnswer(feature_id, False, value, 0)
        steps = walk(self.catalog, account, feature_id, entity_id, self.now)
        outcome = apply(self.catalog, steps, value, mode)
        return FeatureAnswer(feature_id, True, value, outcome.applied, outcome.left, _numbers(outcome))

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
        if not self.account.holds({candidate}, entity_id, self.now):
            return False
        account = self.account.copy()
        steps = _only(candidate, walk(self.catalog, account, feature_id, entity_id, self.now))
        return required <= 0 or apply(self.catalog, steps, required, REJECT).left == 0

    def _converted(self, feature_id: str, shown: str, required: int) -> int:
        """What is required, in terms of the feature that is shown."""
        if shown == feature_id:
            return required
        rate = next(cost for s, cost in self.catalog.systems_of(feature_id) if s.id == shown)
        return -(-required * rate.numerator // rate.denominator)


def _only(feature_id: str, steps: list[Step]) -> list[Step]:
    return [step for step in steps if step.part.bucket.feature_id == feature_id]


def _does_not_fit(answer: FeatureAnswer) -> bool:
    return answer.left > 0


def _numbers(outcome: Outcome) -> tuple[tuple[int, str, int], ...]:
    return tuple(
        (part.bucket.no, part.entity_id if part.is_slot else "", delta) for part, delta in outcome.changes
    )
