"""The stateful property test: random calls, each made on the model and on the scripts, compared.

Guarantee: every answer and every counter of the scripts is the model's (promises P1, P3, P4, P6,
P8). A failure prints the steps of the smallest example found and how to repeat it.
"""

from __future__ import annotations

import itertools
from typing import Any, Hashable

import msgpack
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from sidecar.settings import Settings
from tests.model.account import CUSTOMER
from tests.model.calls import (
    CONFLICT, DONE, INSUFFICIENT, REFUSED, USAGE_LIMIT_EXCEEDED, CheckAnswer, Model, TrackAnswer,
)

from . import compare, worlds
from .subject import Scripts, Subject
from .worlds import EVENT, START, World

KEY_TTL_MS = 24 * worlds.HOUR_MS + worlds.OFF_THE_MINUTE_MS
SETTINGS = Settings(idempotency_ttl_s=KEY_TTL_MS // 1000, partitions=1)
_customers = itertools.count()

whose = st.sampled_from((0, 0, 0, 1, 2, 3))
keyed = st.sampled_from((None, None, None, "k1", "k2"))


class Comparison(RuleBasedStateMachine):
    """One customer, twice. Subclasses set `real`."""

    real: Scripts

    @initialize(world=worlds.worlds())
    def begin(self, world: World) -> None:
        self.model = Model(world.catalog(), now=START, key_ttl_ms=KEY_TTL_MS)
        self.no = 0
        self.last_keyed: tuple[Hashable, ...] | None = None
        self.first: dict[Hashable, list[Any]] = {}
        self.pin()
        self.subject = Subject(self.real, f"c{next(_customers)}", world.real_catalog(), SETTINGS)
        for bucket in world.buckets:
            if bucket.entity_id == CUSTOMER:
                self.add(bucket)
        for entity_id, feature_id in world.entities:
            self.open(entity_id, feature_id)
        for bucket in world.buckets:
            if bucket.entity_id in self.model.account.entities:
                self.add(bucket)
        self.compare()

    # -- calls -----------------------------------------------------------------------------------

    @rule(feature_id=worlds.targets, amount=worlds.amounts, mode=worlds.modes, who=whose, key=keyed)
    def track(self, feature_id: str, amount: int, mode: str, who: int, key: str | None) -> None:
        self.do_track({feature_id: amount}, mode, self.scope(who), key)

    @rule(amount=worlds.amounts, mode=worlds.modes, who=whose, key=keyed)
    def event(self, amount: int, mode: str, who: int, key: str | None) -> None:
        fed = self.model.catalog.features_of_event(EVENT)
        self.do_track(dict.fromkeys(fed, amount), mode, self.scope(who), key)

    @rule(feature_id=worlds.targets, amount=worlds.amounts, who=whose, key=keyed, send=st.booleans())
    def check(self, feature_id: str, amount: int, who: int, key: str | None, send: bool) -> None:
        self.do_check(feature_id, amount, self.scope(who), send, key if send else None)

    @precondition(lambda self: self.last_keyed is not None)
    @rule(other=st.sampled_from((0, 0, 1)))
    def repeat(self, other: int) -> None:
        """The last call with a key once more, or another one under its key."""
        kind, *call, key = self.last_keyed
        if kind == "track":
            values, mode, entity_id = call
            if entity_id in ("", *self.model.account.entities):
                self.do_track({f: amount + other for f, amount in values}, mode, entity_id, key)
        else:
            target, amount, entity_id = call
            if entity_id in ("", *self.model.account.entities):
                self.do_check(target, amount + other, entity_id, True, key)

    @rule(hours=worlds.hours_ahead)
    def advance(self, hours: int) -> None:
        self.model.advance(self.model.now + hours * worlds.HOUR_MS)

    @rule(entity_id=st.sampled_from(worlds.ENTITY_IDS), feature_id=st.sampled_from(worlds.ENTITY_FEATURES))
    def open_or_close(self, entity_id: str, feature_id: str) -> None:
        """Opens an entity, or closes it."""
        self.entity(entity_id, feature_id)

    def entity(self, entity_id: str, feature_id: str) -> None:
        if entity_id not in self.model.account.entities:
            self.open(entity_id, feature_id)
        else:
            feature_id = self.model.account.entities[entity_id]
            self.pin()
            self.model.close_entity(entity_id)
            self.subject.close_entity(entity_id, feature_id, self.seat(feature_id))
        self.compare()

    @precondition(lambda self: len(self.model.account.buckets) < 9)
    @rule(draft=worlds.drafts)
    def grant(self, draft: worlds.Draft) -> None:
        self.add(draft.bucket(0, self.model.now, tuple(self.model.account.entities.items())))
        self.compare()

    @precondition(lambda self: self.model.account.buckets)
    @rule(index=st.integers(0, 7))
    def revoke(self, index: int) -> None:
        bucket = self.model.account.buckets[index % len(self.model.account.buckets)]
        self.pin()
        self.model.due()
        self.model.account.buckets.remove(bucket)
        self.subject.revoke(bucket)
        self.compare()

    @rule()
    def look(self) -> None:
        self.pin()
        self.model.due()
        self.subject.look()
        self.compare()

    def teardown(self) -> None:
        if getattr(self, "agreed", False):
            self.look()
            compare.same_log(self.model, self.subject.state(), self.subject.records())
        elif hasattr(self, "last"):  # the difference is told already; this helps to see it
            note(f"last call, key, model's answer, script's code and answer: {self.last}")
            note(f"the model's buckets: {self.model.account.buckets}")

    # -- one call on both sides ------------------------------------------------------------------

    def do_track(self, values: dict[str, int], mode: str, entity_id: str, key: str | None) -> None:
        call = ("track", tuple(values.items()), mode, entity_id)
        self.pin()
        expected = self.model.track(values, mode, entity_id, key, call)
        code, *got = self.subject.track(values, mode, entity_id, key, repr(call).encode())
        self.last = (call, key, expected, code, got)
        if expected.status == DONE and not expected.replayed:
            assert code == b"OK", code
            self.same_track(expected, got)
        self.same_refusal_or_replay(expected.status, expected.replayed, code, got, key, call)
        shown = (values, entity_id, got[5], got[6]) if code == b"OK" else None
        self.compare(shown)

    def same_track(self, expected: TrackAnswer, got: list[Any]) -> None:
        _id, _now, applied, dropped, held, _own, _entities, parts = got
        assert applied == [answer.applied for answer in expected.features]
        assert [bool(flag) for flag in held] == [answer.held for answer in expected.features]
        for answer, left in zip(expected.features, dropped):
            flag = self.model.catalog[answer.feature_id].type == "boolean"
            assert flag or not answer.held or left == abs(answer.left)
        assert compare.told(parts, self.subject.state()) == compare.changes(expected.features, self.model)

    def do_check(self, target: str, amount: int, entity_id: str, send: bool, key: str | None) -> None:
        call = ("check", target, amount, entity_id)
        self.pin()
        expected = self.model.check(target, amount, entity_id, send, key, call)
        code, *got = self.subject.check(target, amount, entity_id, send, key, repr(call).encode())
        self.last = (call, key, expected, code, got)
        conflict = expected.reason == CONFLICT
        if not conflict and not expected.replayed:
            assert code == b"OK", code
            self.same_check(target, expected, got)
        status = CONFLICT if conflict else DONE
        if expected.allowed or conflict:
            self.same_refusal_or_replay(status, expected.replayed, code, got, key if send else None, call)
        shown = ({target: amount}, entity_id, got[6], got[7]) if code == b"OK" else None
        self.compare(shown)

    def same_check(self, target: str, expected: CheckAnswer, got: list[Any]) -> None:
        event_id, _now, allowed, reason, shown, required, _own, _entities, parts = got
        assert (bool(allowed), reason.decode() or None) == (expected.allowed, expected.reason)
        names = [target, *(s.id for s, _ in self.model.catalog.systems_of(target))]
        assert (names[shown], required) == (expected.shown, expected.required)
        spent = (expected.spent,) if expected.spent else ()
        assert compare.told(parts, self.subject.state()) == compare.changes(spent, self.model)
        assert bool(event_id) == bool(spent)

    def same_refusal_or_replay(
        self, status: str, replayed: bool, code: bytes, got: list[Any], key: str | None, call: Hashable
    ) -> None:
        if status == CONFLICT:
            assert code == b"CONFLICT", code
        elif status in (INSUFFICIENT, USAGE_LIMIT_EXCEEDED):
            assert code == b"REFUSED", code
        elif replayed:
            assert code == b"REPLAY", code
            first = self.first[key, call]
            assert got[0] == first[0] and msgpack.unpackb(got[1], raw=True) == first[1:]
        elif key is not None:
            self.last_keyed = (*call, key)
            self.first[key, call] = got

    # -- within ----------------------------------------------------------------------------------

    def pin(self) -> None:
        self.agreed = False
        self.real.set_clock(self.model.now)

    def scope(self, who: int) -> str:
        """The customer, or one of its entities."""
        entities = sorted(self.model.account.entities)
        return entities[who % len(entities)] if who and entities else CUSTOMER

    def seat(self, feature_id: str) -> int:
        return 10 ** self.model.catalog[feature_id].precision

    def open(self, entity_id: str, feature_id: str) -> None:
        self.pin()
        accepted = self.model.open_entity(entity_id, feature_id) != REFUSED
        assert self.subject.open_entity(entity_id, feature_id, self.seat(feature_id)) == accepted

    def add(self, bucket: Any) -> None:
        self.no += 1
        bucket.no, bucket.slots = self.no, {}
        self.pin()
        self.model.due()
        self.subject.grant(bucket)
        self.model.account.add(bucket)

    def compare(self, shown: tuple[Any, ...] | None = None) -> None:
        """Redis stands as the model; what a call showed is what Redis holds after it."""
        state = self.subject.state()
        compare.same_state(self.model, state)
        if shown:
            values, entity_id, own, entities = shown
            assert (own, entities) == state.blobs(self.subject.touched(values), entity_id)
        self.agreed = True
