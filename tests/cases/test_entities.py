"""Worked cases on seats and entities: occupied units, own buckets, shares of per-entity grants."""

from __future__ import annotations

import pytest

from tests.cases.world import E, L, M, P, World


@pytest.fixture(autouse=True)
def seats(world: World) -> None:
    world.feature("seats", "continuous_use")


def test_case_112_seats_go_below_zero_and_come_back(world: World) -> None:
    c = world.holding(L(5).of("seats"))
    for value, current, purchased, used in ((8, 0, 3, 8), (-2, 0, 1, 6), (-2, 1, 0, 4), (-20, 5, 0, 0)):
        c.track(value, "seats")
        shown = c.shown("seats")
        assert (shown.g, *shown.v2()) == (5, current, purchased, used)


def test_case_115_seats_follow_an_upgrade(world: World) -> None:
    group = {"group": "team"}
    c = world.customer(world.plan(L(5).of("seats"), **group))
    c.track(3, "seats")
    c.attach(world.plan(L(10).of("seats"), **group))
    assert c.ru("seats") == (7, 3)


def test_case_118_occupied_units_follow_on_to_prepaid_ones(world: World) -> None:
    world.feature("workflows", "continuous_use")
    group = {"group": "team"}
    c = world.customer(world.plan(L(2).of("workflows"), **group))
    c.track(1, "workflows")
    c.attach(world.plan(P(0, 3).of("workflows"), **group))
    assert c.ru("workflows") == (2, 1)


def test_case_119_each_entity_has_its_own_and_the_customers(world: World) -> None:
    c = world.holding(E(50), M(100))
    c.entities("e1", "e2")
    assert c.bal() == 200 and c.bal(entity="e1") == c.bal(entity="e2") == 150
    c.track(30, entity_id="e1")
    assert c.parts(entity="e1") == [(20, 30), (100, 0)]
    assert c.bal(entity="e1") == 120 and c.bal() == 170 and c.bal(entity="e2") == 150


def test_case_121_a_customers_call_goes_on_slot_by_slot(world: World) -> None:
    c = world.holding(M(100), E(50))
    c.entities("e1", "e2")
    c.track(160)
    assert c.bal(entity="e1") == 0 and c.bal(entity="e2") == 40 and c.bal() == 40
    assert c.allowed(40) and not c.allowed(41)
    assert c.allowed(40, entity_id="e2") and not c.allowed(1, entity_id="e1")


def test_case_122_slots_are_spent_in_id_order(world: World) -> None:
    """Case 122, by a track."""
    c = world.holding(E(100))
    c.entities("e3", "e1", "e2")
    c.track(150)
    assert [c.bal(entity=e) for e in ("e1", "e2", "e3")] == [0, 50, 100] and c.bal() == 150


def test_case_124_an_entitys_plan_is_not_the_customers_to_spend(world: World) -> None:
    own = world.plan(M(100))
    c = world.customer(world.plan(M(50)))
    c.entities("e1", "e2", "e3")
    for entity_id in ("e1", "e2", "e3"):
        c.attach(own, entity_id=entity_id)
    assert c.bal() == 350 and c.bal(entity="e2") == 150
    assert c.allowed(50) and not c.allowed(51), "less than it shows"
    c.track(60)
    assert c.bal() == 300
    assert world.api.events(c.id)[-1]["applied"] == 50_000_000


def test_case_125_an_entity_never_spends_a_siblings_plan(world: World) -> None:
    own = world.plan(M(100))
    c = world.customer(world.plan(M(50)))
    c.entities("e1", "e2")
    for entity_id in ("e1", "e2"):
        c.attach(own, entity_id=entity_id)
    c.reject(250, entity_id="e1")
    assert c.bal(entity="e1") == 150
    c.track(250, entity_id="e1")
    assert c.bal(entity="e1") == 0 and c.parts(entity="e2") == [(100, 0), (0, 50)]


def test_case_128_another_feature_is_untouched(world: World) -> None:
    c = world.holding(E(100), M(200).of("credits"))
    c.entities("e1", "e2")
    c.track(30, entity_id="e1")
    c.track(50, entity_id="e2")
    c.track(3, "credits")
    assert (c.bal(entity="e1"), c.bal(entity="e2"), c.bal("credits")) == (70, 50, 197)


