"""The model gives the numbers of the worked cases of exact refunds and of balances that are set.

Guarantee: each test is one worked case (or a few of one kind), with real quantities at precision 6.
"""

from __future__ import annotations

from fractions import Fraction

import pytest

from .balances import NOT_FOUND
from .calls import DONE, INSUFFICIENT, REFUSED
from .features import Feature
from .refunds import EVENT_NOT_FOUND
from .walk import OVERFLOW, REJECT
from .world import World, credits_world, s


def tracked(w: World, value, feature="msg") -> int:
    """Tracks a value; the number of its event."""
    return w.model.track({feature: s(value)}).event


# Exact refunds


def test_case_234_back_to_the_very_buckets_last_first():
    w = World()
    month, life = w.bucket(100), w.bucket(50, "lifetime")
    event = tracked(w, 120)
    for value, expected in ((-30, (10, 50)), (-30, (40, 50)), (None, (100, 50))):
        answer = w.model.refund_of(event, None if value is None else {"msg": s(value)})
        assert answer.status == DONE and (w.left(month), w.left(life)) == expected
    again = w.model.refund_of(event)
    assert again.features[0].applied == 0 and (w.left(month), w.left(life)) == (100, 50)
    assert w.model.refund_of(event, mode=REJECT).status == INSUFFICIENT


def test_case_230_a_refund_across_a_reset_is_dropped():
    w = World()
    w.bucket(100)
    event = tracked(w, 40)
    w.month_later()
    w.model.refund_of(event)
    assert (w.r(), w.u()) == (100, 0)


def test_case_239_repeated_refunds_convert_as_a_whole():
    schema = (("one", Fraction(7, 5)),)
    w = World(Feature("one", precision=0), Feature("c", "credit_system", 0, schema))
    pool = w.bucket(0, feature="c")
    w.model.set_grant(pool, 100)
    event = w.model.track({"one": 3}).event
    assert w.find(pool).balance == 95
    for balance in (97, 98, 100):
        w.model.refund_of(event, {"one": -1})
        assert w.find(pool).balance == balance


def test_a_refund_past_what_is_left():
    w = World()
    b = w.bucket(100)
    event = tracked(w, 30)
    assert w.model.refund_of(event, {"msg": s(-31)}, REJECT).status == INSUFFICIENT and w.left(b) == 70
    answer = w.model.refund_of(event, {"msg": s(-31)}).features[0]
    assert (answer.requested, answer.applied, answer.left) == (s(-31), s(-30), s(-1)) and w.left(b) == 100


def test_what_cannot_be_refunded():
    w = World()
    w.bucket(100)
    event = tracked(w, 30)
    refund = w.model.refund_of(event, {"msg": s(-10)}).event
    assert w.model.refund_of(refund).status == REFUSED and w.model.refund_of(tracked(w, -5)).status == REFUSED
    assert w.model.refund_of(event, {"msg": s(1)}).status == REFUSED and w.model.refund_of(99).status == EVENT_NOT_FOUND


def test_a_refund_is_of_each_feature_and_replays_under_its_key():
    w = credits_world()
    own, other = w.bucket(10, feature="action1"), w.bucket(5, feature="action3")
    event = w.model.track({"action1": s(8), "action3": s(8)}).event
    for _ in range(2):
        answer = w.model.refund_of(event, {"action1": s(-6), "action3": s(-6)}, key="K")
        assert [a.applied for a in answer.features] == [s(-6), s(-5)] and (w.left(own), w.left(other)) == (8, 5)


def test_a_hold_is_refunded_as_far_as_it_was_confirmed():
    w = World()
    b = w.bucket(100)
    event = w.hold(40).event
    assert w.model.refund_of(event, {"msg": s(-5)}).features[0].applied == 0 and w.left(b) == 60
    w.confirm(25)
    assert w.model.left_of(event) == {"msg": s(25)}
    w.model.refund_of(event)
    assert w.left(b) == 100


