"""The model gives the numbers of the worked cases: what the scripts are held against is right.

Guarantee: each test is one worked case (or a few of one kind), with real quantities at precision 6.
"""

from __future__ import annotations

from fractions import Fraction

import pytest

from sidecar.domain.intervals import add_interval, code_of

from .account import Feature, Owed
from .calls import CONFLICT, DONE, INSUFFICIENT, NOT_HELD, REFUSED
from .walk import OVERFLOW, REJECT
from .world import DAY_MS, START, D, World, credits_world, s

# Basic


@pytest.mark.parametrize(("value", "r", "u"), [(1, 99, 1), ("23.47", D("76.53"), D("23.47"))], ids=["case 1", "case 2"])
def test_a_track_takes_its_value(value, r, u):
    w = World()
    w.bucket(100)
    assert w.track(value) == u
    assert (w.r(), w.u()) == (r, u)


def test_case_4_boolean_feature_is_held_or_not():
    w = World(Feature("flag", "boolean"))
    assert w.check(1, "flag").reason == NOT_HELD
    w.bucket(0, "lifetime", "flag")
    assert w.allowed(1, "flag") and w.allowed(1, "flag", send_event=True)
    assert w.model.track({"flag": s(1)}, REJECT).status == DONE
    assert w.u("flag") == 0


def test_case_5_unlimited_absorbs_everything_and_counts():
    w = World()
    w.bucket(0, "lifetime", unlimited=True)
    for value, used in ((1, 1), (10, 11), (1_000_000, 1_000_011)):
        w.track(value)
        assert w.allowed(1) and w.u() == used and w.r() == 0 and w.model.sums("msg").unlimited


def test_case_7_nothing_held_is_an_event_that_applies_nothing():
    w = World()
    answer = w.model.track({"msg": s(5)}, REJECT)
    assert answer.status == DONE and not answer.features[0].held and answer.features[0].applied == 0


def test_cases_8_and_15_check_shows_the_month():
    w = World()
    w.bucket(1000)
    assert w.allowed() and (w.bal(), w.u()) == (1000, 0)
    w.track(130)
    assert w.allowed() and (w.bal(), w.u()) == (870, 130)


def test_case_10_a_check_with_send_event_spends_credits_exactly():
    w = credits_world()
    w.bucket(500, feature="credits")
    w.track("0.1", "action1")
    w.track("0.2", "action1")
    assert w.allowed("10.3", "action1", send_event=True)
    assert w.r("credits") == D("497.88")


def test_case_11_a_refused_send_event_changes_nothing():
    w = World()
    w.bucket(1000)
    assert w.allowed(150, send_event=True) and w.r() == 850
    assert not w.allowed(900, send_event=True) and w.r() == 850


# Top-ups and prepaid


def test_case_17_the_month_is_spent_before_the_top_up():
    w = World()
    month, top_up = w.bucket(10), w.bucket(200, "lifetime", paid=True)
    w.track(5)
    assert (w.bal(), w.u(), w.left(month), w.left(top_up)) == (205, 5, 5, 200)


def test_case_18_one_off_grants_never_reset():
    w = World()
    w.bucket(10, "lifetime"), w.bucket(200, "lifetime", paid=True)
    w.track(7)
    w.month_later(40)
    assert w.bal() == 203


def test_case_19_prepaid_stops_at_what_was_bought():
    w = World()
    w.bucket(5, paid=True)
    assert w.track(7, mode=REJECT) == INSUFFICIENT and w.r() == 5
    w.track(4)
    assert (w.r(), w.u()) == (1, 4)


def test_case_20_prepaid_checks():
    w = World()
    w.bucket(600, paid=True)
    assert w.allowed(599) and w.allowed(600) and not w.allowed(601)


def test_case_23_a_reset_leaves_the_top_up_alone():
    w = World()
    month, top_up = w.bucket(500), w.bucket(200, "lifetime", paid=True)
    w.track(400)
    assert (w.left(month), w.left(top_up)) == (100, 200)
    w.track(200)
    assert (w.left(month), w.left(top_up)) == (0, 100)
    w.month_later()
    assert w.r() == 600


# Order across buckets


