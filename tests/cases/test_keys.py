"""Worked cases on idempotency keys and batches."""

from __future__ import annotations

from tests.cases.world import L, M, World

KEYED = {"idempotency_key": "k"}


def test_case_172_a_repeated_event_changes_no_feature(world: World) -> None:
    world.credits()
    c = world.holding(L(100).of("action1"), L(100).of("action3"))
    first = c.event("action-event", 10, **KEYED)
    assert c.event("action-event", 10, **KEYED) == first
    assert (c.bal("action1"), c.bal("action3")) == (90, 90)


def test_case_175_a_batch_with_one_key_twice(world: World) -> None:
    c = world.holding(M(20))
    one = {"customer_id": c.id, "feature_id": "msg", "value": 3, **KEYED}
    two = {"customer_id": c.id, "feature_id": "msg", "value": 2}
    answer = world.api.post("/v1/balances.batch_track", [one, two, one], 202)
    first, _, again = answer["results"]
    assert answer["success"] is True and first == again and first["status"] == 200
    assert c.bal() == 15
    later = world.api.post("/v1/balances.batch_track", [one, two], 202)["results"]
    assert later[0] == first and later[1]["status"] == 200
    assert c.bal() == 13


def test_case_237_a_refused_call_frees_its_key(world: World) -> None:
    c = world.holding(M(10))
    c.reject(15, **KEYED)
    c.attach(world.add_on(L(20)))
    body = {"customer_id": c.id, "feature_id": "msg", "value": 15, "overage_behavior": "reject", **KEYED}
    first = world.api.post("/v1/track", body)
    assert c.bal() == 15
    assert world.api.post("/v1/track", body) == first
    assert c.bal() == 15
