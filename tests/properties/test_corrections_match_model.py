"""Guarantee: what people correct by hand moves live balances as the model does, for the customer and for
each entity, whatever calls, resets and entities come between.

SIDECAR_LONG=1 runs the long form. A failure prints the example and the line that repeats it.
"""

from __future__ import annotations

import os
from typing import Iterator

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.model.balances import NOT_FOUND
from tests.model.calls import DONE

from .machine import Comparison, whose
from .subject import Scripts
from .test_scripts_match_model import compare
from .verbs import Verbs
from .whole import COUNTED
from .worlds import World, worlds

EXAMPLES, STEPS = (3_000, 40) if os.environ.get("SIDECAR_LONG") == "1" else (200, 20)
features = st.sampled_from((*COUNTED, "seat"))


class Corrections(Comparison):
    """One customer, twice, whose balances are corrected between calls."""

    subject: Verbs

    @initialize(world=worlds())
    def begin(self, world: World) -> None:
        super().begin(world)

    @rule(
        feature_id=features, what=st.sampled_from(("remaining", "usage", "add")), value=st.integers(-8, 20), who=whose,
        some=st.integers(0, 7),
    )
    def correct(self, feature_id: str, what: str, value: int, who: int, some: int) -> None:
        self.pin()
        self.model.due()
        entity_id = self.scope(who)
        parts = self.model.account.parts({feature_id}, entity_id, self.model.now)
        numbers = sorted({part.bucket.no for part in parts if not part.unlimited})
        if some and numbers:
            numbers = numbers[some % len(numbers):]
        expected = self.model.set_balance(feature_id, what, value, entity_id, numbers)
        refused = self.subject.correct(feature_id, entity_id, numbers, what, value)
        assert expected == (NOT_FOUND if refused else DONE)
        self.compare()

    @precondition(lambda self: any(not b.unlimited for b in self.model.account.buckets))
    @rule(index=st.integers(0, 8), granted=st.integers(0, 20))
    def regrant(self, index: int, granted: int) -> None:
        self.pin()
        self.model.due()
        finite = [b for b in self.model.account.buckets if not (b.unlimited or b.paid) and b.feature_id != "flag"]
        if finite:
            bucket = finite[index % len(finite)]
            self.model.set_grant(bucket.no, granted)
            self.subject.set_grant(bucket, granted)
        self.compare()

    @rule(feature_id=features, who=whose)
    def recalculate(self, feature_id: str, who: int) -> None:
        self.pin()
        self.model.recalculate(feature_id, self.scope(who))
        self.subject.recalculate(feature_id, self.scope(who))
        self.compare()

    @precondition(lambda self: self.model.account.buckets)
    @rule(index=st.integers(0, 8), again=st.booleans())
    def delete(self, index: int, again: bool) -> None:
        self.pin()
        self.model.due()
        loose = [
            b for b in self.model.account.buckets
            if not b.per_entity and b.feature_id != "flag" and not 0 < b.expires_at <= self.model.now
        ]
        if loose:
            bucket = loose[index % len(loose)]
            self.subject.delete(bucket, again)
            self.model.delete_bucket(bucket.no, again)
        self.compare()


@pytest.fixture
def client(valkey) -> Iterator[redis.Redis]:
    opened = redis.Redis(unix_socket_path=valkey.socket_path)
    yield opened
    opened.close()


def test_corrections_do_as_the_model_does(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.properties.machine.Subject", Verbs)
    compare(Scripts(client), Corrections, max_examples=EXAMPLES, stateful_step_count=STEPS, print_blob=True)
