"""Worked cases, group Overage, PAYG, caps: overage control and spend limits, at 1.2 and at 2.x."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from tests.cases.world import E, L, M, U, Customer, World, overage, spend_limit
from tests.http import Api, audit

ON, OFF = [overage(True)], [overage(False)]


@pytest.fixture(scope="module")
def shop(module_api: Api) -> World:
    """One catalog for all cases."""
    made = World(module_api)
    made.credits()
    return made


@pytest.fixture(params=["1.2", "2.0"])
def world(shop: World, request: pytest.FixtureRequest) -> Iterator[World]:
    """The catalog, called at each generation of the wire."""
    shop.version = request.param
    yield shop
    audit(shop.api)


def applied(c: Customer) -> list[tuple[Any, Any]]:
    """What each of the customer's events asked for, and what of it was applied."""
    return [(event["requested"] / 10**6, event["applied"] / 10**6) for event in c.api.events(c.id)]


def limited(world: World, *buckets: Any, limit: Any = 25, **fields: Any) -> Customer:
    """A customer of these buckets with a spend limit of its own."""
    c = world.holding(*buckets)
    c.controls(spend_limits=[spend_limit(limit, **fields)])
    return c


# Overage control


@pytest.mark.parametrize("controlled", [True, False])
def test_case_59_credits_of_pay_per_use_go_below_zero_at_their_cost(world: World, controlled: bool) -> None:
    """The control adds nothing to what may go below zero natively, and takes nothing from it."""
    c = world.holding(U(100).of("credits"))
    if controlled:
        c.controls(overage_allowed=[overage(True, "credits")])
    assert c.allowed(600, "action1")
    c.track(600, "action1")
    assert c.ru("credits") == (0, 120)
    assert applied(c) == [(600, 600)]


def test_case_67_a_free_grant_goes_below_zero_when_switched_on(world: World) -> None:
    c = world.holding(L(100))
    c.controls(overage_allowed=ON)
    for value, used in ((80, 80), (50, 130), (70, 200)):
        assert c.allowed(value)
        c.track(value)
        assert c.shown().u == used
    assert c.bal() == -100


def test_case_68_what_goes_below_zero_fits_a_rejecting_track(world: World) -> None:
    c = world.holding(L(50))
    c.controls(overage_allowed=ON)
    c.track(50)
    c.track(30, overage_behavior="reject")
    assert c.shown().u == 80


def test_case_70_switched_off_again_nothing_more_fits(world: World) -> None:
    c = world.holding(L(100))
    c.controls(overage_allowed=ON)
    c.track(120)
    assert c.shown().u == 120
    c.controls(overage_allowed=OFF)
    assert c.denied(50) == "insufficient_balance"
    c.track(50)
    assert c.shown().u == 120
    assert applied(c) == [(120, 120), (50, 0)]


def test_case_71_pay_per_use_switched_off_ends_at_zero(world: World) -> None:
    c = world.holding(U(100))
    c.controls(overage_allowed=OFF)
    assert c.allowed(50) and c.denied(101) == "insufficient_balance"
    c.track(130)
    assert c.shown().u == 100
    assert c.denied() == "insufficient_balance"
    c.reject(1)


def test_case_73_the_free_bucket_stays_where_another_goes_below_natively(world: World) -> None:
    c = world.holding(L(100), U(0, extra=50))
    c.controls(overage_allowed=ON)
    assert c.allowed(150) and c.denied(151) == "insufficient_balance"
    c.track(200)
    assert c.shown().u == 150
    assert [part["balance"] for part in c.shown().fields["breakdown"]] in ([-50], [-50, 0])


def test_case_74_free_seats_by_the_control(world: World) -> None:
    world.feature("seats", "continuous_use")
    c = world.holding(L(5).of("seats"))
    c.track(5, "seats")
    assert c.denied(feature="seats") == "insufficient_balance"
    c.controls(overage_allowed=[overage(True, "seats")])
    assert c.allowed(feature="seats")
    c.track(2, "seats", overage_behavior="reject")
    assert c.shown("seats").u == 7
    c.controls(overage_allowed=[overage(False, "seats")])
    assert c.denied(feature="seats") == "insufficient_balance"
    c.track(1, "seats")
    assert c.shown("seats").u == 7, "off: not in cap mode either"
    c.controls(overage_allowed=[])
    c.track(1, "seats")
    assert c.shown("seats").u == 8, "without the control free seats go over in cap mode"


def test_case_76_an_entitys_control_is_its_own(world: World) -> None:
    c = world.holding(E(100))
    c.entities("e1", "e2")
    c.controls("e1", overage_allowed=ON)
    for entity_id, used in (("e1", 130), ("e2", 100)):
        assert c.allowed(130, entity_id=entity_id) is (entity_id == "e1")
        c.track(130, entity_id=entity_id)
        assert c.shown(entity=entity_id).u == used
    assert c.shown().u == 230


@pytest.mark.parametrize("control", [None, False, True], ids=["no control", "off", "on"])
def test_case_77_overflow_goes_below_zero_whatever_the_control(world: World, control: bool | None) -> None:
    c = world.holding(M(100))
    if control is not None:
        c.controls(overage_allowed=[overage(control)])
    c.track(150, overage_behavior="overflow")
    assert c.ru() == (0, 150)
    if control:
        assert c.allowed()
    else:
        assert c.denied() == "insufficient_balance"
        c.track(10)
        assert c.ru() == (0, 150)


