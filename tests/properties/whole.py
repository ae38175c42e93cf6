"""The stateful property test of the whole engine: what `machine` compares, with rollovers, caps, holds,
exact refunds and corrections beside it.
"""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from sidecar.domain import intervals
from tests.model.account import CUSTOMER
from tests.model.buckets import Bucket, RolloverRule
from tests.model.calls import DONE, Model
from tests.model.caps import Caps

from . import worlds
from .machine import KEY_TTL_MS, SETTINGS, Comparison, whose
from .verbs import Entry, Verbs, rows_by_feature, windows_of
from .worlds import HOUR_MS, START, World

_customers = itertools.count()
LOCKS = st.sampled_from(("l1", "l2", "l3"))
COUNTED = ("alpha", "beta", *worlds.SYSTEMS)
SLOW = (intervals.MONTH, intervals.QUARTER)
"""Intervals whose rollovers stay few."""

_rules = st.one_of(
    st.none(), st.none(),
    st.builds(
        RolloverRule, st.sampled_from((0, 1, 2, 4)), st.one_of(st.none(), st.integers(0, 15)), st.none()
    ),
    st.builds(RolloverRule, st.sampled_from((0, 1, 3)), st.none(), st.sampled_from((0, 335_000, 1_000_000))),
)
_spend = st.one_of(
    st.none(), st.just(()), st.tuples(st.tuples(st.just(0), st.integers(0, 6))),
    st.tuples(st.tuples(st.just(1), st.sampled_from((0, 300_000, 1_000_000)))),
    st.tuples(st.tuples(st.just(0), st.integers(0, 6)), st.tuples(st.just(1), st.sampled_from((500_000, 1_200_000)))),
)
_window = st.tuples(
    st.integers(0, 12), st.sampled_from((intervals.DAY, intervals.WEEK, intervals.MONTH)), st.sampled_from((0, 1))
)
_windows = st.one_of(st.none(), st.lists(_window, max_size=2).map(tuple))
caps_entries = st.builds(Caps, spend=_spend, control=st.sampled_from((None, None, True, False)), windows=_windows)


