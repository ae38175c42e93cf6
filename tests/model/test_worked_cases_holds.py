"""The model gives the numbers of the worked cases of holds, in all sign and size combinations.

Guarantee: each test is one worked case (or a few of one kind), with real quantities at precision 6.
"""

from __future__ import annotations

from fractions import Fraction

import pytest

from .calls import HELD_BY_OTHERS, INSUFFICIENT, LOCK_EXISTS, NOT_HELD, REFUSED
from .features import Feature
from .holds import EXPIRED, LOCK_EXPIRED, LOCK_FINALIZED, LOCK_NOT_FOUND, RELEASED
from .walk import OVERFLOW
from .world import DAY_MS, START, D, World, credits_world, s


def hour_and_month(used=0) -> tuple[World, int, int]:
    w = World()
    hour, month = w.bucket(5, "hour"), w.bucket(10)
    if used:
        w.track(used)
    return w, hour, month


def test_case_178_the_last_bucket_gets_back_first():
    w, hour, month = hour_and_month()
    event = w.hold(8).event
    assert (w.left(hour), w.left(month), w.model.held("msg")) == (0, 7, s(8))
    assert w.confirm(5) == -3
    assert (w.left(hour), w.left(month), w.r(), w.model.held("msg")) == (0, 10, 10, 0)
    assert w.model.account.events[event].shares[0].answer.requested == s(8)


def test_case_179_more_than_the_hold_is_spent_in_normal_order():
    w, _, month = hour_and_month()
    w.hold(8)
    assert w.confirm(11) == 3 and (w.left(month), w.r(), w.u()) == (4, 4, 11)


def test_case_181_the_other_sign_undoes_first():
    w, *_ = hour_and_month(used=5)
    w.hold(8)
    assert w.confirm(-3) == -11 and w.r() == 13


@pytest.mark.parametrize(("final", "event", "r"), [(-8, -3, 13), (-3, 2, 8), (3, 8, 2), (-5, None, 10), (0, 5, 5)])
def test_case_182_a_negative_hold(final, event, r):
    w, *_ = hour_and_month(used=10)
    w.hold(-5)
    assert w.r() == 10
    assert w.confirm(final) == event and w.r() == r


@pytest.mark.parametrize(("final", "own", "credits"), [(3, 2, 200), (12, 0, D("198.6")), (20, 0, 197)])
def test_cases_184_and_185_a_hold_on_the_feature_and_its_credits(final, own, credits):
    w = credits_world()
    direct, pool = w.bucket(100, feature="action1"), w.bucket(200, feature="credits")
    w.track(95, "action1")
    w.hold(8, "action1")
    assert (w.left(direct), w.left(pool)) == (0, D("199.4"))
    w.confirm(final)
    assert (w.left(direct), w.left(pool)) == (own, credits)


@pytest.mark.parametrize(("final", "event", "r"), [(20, -10, 180), (45, 15, 155)])
def test_case_187_a_hold_on_credits(final, event, r):
    w = credits_world()
    w.bucket(200, feature="credits")
    w.hold(30, "credits")
    assert w.confirm(final) == event and w.r("credits") == r


def test_case_188_decimals():
    w = credits_world()
    w.bucket(100, feature="action1")
    w.hold("27.89", "action1")
    assert w.confirm("12.45") == D("-15.44") and w.r("action1") == D("87.55")


def test_case_190_a_hold_goes_back_to_rollovers():
    w = World()
    month = w.bucket(100)
    w.rollover(month, 100), w.rollover(month, 100)
    w.hold(250)
    assert w.r() == 50
    assert w.confirm(80) == -170 and w.r() == 220
    assert (w.rollovers(month), w.left(month)) == ([(20, 100), (100, 100)], 100)


def test_case_191_beyond_the_hold_rollovers_go_first_again():
    w = World()
    month = w.bucket(100)
    w.rollover(month, 100)
    w.hold(30)
    assert w.confirm(150) == 120 and (w.rollovers(month), w.left(month), w.r()) == ([(0, 100)], 50, 50)


def test_case_193_the_share_of_a_bucket_that_is_gone_goes_by_the_plain_rule():
    w = World()
    free = w.bucket(50)
    w.hold(40)
    w.model.delete_bucket(free)
    w.bucket(80)
    w.track(20)
    w.confirm(30)
    assert w.r() == 70


def test_case_194_a_customers_hold_over_two_entities():
    w = World(Feature("msg"), Feature("seats", "continuous_use"))
    each = w.bucket(10, entity_feature="seats")
    w.model.open_entity("entity1", "seats"), w.model.open_entity("entity2", "seats")
    w.hold(14)
    w.confirm(8)
    assert w.find(each).slots == {"entity1": s(2), "entity2": s(10)} and w.r() == 12


def test_case_196_two_entities_confirm():
    w = World(Feature("msg"), Feature("seats", "continuous_use"))
    each = w.bucket(50, entity_feature="seats")
    w.bucket(100), w.model.open_entity("e1", "seats"), w.model.open_entity("e2", "seats")
    w.hold(30, entity="e1", lock="1"), w.hold(20, entity="e2", lock="2")
    assert w.model.held("msg", "e1") == s(30) and w.model.held("msg") == s(50)
    w.confirm(15, "1"), w.confirm(25, "2")
    assert w.find(each).slots == {"e1": s(35), "e2": s(25)} and w.r() == 160