def test_case_31_shorter_interval_first():
    w = World()
    month, hour = w.bucket(10), w.bucket(5, "hour")
    w.track(8)
    assert (w.left(hour), w.left(month)) == (0, 7)


def test_case_32_earlier_expiry_first():
    w = World()
    late = w.bucket(100, "lifetime", expires_at=START + 365 * DAY_MS)
    soon = w.bucket(100, "lifetime", expires_at=START + 30 * DAY_MS)
    w.track(60)
    assert (w.left(soon), w.left(late)) == (40, 100)


def test_case_34_main_before_add_on_month_before_lifetime():
    w = World()
    one_off, extra, main = w.bucket(200, "lifetime", add_on=True), w.bucket(50, add_on=True), w.bucket(100)
    w.track(120)
    assert (w.r(), w.u(), w.left(main), w.left(extra), w.left(one_off)) == (230, 120, 0, 30, 200)


def test_cases_35_and_37_prepaid_before_pay_per_use_up_to_its_limit():
    w = World()
    u, p = w.bucket(200, max=300), w.bucket(600, paid=True)
    w.track(600)
    assert (w.left(p), w.left(u)) == (0, 200)
    w.track(400)
    assert (w.r(), w.u()) == (0, 1000)
    assert w.track(200) == 100
    assert w.u() == 1100 and w.left(u) == -300


def test_case_38_credits_go_over_on_pay_per_use():
    w = World(Feature("credits", "credit_system"))
    p, u = w.bucket(10_000, feature="credits", paid=True), w.bucket(0, feature="credits", max=None)
    for value, bal in ((1000, 9000), (5000, 4000), (5000, -1000)):
        w.track(value, "credits")
        assert w.bal("credits") == bal
    assert (w.left(p), w.left(u), w.u("credits"), w.r("credits")) == (0, -1000, 11_000, 0)


def test_case_40_older_first():
    w = World()
    second, first = w.bucket(100, created_at=START + 9), w.bucket(100, created_at=START)
    w.track(30)
    assert (w.left(first), w.left(second)) == (70, 100)


# Credit systems


def basic_premium() -> World:
    costs = (("basic", Fraction("0.01")), ("premium", Fraction("0.10")))
    return World(Feature("basic"), Feature("premium"), Feature("credits", "credit_system", credit_schema=costs))


def test_cases_43_and_44_cents():
    w = basic_premium()
    b = w.bucket(5, feature="credits")
    answer = w.check(5, "basic")
    assert answer.allowed and answer.shown == "credits" and answer.required == s("0.05")
    w.track(2, "basic")
    assert w.r("credits") == D("4.98")
    w.find(b).balance = s("0.049999")
    assert not w.allowed(5, "basic")
    w.find(b).balance = s("0.05")
    assert w.allowed(5, "basic")


def test_case_46_two_members():
    w = credits_world()
    w.bucket(200, feature="credits")
    w.track("50.25", "action1")
    assert w.r("credits") == D("189.95")
    w.track("33.67", "action2")
    assert w.r("credits") == D("169.748")


def test_case_47_the_feature_before_its_credits():
    w = credits_world()
    own, pool = w.bucket(100, feature="action1"), w.bucket(200, feature="credits")
    for value, expected in (("40.5", (D("59.5"), 200)), (80, (0, D("195.9"))), ("50.75", (0, D("185.75")))):
        w.track(value, "action1")
        assert (w.left(own), w.left(pool)) == expected


def test_cases_49_and_50_one_event_two_features():
    w = credits_world()
    for granted, feature in (("54.5", "action1"), (150, "credits"), ("34.5", "action3"), (100, "credits2")):
        w.bucket(granted, feature=feature)
    assert w.event("action-event", 70) == DONE
    assert [w.r(f) for f in ("action1", "credits", "action3", "credits2")] == [0, D("146.9"), 0, D("50.3")]
    assert w.event("action-event", "40.25") == DONE
    assert (w.r("credits"), w.r("credits2")) == (D("138.85"), 0)