# Spend limits


def test_case_79_a_spend_limit_stands_in_for_the_usage_limit(world: World) -> None:
    c = limited(world, L(1000), U(100, extra=300))
    c.track(1120)
    assert c.shown().u == 1120
    assert c.allowed(5) and c.denied(6) == "spend_limit"
    c.track(10)
    assert c.shown().u == 1125
    assert c.denied(1) == "spend_limit"
    c.reject(1)
    assert applied(c)[-1] == (10, 5)


def test_case_79_a_spend_limit_beyond_the_usage_limit(world: World) -> None:
    c = limited(world, U(100, extra=10), limit=25)
    assert c.allowed(125) and c.denied(126) == "spend_limit"


def test_case_80_a_spend_limit_stops_overflow_too(world: World) -> None:
    c = limited(world, L(1000), U(100, extra=300))
    c.track(1120)
    c.track(10, overage_behavior="overflow")
    assert c.shown().u == 1125
    assert applied(c)[-1] == (10, 5)


def test_case_82_a_disabled_spend_limit_is_none(world: World) -> None:
    c = limited(world, U(100), enabled=False)
    c.track(120)
    assert c.allowed(10)
    c.track(10, overage_behavior="reject")
    assert c.shown().u == 130


def test_case_83_a_percentage_of_one_main_grant(world: World) -> None:
    c = limited(world, U(100), limit=120, limit_type="usage_percentage")
    assert c.allowed(220) and c.denied(221) == "spend_limit"
    c.track(1000)
    assert c.shown().u == 220


def test_case_83_a_percentage_of_two_main_grants(world: World) -> None:
    """Add-ons, lifetime and loose grants do not count."""
    c = world.customer(world.plan(U(100)), world.plan(M(50)))
    c.controls(spend_limits=[spend_limit(120, limit_type="usage_percentage")])
    c.track(1000)
    assert c.shown().u == 330
    c.attach(world.add_on(M(10)))
    c.attach(world.plan(L(20)))
    c.post("/v1/balances.create", {"feature_id": "msg", "included_grant": 30, "reset": {"interval": "month"}})
    c.track(1000)
    assert c.shown().u == 330 + 60


def test_case_85_a_percentage_of_nothing_is_no_limit(world: World) -> None:
    c = limited(world, U(0), limit=120, limit_type="usage_percentage")
    assert c.allowed(600)
    c.track(600)
    assert c.shown().u == 600


@pytest.mark.parametrize("before", [True, False], ids=["limited first", "limited after"])
def test_case_86_a_customers_spend_limit_counts_every_entity(world: World, before: bool) -> None:
    c = world.holding(U(800, entity_feature_id="seats"))
    c.entities("e1", "e2")
    limit = [spend_limit(25)]
    if before:
        c.controls(spend_limits=limit)
    for entity_id in ("e1", "e2"):
        c.track(810, entity_id=entity_id)
        assert c.shown(entity=entity_id).u == 810
    c.controls(spend_limits=limit)
    assert c.allowed(5) and c.denied(6) == "spend_limit"
    c.track(10)
    assert c.shown().u == 1625
    for entity_id in ("e1", "e2"):
        assert c.denied(1, entity_id=entity_id) == "spend_limit", "what the others are over counts for each"


def test_an_entitys_own_spend_limit_counts_its_own_and_the_customers(world: World) -> None:
    c = world.customer(world.plan(U(0, entity_feature_id="seats")), world.plan(U(0)))
    c.entities("e1", "e2")
    c.track(10, entity_id="e2")
    c.track(3)
    c.controls(spend_limits=[spend_limit(14)])
    c.controls("e1", spend_limits=[spend_limit(5)])
    assert c.denied(3, entity_id="e1") == "spend_limit", "3 of the customer's count, 10 of e2's do not"
    c.track(10, entity_id="e1")
    assert applied(c)[-1] == (10, 2)
    assert c.denied(1) == "spend_limit" and c.denied(1, entity_id="e2") == "spend_limit"


def test_a_spend_limit_makes_no_bucket_eligible(world: World) -> None:
    c = limited(world, M(100))
    assert c.allowed(100) and c.denied(101) == "insufficient_balance"
    c.controls(overage_allowed=ON)
    assert c.allowed(125) and c.denied(126) == "spend_limit"


def test_a_spend_limit_about_every_feature(world: World) -> None:
    world.feature("other")
    c = world.holding(U(10), U(20).of("other"))
    c.controls(spend_limits=[{"overage_limit": 5}])
    assert c.allowed(15) and c.denied(16) == "spend_limit"
    assert c.allowed(25, "other") and c.denied(26, "other") == "spend_limit"
    c.controls(spend_limits=[{"overage_limit": 5}, spend_limit(7)])
    assert c.allowed(17) and c.denied(18) == "spend_limit" and c.denied(26, "other") == "spend_limit"


def test_of_several_plans_the_strictest_spend_limit_wins(world: World) -> None:
    c = world.customer(
        world.plan(U(100), controls={"spend_limits": [spend_limit(30)]}),
        world.plan(M(50), controls={"spend_limits": [spend_limit(20)]}),
        world.plan(M(50), controls={"spend_limits": [spend_limit(1, enabled=False)]}),
    )
    assert c.allowed(220) and c.denied(221) == "spend_limit"