def test_case_197_a_second_finalize_is_told_what_became_of_it():
    w, *_ = hour_and_month()
    w.hold(8)
    w.confirm(4)
    again = w.model.finalize("lock", "confirm", s(4))
    assert (again.status, again.outcome, again.final) == (LOCK_FINALIZED, "confirmed", s(4)) and w.r() == 11
    assert w.model.finalize("another").status == LOCK_NOT_FOUND


def test_case_200_a_live_lock_is_not_taken_twice():
    w, *_ = hour_and_month()
    w.hold(8)
    assert w.hold(1).reason == LOCK_EXISTS and w.r() == 7
    w.release()
    assert w.r() == 15 and w.model.finalize("lock", "release").outcome == RELEASED


def test_case_202_an_unlimited_hold():
    w = World()
    w.bucket(0, "lifetime", unlimited=True)
    w.hold(10)
    assert w.confirm() is None and w.u() == 10
    w.hold(5, lock="2")
    assert w.release("2") == -5 and w.u() == 10


def test_case_203_nothing_held_is_not_held():
    w = World()
    for required in (0, 1):
        answers = w.check(required), w.check(required, send_event=True), w.hold(required)
        assert all((answer.allowed, answer.reason) == (False, NOT_HELD) for answer in answers)
    assert w.model.account.events == {}


def held_to_the_months_end(w: World, value) -> None:
    """A hold in the last millisecond of the month."""
    w.model.advance(w.find(1).next_reset_at - 1)
    w.hold(value)
    w.month_later()
    assert w.r() >= 0


def test_case_230_a_release_across_a_reset_is_dropped():
    w = World()
    w.bucket(100)
    held_to_the_months_end(w, 40)
    w.release()
    assert (w.r(), w.u()) == (100, 0)


def test_case_231_a_release_across_a_reset_joins_its_rollover():
    w = World()
    b = w.bucket(100, rolls=(12, 500))
    held_to_the_months_end(w, 40)
    assert w.rollovers(b) == [(60, 60)]
    w.release()
    assert w.rollovers(b) == [(100, 100)] and w.r() == 200


def test_case_238_what_a_negative_hold_refilled_is_taken_as_far_as_it_is_there():
    w = World()
    w.bucket(2)
    w.track(2), w.hold(-2), w.track(2)
    w.release()
    assert (w.r(), w.u()) == (0, 2)


@pytest.mark.parametrize("held", [False, True], ids=["case 238 track", "case 238 hold"])
def test_case_238_a_confirmed_hold_costs_what_its_value_would(held):
    schema = (("one", Fraction(3 * 10**6)),)
    w = World(Feature("one", precision=0), Feature("c", "credit_system", credit_schema=schema))
    pool = w.bucket(1, feature="c", max=None)
    if held:
        w.model.hold("lock", "one", 2)
        w.model.finalize("lock", "confirm", 1)
    else:
        w.model.track({"one": 1})
    assert w.left(pool) == -2


# Beyond the cases


def test_a_hold_expires_by_itself():
    w, *_ = hour_and_month()
    w.hold(8, expires_at=START + 1000), w.hold(1, lock="2")
    w.model.advance(START + 1000)
    w.model.expire_holds()
    answer = w.model.finalize("lock")
    assert (answer.status, answer.outcome, answer.final) == (LOCK_EXPIRED, EXPIRED, 0) and w.r() == 14
    w.model.advance(START + DAY_MS)
    assert w.model.finalize("2").status == LOCK_EXPIRED


def test_what_others_hold_is_a_reason_of_its_own():
    w, *_ = hour_and_month()
    w.hold(8)
    assert w.check(15).reason == HELD_BY_OTHERS and w.check(16).reason == INSUFFICIENT
    assert w.hold(9, lock="2").reason == HELD_BY_OTHERS


def test_seats_are_not_held():
    w = World(Feature("msg", "continuous_use"))
    w.bucket(5, "lifetime")
    assert w.hold(1).reason == REFUSED


def test_a_release_lifts_no_bucket_above_its_grant():
    w = World()
    b = w.bucket(100)
    w.hold(40), w.track(-40)
    w.release()
    assert w.left(b) == 100


def test_a_healed_debt_comes_back_within_the_floor():
    w = World()
    u = w.bucket(0, max=10)
    w.track(8)
    w.hold(-8)
    w.track(5)
    w.release()
    assert w.left(u) == -10  # 13 would be below the floor


def test_a_release_across_a_reset_credits_what_was_billed():
    w = World()
    w.bucket(100, max=None)
    w.track(90)
    held_to_the_months_end(w, 30)
    assert [debt.units for debt in w.model.account.owed] == [s(20)]
    w.release()
    assert [debt.units for debt in w.model.account.credited] == [s(20)] and w.r() == 100


def test_a_release_across_a_reset_lightens_a_debt_that_is_carried():
    w = World(persist_free_overage=True)
    w.bucket(100)
    w.model.advance(w.find(1).next_reset_at - 1)
    w.hold(60)
    w.track(120, mode=OVERFLOW)
    w.month_later()
    assert w.bal() == 20  # 80 below zero
    w.release()
    assert w.bal() == 80


def test_a_release_across_a_reset_is_as_if_it_had_come_before():
    """Older rollovers are trimmed for what comes back, as they would have been."""
    for released_late in (True, False):
        w = World()
        b = w.bucket(100, rolls=(12, 80))
        w.track(50)
        w.month_later(1)
        assert w.r() == 150
        w.model.advance(w.find(b).next_reset_at - 1)
        w.hold(150)
        if not released_late:
            w.release()
        w.month_later(2)
        w.r()
        if released_late:
            w.release()
        assert w.rollovers(b)[-1] == (80, 80) and w.r() == 180