class Whole(Comparison):
    """One customer, twice, and everything that can happen to one."""

    @initialize(world=worlds.worlds(), rules=st.lists(_rules, min_size=8, max_size=8), carries=st.sampled_from((False, False, True)))
    def begin(self, world: World, rules: list[RolloverRule | None], carries: bool) -> None:
        self.model = Model(world.catalog(), now=START, key_ttl_ms=KEY_TTL_MS, persist_free_overage=carries)
        self.rules = itertools.cycle(rules)
        self.no, self.last_keyed, self.first = 0, None, {}
        self.entries: dict[int, Entry] = {}
        self.lock_of: dict[int, str] = {}
        self.changed_under_holds = False
        self.pin()
        self.subject: Verbs = Verbs(self.real, f"w{next(_customers)}", world.real_catalog(), SETTINGS.model_copy(update={"persist_free_overage": carries}))
        self.subject.carry_debts = int(carries)
        for bucket in world.buckets:
            if bucket.entity_id == CUSTOMER:
                self.add(bucket)
        for entity_id, feature_id in world.entities:
            self.open(entity_id, feature_id)
        for bucket in world.buckets:
            if bucket.entity_id in self.model.account.entities:
                self.add(bucket)
        self.compare()

    # -- caps ------------------------------------------------------------------------------------

    @rule(feature_id=st.sampled_from((*COUNTED, "seat")), who=whose, caps=st.one_of(st.none(), caps_entries, caps_entries))
    def cap(self, feature_id: str, who: int, caps: Caps | None) -> None:
        entity_id = self.scope(who)
        if caps is not None and entity_id == CUSTOMER:
            caps = Caps(caps.spend or None, caps.control, caps.windows or None)
        self.pin()
        self.model.set_caps(feature_id, caps, entity_id)
        self.subject.set_caps(feature_id, entity_id, caps, self.model.catalog[feature_id].is_system)
        self.compare()

    # -- holds -----------------------------------------------------------------------------------

    @precondition(lambda self: not self.model.persist_free_overage)
    @rule(lock_id=LOCKS, feature_id=st.sampled_from(COUNTED), amount=worlds.amounts, who=whose, hours=st.sampled_from((1, 2, 20)))
    def hold(self, lock_id: str, feature_id: str, amount: int, who: int, hours: int) -> None:
        self.pin()
        if lock_id in self.model.account.open_holds or (amount < 0 and self.rolls()):
            return
        entity_id, ends = self.scope(who), self.model.now + hours * HOUR_MS + worlds.OFF_THE_MINUTE_MS
        expected = self.model.hold(lock_id, feature_id, amount, entity_id, ends)
        code, *got = self.subject.hold(lock_id, feature_id, amount, entity_id, ends)
        self.last = ("hold", lock_id, expected, code, got)
        assert code == b"OK", code
        assert (bool(got[2]), got[3].decode() or None) == (expected.allowed, expected.reason)
        if expected.allowed:
            self.remember(expected.event, lock_id)
        self.compare()

    @precondition(lambda self: self.model.account.open_holds)
    @rule(lock_id=LOCKS, how=st.sampled_from(("keep", "release", "override", "override", "override")), final=worlds.amounts)
    def finalize(self, lock_id: str, how: str, final: int) -> None:
        self.pin()
        hold = self.model.account.open_holds.get(lock_id)
        if hold is None or (final < 0 and self.rolls()):
            return
        event = self.model.account.events[hold.event]
        feature_id = event.shares[0].answer.feature_id
        entity_id = event.entity_id if event.entity_id in ("", *self.model.account.entities) else ""
        action, override = ("release", None) if how == "release" else ("confirm", final if how == "override" else None)
        expected = self.model.finalize(lock_id, action, override)
        answer = self.subject.settle(lock_id, feature_id, entity_id, action, "" if override is None else override)
        self.last = ("finalize", lock_id, how, final, expected, answer)
        assert (expected.status, answer[0]) == (DONE, b"OK")
        if expected.event is not None and expected.feature.requested > 0 and event.shares[0].answer.requested > 0:
            self.remember(expected.event)
        self.compare()

    # -- exact refunds ---------------------------------------------------------------------------

    @precondition(lambda self: self.entries and not self.model.persist_free_overage)
    @rule(index=st.integers(0, 30), amount=st.one_of(st.none(), st.integers(1, 12)), mode=st.sampled_from(("cap", "reject")))
    def give_back(self, index: int, amount: int | None, mode: str) -> None:
        self.pin()
        number = sorted(self.entries)[index % len(self.entries)]
        event, entry = self.model.account.events[number], self.entries[number]
        if event.entity_id not in ("", *self.model.account.entities):
            return
        if any(h.event == number for h in self.model.account.open_holds.values()):
            assert self.subject.refund(entry, [0] * len(entry.shares), mode, self.lock_of[number])[0] == b"OPEN"
            return
        values = None if amount is None else {name: -amount for name, _, _ in entry.shares}
        if values is None and not any(self.model.left_of(number).values()):
            return  # nothing left of it: what that is told is the API's to say
        expected = self.model.refund_of(number, values, mode)
        amounts = [0 if values is None else -amount for _ in entry.shares]  # type: ignore[operator]
        code, *got = self.subject.refund(entry, amounts, mode, self.lock_of.get(number, ""))
        self.last = ("refund", number, entry, expected, code, got)
        assert (expected.status == DONE) == (code == b"OK"), (expected, code)
        if code == b"OK":
            assert got[2] == [answer.applied for answer in expected.features]
        self.compare()

    # -- corrections -----------------------------------------------------------------------------

    @rule(feature_id=st.sampled_from(COUNTED), what=st.sampled_from(("remaining", "usage", "add")), value=st.integers(-8, 20))
    def correct(self, feature_id: str, what: str, value: int) -> None:
        self.pin()
        parts = self.model.account.parts({feature_id}, CUSTOMER, self.model.now)
        if self.rolls() or not parts or any(part.unlimited for part in parts):
            return
        numbers = sorted({part.bucket.no for part in parts})
        assert self.model.set_balance(feature_id, what, value) == DONE
        assert not self.subject.correct(feature_id, CUSTOMER, numbers, what, value)
        self.compare()

    @rule(feature_id=st.sampled_from(COUNTED))
    def recalculate(self, feature_id: str) -> None:
        self.pin()
        if self.rolls() or self.model.account.entities:
            return
        self.model.recalculate(feature_id)
        self.subject.recalculate(feature_id, CUSTOMER)
        self.compare()

    def entity(self, entity_id: str, feature_id: str) -> None:
        """As ever, but for who has open holds: one of the same name later is another."""
        events = self.model.account.events
        if entity_id not in {events[hold.event].entity_id for hold in self.model.account.open_holds.values()}:
            self.changed_under_holds = self.changed_under_holds or bool(self.model.account.open_holds)
            super().entity(entity_id, feature_id)

    # -- within ----------------------------------------------------------------------------------

    def do_track(self, values: dict[str, int], mode: str, entity_id: str, key: str | None) -> None:
        if not (self.rolls() and any(amount < 0 for amount in values.values())):
            before = len(self.model.account.events)
            super().do_track(values, mode, entity_id, key)
            number = len(self.model.account.events)
            if number > before and all(amount > 0 for amount in values.values()):
                self.remember(number)

    def do_check(self, target: str, amount: int, entity_id: str, send: bool, key: str | None) -> None:
        if not (self.rolls() and amount < 0):
            super().do_check(target, amount, entity_id, send, key)

    def remember(self, number: int, lock_id: str | None = None) -> None:
        """The model's event of that number is the newest in the log."""
        shares = self.model.account.events[number].shares
        if any(share.answer.requested <= 0 for share in shares):
            return
        self.entries[number] = self.subject.last_entry()
        if lock_id:
            self.lock_of[number] = lock_id

    def rolls(self) -> bool:
        """Whether something rolls over: then nothing may lift a bucket that a hold or an event took
        from, because the scripts do not remember what a reset found."""
        return any(bucket.rolls for bucket in self.model.account.buckets)

    def add(self, bucket: Bucket) -> None:
        rule = next(self.rules)
        if rule and bucket.interval in SLOW and not bucket.usage_allowed and not bucket.unlimited:
            bucket.rolls = rule
        if bucket.paid or rule:
            bucket.plan_id = "plan"
        super().add(bucket)

    def pin(self) -> None:
        """Sets the clock, and ends the holds whose time is over, as the sweep does."""
        super().pin()
        if not hasattr(self, "subject"):
            return
        events = self.model.account.events
        owners = {lock: events[hold.event] for lock, hold in self.model.account.open_holds.items()}
        self.model.due()
        for lock_id, ends in self.subject.open_locks():
            if ends <= self.model.now:
                event = owners[lock_id]
                entity_id = event.entity_id if event.entity_id in ("", *self.model.account.entities) else ""
                answer = self.subject.settle(lock_id, event.shares[0].answer.feature_id, entity_id, "expire")
                assert answer[0] == b"OK", answer

    def compare(self, shown: tuple[Any, ...] | None = None) -> None:
        super().compare(shown)
        self.agreed = False
        state = self.subject.state()
        counters = windows_of(state.raw)
        for where, window in self.model.account.windows.items():
            start, used = counters.get(where, (0, 0))
            assert window.used == (used if start == window.start else 0) or window.end <= self.model.now, where
        assert {lock for lock, _ in self.subject.open_locks()} == set(self.model.account.open_holds)
        self.agreed = True

    def look(self) -> None:
        super().look()
        if self.changed_under_holds:  # the model knows entities by their names alone
            return
        held = rows_by_feature(self.subject.state().rows)
        slots = self.subject.state().slots
        for feature_id, rows in held.items():
            alive = [row for row in rows if not 0 < row.expires_at <= self.model.now]
            total = sum(row.held for row in alive)
            total += sum(
                slot.held for row in alive if row.per_entity
                for (no, _), slot in slots.items() if no == row.no and slot.period == row.next_reset_at
            )
            assert total == self.model.held(feature_id), f"held of {feature_id}"

    def teardown(self) -> None:
        if not getattr(self, "agreed", False) and hasattr(self, "model"):
            note(f"carries debts: {self.model.persist_free_overage}; caps {self.model.account.caps}")
        super().teardown()


