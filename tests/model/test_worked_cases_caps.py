"""The model gives the numbers of the worked cases of overage control, spend limits and usage limit
windows.

Guarantee: each test is one worked case (or a few of one kind), with real quantities at precision 6.
"""

from __future__ import annotations

import pytest

from .caps import BILLING_CYCLE, UTC
from .calls import DONE, INSUFFICIENT, SPEND_LIMIT, USAGE_LIMIT, USAGE_LIMIT_EXCEEDED
from .features import Feature
from .walk import OVERFLOW, REJECT
from .world import DAY_MS, START, D, World, credits_world, s

DAY5 = ((5, "day", UTC),)


def seated() -> World:
    """A world of msg with the entities e1, e2, e3."""
    w = World(Feature("msg"), Feature("seats", "continuous_use"))
    for entity in ("e1", "e2", "e3"):
        assert w.model.open_entity(entity, "seats") == DONE
    return w


# Overage control


def test_case_67_overage_switched_on():
    w = World()
    w.bucket(100, "lifetime"), w.caps(control=True)
    for value, u in ((80, 80), (50, 130), (70, 200)):
        w.track(value)
        assert w.u() == u


def test_case_68_overage_switched_on_fits_a_rejecting_call():
    w = World()
    w.bucket(50, "lifetime"), w.caps(control=True)
    assert (w.track(50), w.track(30, mode=REJECT)) == (50, 30) and w.u() == 80


def test_case_70_overage_switched_off_again():
    w = World()
    w.bucket(100, "lifetime"), w.caps(control=True)
    w.track(120)
    w.caps(control=False)
    assert w.track(50) == 0 and w.u() == 120


def test_case_71_pay_per_use_switched_off():
    w = World()
    w.bucket(100, max=None), w.caps(control=False)
    assert w.allowed(50)
    assert w.track(130) == 100 and not w.allowed()


def test_case_73_the_control_adds_nothing_to_pay_per_use():
    w = World()
    free, u = w.bucket(100, "lifetime"), w.bucket(0, max=50)
    w.caps(control=True)
    w.track(200)
    assert (w.u(), w.left(free), w.left(u)) == (150, 0, -50)


def test_case_74_free_seats_and_the_control():
    w = World(Feature("msg", "continuous_use"))
    w.bucket(5, "lifetime")
    w.track(5)
    assert not w.allowed()
    w.caps(control=True)
    assert w.allowed() and w.track(2, mode=REJECT) == 2
    w.caps(control=False)
    assert not w.allowed() and w.u() == 7 and w.track(1) == 0


def test_case_76_an_entitys_control_is_its_own():
    w = seated()
    w.bucket(100, entity_feature="seats"), w.caps(entity="e1", control=True)
    assert (w.track(130, entity_id="e1"), w.track(130, entity_id="e2")) == (130, 100)


# Spend limits


def test_cases_79_and_80_a_spend_limit_stops_overage_in_every_mode():
    w = World()
    w.bucket(1000, "lifetime"), w.bucket(100, max=300), w.caps(spend=25)
    w.track(1120)
    assert w.allowed(5) and w.check(6).reason == SPEND_LIMIT
    assert w.track(10) == 5 and w.u() == 1125
    answer = w.model.track({"msg": s(1)}, REJECT)
    assert (answer.status, answer.reason) == (INSUFFICIENT, SPEND_LIMIT)
    w = World()
    w.bucket(1000, "lifetime"), w.bucket(100, max=300), w.caps(spend=25)
    w.track(1120)
    assert w.track(10, mode=OVERFLOW) == 5 and w.u() == 1125


def test_case_82_a_disabled_spend_limit_is_none():
    w = World()
    w.bucket(100, max=None), w.caps(off=True)
    w.track(120)
    assert w.track(10, mode=REJECT) == 10 and w.u() == 130


def test_case_83_a_percentage_of_the_grants_of_main_plans():
    w = World()
    w.bucket(100, max=None), w.caps(percent=120)
    w.track(1000)
    assert w.u() == 220
    w = World()
    w.bucket(100), w.bucket(50, max=None), w.bucket(10, add_on=True), w.bucket(10, "lifetime"), w.bucket(10, plan_id="")
    w.caps(percent=120)
    w.track(1000)
    assert w.u() == 330 + 30


def test_case_85_a_percentage_of_nothing_is_no_limit():
    w = World()
    w.bucket(0, max=None), w.caps(percent=120)
    w.track(600)
    assert w.u() == 600


def test_case_86_a_customers_spend_limit_has_all_entities():
    w = seated()
    w.model.close_entity("e3")
    w.bucket(800, max=None, entity_feature="seats")
    for entity in ("e1", "e2"):
        w.track(810, entity_id=entity)
    w.caps(spend=25)
    assert w.track(10) == 5 and w.u() == 1625
    assert w.track(1, entity_id="e2") == 0


def test_an_entitys_spend_limit_has_its_own_and_the_customers_overage():
    w = seated()
    w.bucket(0, max=None, entity_feature="seats"), w.bucket(0, max=None)
    w.track(10, entity_id="e2"), w.track(3)
    w.caps(spend=1), w.caps(entity="e1", spend=5)
    assert w.track(10, entity_id="e1") == 2  # 3 of the customer's count, 10 of e2's do not
    assert w.track(1) == 0


# Usage limit windows


def test_case_91_a_window_caps_whatever_the_balance():
    w = World()
    w.bucket(100), w.caps(windows=DAY5)
    assert w.track(10) == 5 and w.track(3) == 0 and w.r() == 95


def test_case_92_a_members_window_counts_units():
    w = credits_world()
    month, life = w.bucket(1, feature="credits"), w.bucket(10, "lifetime", "credits")
    w.caps("action1", windows=((10, "day", UTC),))
    w.track(15, "action1")
    assert (w.left(month), w.left(life)) == (0, 9)