def test_a_refund_goes_back_to_a_rollover_but_not_to_one_that_expired():
    w = World()
    b = w.bucket(100)
    w.rollover(b, 30), w.rollover(b, 10, w.model.now + 1)
    event = tracked(w, 50)
    assert w.rollovers(b) == [(0, 30), (0, 10)]
    w.model.advance(w.model.now + 1)
    w.model.refund_of(event)
    assert w.left(b) == 100 and w.r() == 130


# Balances that are set


@pytest.mark.parametrize(("value", "u"), [(80, 20), (120, -20), (0, 100)])
def test_case_157_set_remaining(value, u):
    w = World()
    w.bucket(100)
    assert w.model.set_balance("msg", "remaining", s(value)) == DONE and (w.u(), w.bal()) == (u, value)


def test_case_158_chosen_buckets():
    w = World()
    month, life = w.bucket(100), w.bucket(200, "lifetime")
    w.model.set_balance("msg", "remaining", s(50), nos=[month])
    assert (w.r(), w.left(month), w.left(life)) == (250, 50, 200)
    w.model.set_balance("msg", "remaining", s(100), nos=[life])
    assert w.r() == 150
    assert w.model.set_balance("msg", "remaining", s(100), nos=[9]) == NOT_FOUND


def test_case_113_seats_are_set():
    w = World(Feature("msg", "continuous_use"))
    w.bucket(5, "lifetime")
    w.model.set_balance("msg", "remaining", s(2))
    assert (w.u(), w.bal()) == (3, 2)
    w.model.set_balance("msg", "remaining", s(-5))
    assert (w.u(), w.bal()) == (10, -5)


def test_case_122_usage_goes_over_the_entities_in_order():
    w = World(Feature("msg"), Feature("seats", "continuous_use"))
    each = w.bucket(100, entity_feature="seats")
    for entity in ("e1", "e2", "e3"):
        w.model.open_entity(entity, "seats")
    w.model.set_balance("msg", "usage", s(150))
    assert w.find(each).slots == {"e1": 0, "e2": s(50), "e3": s(100)} and w.r() == 150
    w.model.set_balance("msg", "add", s(25))
    assert w.find(each).slots == {"e1": s(25), "e2": s(50), "e3": s(100)}


def test_a_grant_changes_with_its_balance():
    w = World()
    b = w.bucket(100)
    w.track(30)
    w.model.set_grant(b, s(50))
    assert (w.left(b), w.u()) == (20, 30)


def test_case_160_recalculate():
    w = World()
    a, b = w.bucket(100), w.bucket(200, "lifetime")
    w.find(a).balance = -s(30)
    for _ in range(2):
        w.model.recalculate("msg")
        assert (w.left(a), w.left(b), w.r()) == (0, 170, 170)


def test_recalculate_overflows_on_the_first_and_leaves_the_priced_alone():
    w = World()
    a, u = w.bucket(100), w.bucket(10, max=None)
    w.track(130)
    w.model.recalculate("msg")
    assert (w.left(a), w.left(u)) == (0, -20)  # only the priced one is below zero
    w.track(50, mode=OVERFLOW)
    for _ in range(2):
        w.model.recalculate("msg")
        assert (w.left(a), w.left(u)) == (-50, -20)


@pytest.mark.parametrize(("recalculate", "r", "u"), [(False, 200, 0), (True, 160, 40)])
def test_case_161_a_deleted_buckets_usage(recalculate, r, u):
    w = World()
    a, _ = w.bucket(100), w.bucket(200, "lifetime")
    w.track(40)
    w.model.delete_bucket(a, recalculate)
    assert (w.r(), w.u()) == (r, u)


def test_case_161_the_only_bucket_stays_empty():
    w = World()
    a = w.bucket(100)
    w.track(40)
    w.model.delete_bucket(a, recalculate=True)
    w.month_later(3)
    assert (w.r(), w.bal(), w.u()) == (0, -40, 40)