def test_case_145_shares_are_filled_again(world: World) -> None:
    c = world.holding(E(100))
    c.entities("e1", "e2")
    c.track(30, entity_id="e1")
    c.track(20, entity_id="e2")
    assert c.bal() == 150
    world.api.advance_to(c.period_end())
    assert c.bal() == 200 and c.bal(entity="e1") == c.bal(entity="e2") == 100
    c.track(5, entity_id="e2")
    assert c.bal() == 195 and c.bal(entity="e2") == 95


def test_case_167_like_entities_and_customer_side_by_side(world: World) -> None:
    """The numbers of case 167, by tracks."""
    c = world.holding(E(100), M(200).of("credits"))
    c.entities("e1", "e2")
    track = "/v1/track"
    world.api.together(
        ("POST", track, {"customer_id": c.id, "feature_id": "msg", "value": 30, "entity_id": "e1"}),
        ("POST", track, {"customer_id": c.id, "feature_id": "msg", "value": 50, "entity_id": "e2"}),
        ("POST", track, {"customer_id": c.id, "feature_id": "credits", "value": 3}),
    )
    assert (c.bal(entity="e1"), c.bal(entity="e2"), c.bal("credits")) == (70, 50, 197)


def test_an_entity_takes_a_seat_and_gives_it_back_with_what_it_used(world: World) -> None:
    c = world.holding(L(2).of("seats"), E(50))
    c.entities("e1", "e2")
    assert c.ru("seats") == (0, 2) and c.bal() == 100
    c.track(20, entity_id="e1")
    assert c.bal() == 80
    world.api.call("DELETE", f"/v1/customers/{c.id}/entities/e1")
    assert c.ru("seats") == (1, 1) and c.ru() == (50, 0), "its usage leaves the sums"
    world.api.refused("/v1/track", {"customer_id": c.id, "feature_id": "msg", "entity_id": "e1"}, 404, "entity_not_found")


def test_a_share_held_by_a_credit_system_pays_for_its_entity(world: World) -> None:
    world.feature("action")
    world.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "action", "credit_cost": 2}])
    c = world.holding(E(50).of("pool"), M(100).of("pool"))
    c.entities("e1", "e2")
    c.track(30, "action", entity_id="e1")  # 60 credits: 50 own, 10 of the customer's
    assert c.parts("pool", entity="e1") == [(0, 50), (90, 10)]
    c.track(60, "action")  # 120 credits: 90 of the customer's, then e2's
    assert c.parts("pool", entity="e2") == [(20, 30), (0, 100)]


def test_a_refund_to_an_entity_fills_its_share_first(world: World) -> None:
    c = world.holding(E(50), M(100))
    c.entities("e1")
    c.track(70, entity_id="e1")
    assert c.parts(entity="e1") == [(0, 50), (80, 20)]
    c.track(-60, entity_id="e1")
    assert c.parts(entity="e1") == [(50, 0), (90, 10)]


def test_overflow_of_an_entity_goes_below_zero_on_its_own_share(world: World) -> None:
    c = world.holding(E(50), M(100))
    c.entities("e1", "e2")
    c.track(200, entity_id="e1", overage_behavior="overflow")
    assert [p["balance"] for p in c.shown(entity="e1").fields["breakdown"]] == [-50, 0]
    assert c.bal(entity="e2") == 50 and c.bal() == 0 and not c.allowed(1, entity_id="e1")
    c.track(-50, entity_id="e1")
    assert c.bal(entity="e1") == 0 and c.bal() == 50
    world.api.advance_to(c.period_end())
    assert c.bal(entity="e1") == c.bal(entity="e2") == 150 and c.bal() == 200


def test_more_than_a_thousand_shares_in_one_call_are_refused_whole(world: World) -> None:
    c = world.holding(E(1))
    for start in range(0, 1100, 100):
        world.api.post(f"/v1/customers/{c.id}/entities", [
            {"id": f"e{n:04}", "feature_id": "seats"} for n in range(start, start + 100)
        ])
    assert c.bal() == 1100
    body = {"customer_id": c.id, "feature_id": "msg", "value": 1001}
    world.api.refused("/v1/track", body, 422, "too_many_entities")
    world.api.refused("/v1/check", {**body, "required_balance": 1001, "send_event": True}, 422, "too_many_entities")
    c.track(1000)
    assert c.bal() == 100 and c.bal(entity="e0999") == 0 and c.bal(entity="e1000") == 1
    c.track(1, entity_id="e1099")
    assert c.bal() == 99
