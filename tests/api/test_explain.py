"""`GET /v1/customers/{id}/explain`: what it says a call would be given is what the call is given."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any, Callable

import pytest

from tests.cases.world import FLAG, UNLIMITED, E, H, L, M, P, U, Customer, World
from tests.http import DAY_MS, Api

D = Decimal
UNIT = D(1).scaleb(-6)
"""The last place of a feature of the usual precision."""
COSTS = {"credits": D("0.2"), "more": D("1.4"), "dear": 3}
SEEDS = range(30)


def explained(c: Customer, feature: str = "msg", entity: str = "") -> dict[str, Any]:
    path = f"/v1/customers/{c.id}/explain?feature_id={feature}" + (f"&entity_id={entity}" if entity else "")
    answer: dict[str, Any] = c.api.get(path)
    return answer


def agrees(c: Customer, feature: str = "msg", entity: str = "") -> dict[str, Any]:
    """The explanation, once it was found to agree with check: Σ gives is accepted, a unit more is not."""
    found = explained(c, feature, entity)
    scope = {"entity_id": entity} if entity else {}
    one = c.check(1, feature, **scope)
    assert (found["allowed"], found["reason"]) == (one["allowed"], one.get("reason"))
    payers = found["rollovers"] + found["buckets"]
    if found["accepts"] is None:
        assert any(bucket["gives"] is None for bucket in payers)
        assert c.allowed(10**9, feature, **scope)
        return found
    total = sum(D(payer["gives"]) for payer in payers)
    assert total == found["accepts"], found
    if payers:
        assert c.allowed(found["accepts"], feature, **scope), found
    assert not c.allowed(found["accepts"] + UNIT, feature, **scope), found
    for bucket in (bucket for bucket in found["buckets"] if bucket["feature_id"] == feature):
        assert bucket["floor"] is None or bucket["balance"] - bucket["gives"] >= min(bucket["floor"], bucket["balance"])
    return found


def systems(world: World) -> None:
    """Credit systems that pay for msg."""
    world.feature("msg")
    for name, cost in COSTS.items():
        world.feature(name, "credit_system", credit_schema=[{"metered_feature_id": "msg", "credit_cost": cost}])


def controls(c: Customer, entity: str = "", **lists: Any) -> None:
    """Sets billing controls of the customer or of an entity."""
    if entity:
        body = {"customer_id": c.id, "entity_id": entity, "billing_controls": lists}
        c.api.post("/v1/entities.update", body, headers={"x-api-version": "2.1"})
    else:
        c.api.post(f"/v1/customers/{c.id}", {"billing_controls": lists})


def test_buckets_in_spending_order_and_what_each_gives(api: Api) -> None:
    world = World(api)
    systems(world)
    c = world.holding(L(50), H(5), U(10, extra=20), M(7).of("credits"))
    c.track(8)
    found = agrees(c)
    assert [(b["feature_id"], b["balance"], b["granted"], b["gives"], b["floor"]) for b in found["buckets"]] == [
        ("msg", 0, 5, 0, 0), ("msg", 7, 10, 27, -20), ("msg", 50, 50, 50, 0), ("credits", 7, 7, 35, 0),
    ]
    assert found["accepts"] == 27 + 50 + 35
    assert found["buckets"][0]["plan_id"] == "plan1" and found["buckets"][0]["id"].startswith("bkt_")
    assert (found["customer_id"], found["feature_id"], found["entity_id"]) == (c.id, "msg", None)


def test_not_held_and_flags(api: Api) -> None:
    world = World(api)
    c = world.holding(FLAG)
    world.feature("msg")
    found = agrees(c)
    assert (found["allowed"], found["reason"], found["accepts"], found["buckets"]) == (False, "not_held", 0, [])
    flag = explained(c, "flag")
    assert flag["allowed"] and flag["accepts"] is None
    assert [b["gives"] for b in flag["buckets"]] == [None]


def test_no_end(api: Api) -> None:
    world = World(api)
    systems(world)
    assert [b["gives"] for b in agrees(world.holding(M(10), U(5)))["buckets"]] == [10, None]
    everything = agrees(world.holding(M(10), UNLIMITED, M(3).of("credits")))
    assert [b["gives"] for b in everything["buckets"]] == [None, 0, 0], "an unlimited bucket alone pays"
    world.feature("free", "credit_system", credit_schema=[{"metered_feature_id": "msg", "credit_cost": 0}])
    assert [b["gives"] for b in agrees(world.holding(M(10), M(3).of("free")))["buckets"]] == [10, None]


def test_caps_in_force_and_where_they_come_from(api: Api) -> None:
    world = World(api)
    systems(world)
    c = world.holding(M(100), U(0), M(50).of("credits"), E(10))
    c.entities("e1")
    c.track(370)  # 100 of the month, 10 of the entity's, 250 by credits, 10 over
    assert agrees(c)["accepts"] is None
    controls(c, spend_limits=[{"feature_id": "msg", "overage_limit": 25}])
    spend = agrees(c)
    assert spend["caps"] == [{"kind": "spend_limit", "feature_id": "msg", "limit": 25, "used": 10, "source": "customer"}]
    assert spend["accepts"] == 15
    controls(c, spend_limits=[], usage_limits=[
        {"feature_id": "msg", "limit": 30, "interval": "day", "anchor": "utc"},
        {"feature_id": "credits", "limit": 4, "interval": "month"},
    ])
    c.track(6)
    windows = agrees(c)
    assert windows["accepts"] == 24
    assert [(cap["feature_id"], cap["limit"], cap["used"], cap["interval"], cap["anchor"]) for cap in windows["caps"]] == [
        ("msg", 30, 6, "day", "utc"), ("credits", 4, 0, "month", "billing_cycle"),
    ]
    controls(c, "e1", usage_limits=[{"feature_id": "msg", "limit": 9, "interval": "day", "anchor": "utc"}])
    own = agrees(c, entity="e1")
    assert own["accepts"] == 9 and own["caps"][0]["source"] == "entity"
    assert own["caps"][1]["source"] == "customer"


def test_caps_of_plans_and_overage_control(api: Api) -> None:
    world = World(api)
    world.feature("msg")
    c = world.holding(M(100))
    controls(c, overage_allowed=[{"feature_id": "msg", "enabled": True}])
    assert agrees(c)["caps"] == [
        {"kind": "overage_allowed", "feature_id": "msg", "enabled": True, "limit": None, "used": None, "source": "customer"}
    ]
    controls(c, overage_allowed=[{"feature_id": "msg", "enabled": True}], spend_limits=[{"overage_limit": 7}])
    found = agrees(c)
    assert found["accepts"] == 107 and found["buckets"][0]["floor"] == -7
    assert [cap["source"] for cap in found["caps"]] == ["customer", "customer"]
    plan = world.plan(M(50), billing_controls={"usage_limits": [{"feature_id": "msg", "limit": 20, "interval": "day"}]})
    planned = agrees(world.customer(plan))
    assert [(cap["kind"], cap["source"]) for cap in planned["caps"]] == [("usage_limit", "plan")]
    assert planned["accepts"] == 20


def test_entities(api: Api) -> None:
    world = World(api)
    c = world.holding(M(100), E(10), E(5, None))
    c.entities("a", "b")
    c.track(4, entity_id="b")
    whole = agrees(c)
    assert [(b["entity_id"], b["gives"]) for b in whole["buckets"]] == [
        (None, 100), ("a", 10), ("b", 6), ("a", 5), ("b", 5),
    ]
    own = agrees(c, entity="b")
    assert [(b["entity_id"], b["gives"]) for b in own["buckets"]] == [("b", 6), ("b", 5), (None, 100)]
    assert own["entity_id"] == "b"


def test_rollovers_give_too(api: Api) -> None:
    world = World(api)
    c = world.holding(M(100, rollover={"max": 70, "duration": "month", "length": 12}))
    c.track(50)
    api.advance(32 * DAY_MS)
    c.track(10)
    found = agrees(c)
    assert [(r["granted"], r["balance"], r["gives"], r["rolled_over_from"]) for r in found["rollovers"]] == [
        (50, 40, 40, found["buckets"][0]["id"])
    ]
    assert found["accepts"] == 140 and found["rollovers"][0]["expires_at"] > found["now"]


def test_what_happened_to_the_credits(api: Api) -> None:
    world = World(api)
    systems(world)
    c = world.holding(M(100), M(50).of("credits"))
    paid = c.track(120)["id"]
    c.track(-5)
    api.advance(32 * DAY_MS)
    c.track(1)
    behind = explained(c)
    assert behind["changes_pending"]
    api.sync()
    found = explained(c)
    assert not found["changes_pending"]
    kinds = [(change["kind"], change.get("value"), [(d["kind"], d["feature_id"], d["value"]) for d in change["deltas"]])
             for change in found["changes"]]
    assert kinds == [
        ("event", 1, [("reset", "msg", 95), ("reset", "credits", 4), ("use", "msg", -1)]),
        ("event", -5, [("use", "msg", 5)]),
        ("event", 120, [("use", "msg", -100), ("use", "credits", -4)]),
        ("grant", None, [("grant", "msg", 100), ("grant", "credits", 50)]),
    ]
    assert found["changes"][2]["id"] == paid and found["changes"][2]["applied"] == 120
    assert {delta["plan_id"] for change in found["changes"] for delta in change["deltas"]} == {"plan1"}
    assert [change["id"] for change in explained(c, "credits")["changes"]] != []


def test_fifty_changes_at_most_newest_first(api: Api) -> None:
    world = World(api)
    c = world.holding(M(1000))
    for value in range(1, 61):
        c.track(value)
    api.sync()
    changes = explained(c)["changes"]
    assert [change["value"] for change in changes] == list(range(60, 10, -1))


def test_another_entitys_changes_are_not_shown_to_one(api: Api) -> None:
    world = World(api)
    c = world.holding(E(10))
    c.entities("a", "b")
    c.track(1, entity_id="a")
    c.track(2, entity_id="b")
    api.sync()
    values = [change.get("value") for change in explained(c, entity="a")["changes"] if change["kind"] == "event"]
    assert values == [1]


def test_refusals_and_the_rpc_name(api: Api) -> None:
    world = World(api)
    c = world.holding(M(10))
    assert api.get("/v1/customers/nobody/explain?feature_id=msg", 404)["code"] == "customer_not_found"
    assert api.get(f"/v1/customers/{c.id}/explain?feature_id=nothing", 404)["code"] == "feature_not_found"
    assert api.get(f"/v1/customers/{c.id}/explain?feature_id=msg&entity_id=e9", 404)["code"] == "entity_not_found"
    assert api.get(f"/v1/customers/{c.id}/explain", 400)["code"] == "invalid_inputs"
    newer = api.post(
        "/v1/customers.explain", {"customer_id": c.id, "feature_id": "msg"}, headers={"x-api-version": "2.3"}
    )
    assert newer["accepts"] == explained(c)["accepts"] == 10


def test_it_changes_nothing(api: Api) -> None:
    world = World(api)
    systems(world)
    c = world.holding(M(10), U(5, extra=3), M(9).of("credits"))
    controls(c, usage_limits=[{"feature_id": "msg", "limit": 5, "interval": "day"}])
    c.track(2)
    with api.nothing_changes():
        explained(c)


def test_what_passes_the_range_on_the_way_is_not_accepted(api: Api) -> None:
    world = World(api)
    world.feature("msg")
    world.feature("dear", "credit_system", credit_schema=[{"metered_feature_id": "msg", "credit_cost": 10**6}])
    c = world.holding(M(10**9), M(5 * 10**9).of("dear"))
    found = explained(c)
    assert found["accepts"] == 10**9 + 5000
    assert c.allowed(found["accepts"])


ITEMS: list[Callable[[random.Random], Any]] = [
    lambda r: M(r.randint(0, 50)), lambda r: H(r.randint(0, 9)), lambda r: L(r.randint(0, 30)),
    lambda r: U(r.randint(0, 20), extra=r.randint(0, 15)), lambda r: U(r.randint(0, 9)), lambda r: P(r.randint(0, 5), 10),
    lambda r: E(r.randint(0, 12)), lambda r: UNLIMITED, lambda r: M(r.randint(0, 40)).of("credits"),
    lambda r: U(r.randint(0, 8), extra=r.randint(0, 9)).of("credits"), lambda r: M(r.randint(0, 40)).of("more"),
    lambda r: L(r.randint(0, 9)).of("dear"), lambda r: E(r.randint(0, 9)).of("more"),
    lambda r: M(r.randint(1, 40), rollover={"max": r.randint(1, 60), "duration": "forever"}),
    lambda r: E(r.randint(1, 9)).with_(rollover={"duration": "month", "length": r.randint(1, 3)}),
]


def a_world(world: World, r: random.Random) -> Customer:
    """A random customer after some random use."""
    systems(world)
    weights = [1 if item in (ITEMS[4], ITEMS[7]) else 4 for item in ITEMS]
    picked = [make(r) for make in r.choices(ITEMS, weights, k=r.randint(1, 6))]
    plans = []
    for item in picked:
        plans.append(world.plan(item, is_add_on=r.random() < 0.3))
    if not any(plan for plan in picked if plan.item.get("entity_feature_id")):
        plans.append(world.plan(E(r.randint(0, 3)).of("more")))
    c = world.customer(*plans)
    c.entities("a", "b", "c")
    lists: dict[str, Any] = {}
    if r.random() < 0.4:
        lists["spend_limits"] = [{"overage_limit": r.randint(0, 30)}]
    if r.random() < 0.4:
        lists["usage_limits"] = [
            {"feature_id": r.choice(("msg", "msg", "credits", "more")), "limit": r.randint(0, 60), "interval": "year", "anchor": "utc"}
        ]
    if r.random() < 0.4:
        lists["overage_allowed"] = [{"feature_id": r.choice(("msg", "credits")), "enabled": r.random() < 0.6}]
    if lists:
        controls(c, **lists)
    if r.random() < 0.3:
        controls(c, "b", spend_limits=[{"feature_id": "msg", "overage_limit": r.randint(0, 9)}])
    return c


def use(c: Customer, r: random.Random) -> None:
    for _ in range(r.randint(0, 4)):
        scope = r.choice(({}, {"entity_id": "a"}, {"entity_id": "b"}))
        c.track(D(r.randint(1, 4000)) / 100, r.choice(("msg", "msg", "credits")), **scope)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sum_of_gives_is_what_is_accepted(api: Api, seed: int) -> None:
    r = random.Random(seed)
    c = a_world(World(api), r)
    use(c, r)
    if r.random() < 0.5:
        api.advance(r.randint(1, 70) * DAY_MS)
        use(c, r)
    for entity in ("", "a", "b"):
        agrees(c, entity=entity)
    agrees(c, "credits", r.choice(("", "b")))