def test_an_event_of_several_features_is_rejected_whole():
    w = credits_world()
    w.bucket("54.5", feature="action1"), w.bucket(10, feature="action3")
    assert w.event("action-event", 20, REJECT) == INSUFFICIENT
    assert (w.r("action1"), w.r("action3")) == (D("54.5"), 10)


def test_case_52_deductions_are_on_the_feature_while_it_lasts():
    w = credits_world()
    own, pool = w.bucket(100, feature="action1"), w.bucket(200, feature="credits")
    assert w.model.track({"action1": s(10)}).features[0].changes == ((own, "", -s(10)),)
    w.track(90, "action1")
    assert w.model.track({"action1": s(50)}).features[0].changes == ((pool, "", -s(10)),)


def test_case_53_a_held_system_is_shown_when_nothing_suffices():
    w = credits_world()
    w.bucket(12, feature="credits3")
    w.track(6, "action1")
    answer = w.check(1, "action1")
    assert (answer.shown, answer.allowed, answer.required, w.bal("credits3")) == ("credits3", False, s(2), 0)


def test_case_55_judged_on_credits():
    w = credits_world()
    w.bucket(3, feature="action1"), w.bucket(100, feature="credits")
    answer = w.check(5, "action1")
    assert (answer.allowed, answer.shown, answer.required) == (True, "credits", s(1))


def test_case_56_whole_credits():
    w = World(Feature("premium"), Feature("credits", "credit_system", credit_schema=(("premium", Fraction(3)),)))
    w.bucket(100, feature="credits")
    w.track(6, "premium")
    assert w.r("credits") == 82


# Overage, pay-as-you-go, refunds, continuous use, entities


def test_case_60_pay_as_you_go_owes_what_goes_over():
    w = World()
    w.bucket(1000, max=None)
    w.track(1200)
    assert (w.bal(), w.u()) == (-200, 1200)
    w.month_later()
    assert w.bal() == 1000
    assert w.model.account.owed == [Owed(1, s(200), add_interval(START, code_of("month"), 1, 1))]


@pytest.mark.parametrize(("max", "value", "u"), [(50, 200, 150), (400, 501, 500)], ids=["case 64", "case 65"])
def test_the_purchasable_part_is_a_floor(max, value, u):
    w = World()
    w.bucket(100, max=max)
    assert w.allowed(u) and not w.allowed(u + 1)
    w.track(value)
    assert w.u() == u


def test_cases_62_and_77_cap_and_overflow():
    w = World()
    w.bucket(100)
    assert w.track(130) == 100 and w.u() == 100
    w = World()
    w.bucket(100)
    assert w.track(150, mode=OVERFLOW) == 150 and (w.r(), w.u()) == (0, 150)
    assert not w.allowed() and w.track(10) == 0 and w.u() == 150


def test_cases_74_and_112_free_seats_go_over_unless_rejected():
    w = World(Feature("msg", "continuous_use"))
    w.bucket(5, "lifetime")
    assert w.track(8) == 8 and (w.r(), w.u(), w.bal()) == (0, 8, -3)
    assert not w.allowed()
    for value, expected in ((-2, (0, 6)), (-2, (1, 4)), (-20, (5, 0))):
        w.track(value)
        assert (w.r(), w.u()) == expected


def test_case_119_an_entity_spends_its_own_first():
    w = World(Feature("msg"), Feature("seats", "continuous_use"))
    month, each = w.bucket(100), w.bucket(50, entity_feature="seats")
    assert [w.model.open_entity(e, "seats") for e in ("e1", "e2")] == [DONE, DONE]
    assert (w.r(), w.r(entity="e1"), w.r(entity="e2")) == (200, 150, 150)
    w.track(30, entity_id="e1")
    assert (w.r(entity="e1"), w.r(), w.left(month)) == (120, 170, 100)
    assert w.find(each).slots == {"e1": s(20), "e2": s(50)}


def test_cases_121_and_122_a_customers_call_goes_slot_by_slot():
    w = World(Feature("msg"), Feature("seats", "continuous_use"))
    w.bucket(100), w.bucket(50, entity_feature="seats")
    w.model.open_entity("entity2", "seats"), w.model.open_entity("entity1", "seats")
    w.track(160)
    assert [b.slots for b in w.model.account.buckets if b.per_entity] == [{"entity1": 0, "entity2": s(40)}]
    assert w.r() == 40