def test_case_94_the_feature_and_its_credits_count_together():
    w = credits_world()
    own, pool = w.bucket(5, feature="action1"), w.bucket(100, feature="credits")
    w.caps("action1", windows=((8, "day", UTC),))
    w.track(10, "action1")
    assert (w.left(own), w.left(pool), w.counter("action1")) == (0, D("99.4"), [8])


def test_case_95_a_members_window_does_not_bind_the_credits():
    w = credits_world()
    w.bucket(100, feature="credits"), w.caps("action1", windows=DAY5)
    w.track(5, "action1")
    assert w.r("credits") == 99
    w.track(10, "credits")
    assert w.r("credits") == 89


def test_a_systems_window_counts_credits_of_its_buckets_by_any_member():
    w = credits_world()
    pool = w.bucket(100, feature="credits")
    w.rollover(pool, 1), w.caps("credits", windows=DAY5)
    assert w.track(10, "action1") == 10 and w.counter("credits") == [1]  # the rollover paid 1 of 2
    assert w.track(100, "action2") == D("6.666666") and w.counter("credits") == [5]
    assert w.check(1, "action1").reason == USAGE_LIMIT and w.check(1, "credits").reason == USAGE_LIMIT
    assert w.track(1, "credits", mode=OVERFLOW) == 1 and w.counter("credits") == [6]


def test_case_97_check_says_usage_limit():
    w = World()
    w.bucket(100), w.caps(windows=DAY5)
    w.track(3)
    assert w.allowed(2) and w.check(3).reason == USAGE_LIMIT
    assert w.track(3, mode=REJECT) == USAGE_LIMIT_EXCEEDED


def test_case_98_a_window_over_two_buckets():
    w = World()
    month, life = w.bucket(100), w.bucket(100, "lifetime")
    w.caps(windows=((150, "month", BILLING_CYCLE),))
    w.track(120)
    assert (w.left(month), w.left(life)) == (0, 80)
    assert w.track(50) == 30 and w.left(life) == 50 and w.counter() == [150]


def test_case_100_a_hold_counts_and_what_it_undoes_gives_room():
    w = World()
    w.bucket(100), w.caps(windows=DAY5)
    assert w.hold(4).allowed and w.counter() == [4]
    assert w.hold(2, lock="other").reason == USAGE_LIMIT
    w.confirm(1)
    assert w.counter() == [1] and w.r() == 99
    assert w.track(5) == 4 and w.r() == 95 and w.counter() == [5]


def test_case_101_a_confirm_beyond_the_hold_is_capped():
    w = World()
    w.bucket(100), w.caps(windows=DAY5)
    w.hold(3)
    w.confirm(6)
    assert w.r() == 95 and w.counter() == [5]


def test_case_103_overflow_passes_a_window_but_counts():
    w = World()
    w.bucket(100), w.caps(windows=DAY5)
    w.track(3)
    assert w.track(10, mode=OVERFLOW) == 10 and w.r() == 87 and w.counter() == [13]
    assert w.track(1) == 0


def test_case_104_rollovers_count_too():
    w = World()
    month = w.bucket(100)
    w.rollover(month, 60), w.caps(windows=DAY5)
    w.track(3), w.track(10, mode=OVERFLOW)
    assert w.r() == 147 and w.counter() == [13]


def test_case_106_the_tightest_of_several_windows():
    w = World()
    w.bucket(100), w.bucket(100), w.caps(windows=((5, "day", UTC), (20, "day", UTC)))
    assert w.track(10) == 5 and w.counter() == [5]


def test_case_107_entities_share_the_customers_window():
    w = seated()
    w.bucket(100, entity_feature="seats"), w.caps(windows=DAY5)
    assert [w.track(value, entity_id=e) for e, value in (("e1", 2), ("e2", 2), ("e3", 1))] == [2, 2, 1]
    assert all(w.check(1, entity_id=e).reason == USAGE_LIMIT for e in ("e1", "e2", "e3"))


def test_case_109_entities_with_windows_of_their_own():
    w = seated()
    w.model.close_entity("e3")
    w.bucket(100, entity_feature="seats")
    w.caps(entity="e1", windows=DAY5), w.caps(entity="e2", windows=((10, "day", UTC),))
    assert [w.track(value, entity_id=e) for e, value in (("e1", 7), ("e2", 7), ("e2", 5))] == [5, 7, 3]
    assert w.r() == 185 and w.counter() == []


@pytest.mark.parametrize(
    ("interval", "kind", "over_in_days"), [("day", UTC, 1), ("week", UTC, 4), ("month", BILLING_CYCLE, 15)],
)
def test_case_110_a_closed_window_starts_anew(interval, kind, over_in_days):
    """2026-01-01 is a Thursday; the billing cycle turns on the 16th."""
    w = World()
    w.bucket(100, anchor=START + 15 * DAY_MS, next_reset_at=START + 15 * DAY_MS), w.caps(windows=((5, interval, kind),))
    assert w.track(9) == 5
    w.model.advance(START + over_in_days * DAY_MS - 1)
    assert w.track(9) == 0
    w.model.advance(START + over_in_days * DAY_MS)
    assert w.allowed(5) and w.track(9) == 5 and w.counter() == [5]


def test_case_235_a_window_binds_the_unlimited():
    w = World()
    w.bucket(0, "lifetime", unlimited=True), w.caps(windows=DAY5)
    w.track(5)
    assert w.check(1).reason == USAGE_LIMIT and w.check(1, send_event=True).reason == USAGE_LIMIT
    assert w.u() == 5 and w.counter() == [5]
