"""Guarantees P1 and P4 of the rules themselves, on the model: whatever the world and the calls,
nothing is spent beyond grants and what may be owed, and a refusal changes nothing.

The scripts are held against this model elsewhere, so what holds here holds there.
"""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.account import CUSTOMER, Bucket
from tests.model.calls import DONE, Model
from tests.model.walk import CAP, OVERFLOW, REJECT

from . import worlds
from .worlds import START, World

CALL = st.tuples(worlds.targets, worlds.amounts, st.integers(0, 3), worlds.hours_ahead | st.just(0))


def built(world: World) -> Model:
    """The model of a world, its entities opened first."""
    model = Model(world.catalog(), now=START)
    for entity_id, feature_id in world.entities:
        model.open_entity(entity_id, feature_id)
    for bucket in world.buckets:
        model.account.add(bucket)
    return model


def scope(model: Model, index: int) -> str:
    """The customer, or one of its entities."""
    return [CUSTOMER, *sorted(model.account.entities)][index % (1 + len(model.account.entities))]


def floor(model: Model, bucket: Bucket) -> int | None:
    """How low a balance may go without overflow; None for no end."""
    if bucket.usage_allowed:
        return None if bucket.purchasable is None else -bucket.purchasable
    return None if model.catalog[bucket.feature_id].continuous and not bucket.paid else 0


def balances(bucket: Bucket) -> list[int]:
    return [] if bucket.unlimited else list(bucket.slots.values()) if bucket.per_entity else [bucket.balance]


def state(model: Model) -> list:
    return [vars(bucket) | {"slots": dict(bucket.slots)} for bucket in model.account.buckets]


@settings(max_examples=60, deadline=None)
@given(worlds.worlds(), st.lists(st.tuples(CALL, st.sampled_from((CAP, REJECT))), max_size=12))
def test_p1_no_bucket_passes_its_floor_or_its_grant(world, calls):
    """P1: without overflow every balance stays between its floor and its grant."""
    model = built(world)
    for (target, amount, who, hours), mode in calls:
        model.advance(model.now + hours * worlds.HOUR_MS)
        answer = model.track({target: amount}, mode, scope(model, who))
        for feature in answer.features:
            assert min(0, feature.requested) <= feature.applied <= max(0, feature.requested)
        for bucket in model.account.buckets:
            low = floor(model, bucket)
            assert all(balance <= bucket.granted for balance in balances(bucket))
            assert low is None or all(balance >= low for balance in balances(bucket))
            assert bucket.used >= 0


@settings(max_examples=60, deadline=None)
@given(worlds.worlds(), st.lists(st.tuples(CALL, worlds.modes, st.booleans()), max_size=12))
def test_p4_a_refusal_changes_nothing_but_what_was_due(world, calls):
    """P4, and P8: a denied check and a rejected track leave every bucket as it was."""
    model = built(world)
    for (target, amount, who, hours), mode, is_check in calls:
        model.advance(model.now + hours * worlds.HOUR_MS)
        model.account.reset_due(model.now)
        before, entity = state(model), scope(model, who)
        if is_check:
            told = model.check(target, amount, entity)
            assert state(model) == before
            answer = model.check(target, amount, entity, send_event=True)
            assert answer.allowed == told.allowed
            assert answer.allowed or state(model) == before
        else:
            assert model.track({target: amount}, mode, entity).status == DONE or state(model) == before


@settings(max_examples=50, deadline=None)
@given(worlds.worlds(), st.lists(st.tuples(CALL, worlds.modes), max_size=8))
def test_changes_add_up_to_what_was_applied(world, calls):
    """Every unit applied is in the changes: one for one on the feature itself, and in whole where
    one credit system alone paid it all."""
    model = built(world)
    for (target, amount, who, _), mode in calls:
        for answer in model.track({target: amount}, mode, scope(model, who)).features:
            payers = {model.account.find(no).feature_id for no, _, _ in answer.changes}
            moved = -sum(delta for _, _, delta in answer.changes)
            rates = dict((system.id, rate) for system, rate in model.catalog.systems_of(target))
            if 0 in rates.values() or (rates and answer.applied < 0):
                continue  # what costs nothing, or rounds down to nothing, leaves no change
            if payers == {target}:
                assert moved == answer.applied
            if len(payers) == 1 and answer.left == 0 < answer.applied and (rate := rates.get(*payers)):
                assert moved == math.ceil(answer.applied * rate)


@settings(max_examples=40, deadline=None)
@given(worlds.worlds(), CALL, worlds.modes)
def test_p3_a_repeat_answers_the_same_and_changes_nothing(world, call, mode):
    """P3 without a Redis loss."""
    model, (target, amount, who, _) = built(world), call
    first = model.track({target: amount}, mode, scope(model, who), key="K")
    before = state(model)
    again = model.track({target: amount}, mode, scope(model, who), key="K")
    assert state(model) == before
    assert again.replayed == (first.status == DONE) and again.features == first.features


@settings(max_examples=40, deadline=None)
@given(worlds.worlds(), st.lists(st.integers(1, 2000), min_size=1, max_size=6))
def test_p6_it_does_not_matter_who_looked_when(world, hours):
    """P6: reading at every step and reading once at the end leave the same state."""
    often, once = built(world), built(World(world.features, world.entities, _copies(world)))
    for model in (often, once):
        model.track({"alpha": 20}, OVERFLOW)
    for step in hours:
        often.advance(often.now + step * worlds.HOUR_MS)
        often.account.reset_due(often.now)
    once.advance(often.now)
    once.account.reset_due(once.now)
    assert state(often) == state(once)
    assert set(often.account.owed) == set(once.account.owed)


def _copies(world: World) -> tuple[Bucket, ...]:
    return tuple(Bucket(**{**vars(bucket), "slots": {}}) for bucket in world.buckets)