def test_cases_124_and_125_attached_plans_are_the_entitys_own():
    w = World(Feature("msg"), Feature("seats", "continuous_use"))
    w.bucket(50)
    for e in ("a", "b", "c"):
        w.model.open_entity(e, "seats")
        w.bucket(100, entity_id=e)
    assert (w.r(), w.r(entity="a")) == (350, 150)
    assert w.track(60) == 50
    assert w.track(250, mode=REJECT, entity_id="a") == INSUFFICIENT and w.r(entity="b") == 100


def test_an_entity_past_the_seats_is_refused():
    w = World(Feature("seats", "continuous_use"))
    w.bucket(1, "lifetime", "seats", max=1)
    assert [w.model.open_entity(e, "seats") for e in "abc"] == [DONE, DONE, REFUSED]
    w.model.close_entity("a")
    assert w.model.open_entity("c", "seats") == DONE and w.u("seats") == 2


# Resets, refunds, the project's own


def test_case_142_a_period_over_is_a_fresh_grant():
    w = World()
    b = w.bucket(100)
    w.track(30)
    w.month_later(5)
    assert (w.r(), w.u()) == (100, 0)
    assert w.find(b).next_reset_at == add_interval(START, code_of("month"), 1, 6)


def test_case_148_free_overage_is_forgiven():
    w = World()
    w.bucket(100)
    w.track(200, mode=OVERFLOW)
    w.month_later()
    assert w.bal() == 100 and w.model.account.owed == []


def test_cases_152_and_155_refunds_stop_at_the_grant():
    w = World()
    w.bucket(100)
    w.track(30)
    for value, expected in ((-10, (80, 20)), (-50, (100, 0))):
        w.track(value)
        assert (w.r(), w.u()) == expected
    assert w.track(-1) == 0
    assert w.track(-500, mode=OVERFLOW) == -500 and (w.r(), w.u()) == (600, -500)


def test_case_154_debts_heal_before_anything_refills():
    w = World()
    full, u = w.bucket(100), w.bucket(0, max=None)
    w.track(140)
    w.track(-30)
    assert (w.left(full), w.left(u)) == (0, -10)


def test_case_215_required_zero_or_less_is_allowed_on_what_is_held():
    w = World()
    w.bucket(100)
    w.track(100)
    assert w.allowed(0) and w.allowed(-1) and not w.allowed(1)


def test_case_232_a_bucket_that_cannot_complete_gives_all():
    w = credits_world()
    w.bucket("50.3", feature="credits2")
    assert w.track("40.25", "action3") == D("35.928571")
    assert w.r("credits2") == 0


def test_case_233_credits_are_converted_over_all_buckets():
    w = World(Feature("one", precision=0), Feature("c", "credit_system", credit_schema=(("one", Fraction(10**6)),)))
    w.bucket("0.5", "lifetime", "c"), w.bucket("0.5", "lifetime", "c")
    assert w.model.check("one", 1).allowed
    assert w.model.track({"one": 1}).features[0].applied == 1
    assert [w.left(b.no) for b in w.model.account.buckets] == [0, 0]


def test_case_237_a_refused_call_leaves_its_key_free():
    w = World()
    w.bucket(1)
    assert w.track(5, mode=REJECT, key="K") == INSUFFICIENT
    w.bucket(10, "lifetime")
    assert w.track(5, mode=REJECT, key="K") == 5 and w.r() == 6
    assert w.model.track({"msg": s(5)}, REJECT, key="K").replayed and w.r() == 6
    assert w.track(6, mode=REJECT, key="K") == CONFLICT and w.r() == 6


def test_case_172_an_event_repeated_under_its_key_changes_nothing():
    w = credits_world()
    w.bucket(100, feature="action1"), w.bucket(100, feature="action3")
    values = {f: s(7) for f in ("action1", "action3")}
    first = w.model.track(values, key="K")
    again = w.model.track(values, key="K")
    assert again.features == first.features and again.replayed
    assert (w.r("action1"), w.r("action3")) == (93, 93)
