"""Worked cases, group Credit systems: features paid by pools, converted exactly."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.cases.world import Customer, L, M, U, World

D = Decimal


@pytest.fixture
def dollars(world: World) -> Customer:
    """Five dollars of credits a month; basic costs a cent."""
    world.feature("basic")
    world.feature("usd", "credit_system", credit_schema=[{"metered_feature_id": "basic", "credit_cost": D("0.01")}])
    return world.holding(M(5).of("usd"))


def test_case_43_a_check_is_converted(dollars: Customer) -> None:
    answer = dollars.check(5, "basic")
    assert [answer[n] for n in ("allowed", "feature_id", "required_balance", "balance")] == [True, "usd", D("0.05"), 5]
    dollars.track(D("4.95"), "usd")
    assert dollars.allowed(5, "basic"), "exactly 0.05 left"
    dollars.track(D("0.000001"), "usd")
    assert not dollars.allowed(5, "basic")
    assert dollars.allowed(D("4.9999"), "basic")


def test_case_44_a_track_is_converted(dollars: Customer) -> None:
    dollars.track(2, "basic")
    assert dollars.bal("usd") == D("4.98")


def test_case_46_two_members_of_one_pool(world: World) -> None:
    world.credits()
    c = world.holding(M(200).of("credits"))
    c.track(D("50.25"), "action1")
    assert c.bal("credits") == D("189.95")
    c.track(D("33.67"), "action2")
    assert c.bal("credits") == D("169.748")


def test_case_47_own_units_before_credits(world: World) -> None:
    world.credits()
    c = world.holding(M(100).of("action1"), M(200).of("credits"))
    for value, own, pool in ((D("40.5"), D("59.5"), 200), (80, 0, D("195.9")), (D("50.75"), 0, D("185.75"))):
        c.track(value, "action1")
        assert (c.bal("action1"), c.bal("credits")) == (own, pool)


def test_cases_49_and_50_one_event_feeds_two_features(world: World) -> None:
    """In turn: case 49 and case 50."""
    world.credits()
    c = world.holding(
        M(D("54.5")).of("action1"), M(150).of("credits"), M(D("34.5")).of("action3"), M(100).of("credits2")
    )

    def balances() -> list:
        return [c.bal(name) for name in ("action1", "credits", "action3", "credits2")]

    answer = c.event("action-event", 70)
    assert answer["event_name"] == "action-event" and "feature_id" not in answer
    assert balances() == [0, D("146.9"), 0, D("50.3")]
    c.event("action-event", D("40.25"))
    assert balances() == [0, D("138.85"), 0, 0], "case 50: 56.35 wanted, capped"
    assert [(e["feature_id"], e["event_name"], e["applied"]) for e in world.api.events(c.id)] == [
        ("action1", "action-event", 70_000_000), ("action3", "action-event", 70_000_000),
        ("action1", "action-event", 40_250_000), ("action3", "action-event", 35_928_571),
    ]


def test_case_52_credits_pay_once_the_own_units_are_drained(world: World) -> None:
    world.credits()
    c = world.holding(M(100).of("action1"), M(200).of("credits"))
    c.track(10, "action1")
    assert (c.bal("action1"), c.bal("credits")) == (90, 200)
    c.track(90, "action1")
    c.track(50, "action1")
    assert (c.bal("action1"), c.bal("credits")) == (0, 190)


def test_case_53_only_a_third_pool_is_held(world: World) -> None:
    world.credits()
    c = world.holding(M(12).of("credits3"))
    c.track(6, "action1")
    assert c.bal("credits3") == 0
    answer = c.check(feature="action1")
    assert [answer[n] for n in ("feature_id", "allowed", "balance", "required_balance", "reason")] == [
        "credits3", False, 0, 2, "insufficient_balance",
    ]


def test_case_55_judged_on_the_pool_when_own_units_do_not_suffice(world: World) -> None:
    world.credits()
    c = world.holding(M(3).of("action1"), M(100).of("credits"))
    answer = c.check(5, "action1")
    assert [answer[n] for n in ("allowed", "feature_id", "required_balance", "balance")] == [True, "credits", 1, 100]
    answer = c.check(3, "action1")
    assert [answer[n] for n in ("allowed", "feature_id", "required_balance", "balance")] == [True, "action1", 3, 3]


def test_case_56_a_dearer_member(world: World) -> None:
    world.feature("premium")
    world.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "premium", "credit_cost": 3}])
    c = world.holding(M(100).of("pool"))
    c.track(6, "premium")
    assert c.ru("pool") == (82, 18)


def test_case_232_credits_that_do_not_divide(world: World) -> None:
    world.credits()
    c = world.holding(M(D("50.3")).of("credits2"))
    c.track(D("40.25"), "action3")
    assert c.bal("credits2") == 0
    (event,) = world.api.events(c.id)
    assert (event["requested"], event["applied"], event["value"]) == (40_250_000, 35_928_571, "40.25")


def test_case_233_two_halves_pay_a_whole(world: World) -> None:
    world.feature("call", precision=0)
    world.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "call", "credit_cost": 1}])
    half = L(D("0.5")).of("pool")
    c = world.customer(world.plan(half), world.plan(half))
    assert c.allowed(1, "call") and not c.allowed(2, "call")
    c.track(1, "call")
    assert c.parts("pool") == [(0, D("0.5")), (0, D("0.5"))]


def test_case_238_a_pool_without_cap_takes_the_whole_cost(world: World) -> None:
    world.feature("call", precision=0)
    world.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "call", "credit_cost": 3}])
    c = world.holding(U(1).of("pool"))
    c.track(1, "call")
    assert c.bal("pool") == -2


def test_a_member_that_costs_nothing_is_paid_by_any_pool_that_is_held(world: World) -> None:
    """Cost 0: any held system pays everything with 0 credits; one that is held no more pays nothing."""
    world.feature("call")
    world.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "call", "credit_cost": 0}])
    group = {"group": "base"}
    c = world.customer(world.plan(L(0).of("pool"), **group))
    assert c.allowed(10**6, "call") and c.allowed(5, "call", send_event=True)
    c.track(7, "call", overage_behavior="reject")
    assert c.ru("pool") == (0, 0)
    c.attach(world.plan(M(1), **group))
    answer = c.check(5, "call")
    assert (answer["allowed"], answer.get("reason")) == (False, "not_held")
    c.track(9, "call")
    assert [(e["value"], e["applied"]) for e in world.api.events(c.id)] == [("5", 5_000_000), ("7", 7_000_000), ("9", 0)]
