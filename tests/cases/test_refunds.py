"""Worked cases on exact refunds: `refund_of` gives an event back to whoever paid."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.cases.world import L, M, Customer, World

D = Decimal
V21 = {"x-api-version": "2.1"}


def give_back(c: Customer, event: str, value: Any = None, status: int = 200, **fields: Any) -> Any:
    amount = {} if value is None else {"value": value}
    body = {"customer_id": c.id, "refund_of": event, **amount, **fields}
    return c.api.post("/v1/track", body, status, headers=V21)


def test_case_230_a_refund_across_a_reset_is_dropped(world: World) -> None:
    c = world.holding(M(100))
    event = c.track(40)["id"]
    world.api.advance_to(c.period_end())
    answer = give_back(c, event)
    assert c.ru() == (100, 0)
    assert (answer["value"], answer["deductions"]) == (-40, [])
    assert give_back(c, event)["value"] == 0, "it counts as given back"


def test_case_234_back_to_the_buckets_that_paid(world: World) -> None:
    c = world.holding(M(100), L(50))
    event = c.track(120)["id"]
    month, lifetime = c.parts()
    assert (month[0], lifetime[0]) == (0, 30)
    for value, left in ((-30, (10, 50)), (-30, (40, 50)), (None, (100, 50))):
        give_back(c, event, value)
        assert tuple(part[0] for part in c.parts()) == left
    assert give_back(c, event)["value"] == 0
    for value in ({}, {"value": -1}):
        body = {"customer_id": c.id, "refund_of": event, "overage_behavior": "reject", **value}
        world.api.refused("/v1/track", body, 400, "insufficient_balance")
    assert c.ru() == (150, 0)


def test_case_239_credits_come_back_as_they_went(world: World) -> None:
    world.feature("calls", precision=0)
    world.feature("pool", "credit_system", precision=0, credit_schema=[{"metered_feature_id": "calls", "credit_cost": D("1.4")}])
    c = world.holding(L(100).of("pool"))
    event = c.track(3, "calls")["id"]
    assert c.bal("pool") == 95
    seen = [95]
    for _ in range(3):
        give_back(c, event, -1)
        seen.append(c.bal("pool"))
    assert [b - a for a, b in zip(seen, seen[1:])] == [2, 1, 2]


@pytest.mark.parametrize("mode", ["cap", "reject"])
def test_an_event_of_several_features_gives_n_of_each(world: World, mode: str) -> None:
    world.credits()
    c = world.holding(L(100).of("action1"), L(100).of("action3"))
    event = c.event("action-event", 10)["id"]
    give_back(c, event, -4, overage_behavior=mode)
    assert (c.bal("action1"), c.bal("action3")) == (94, 94)
    give_back(c, event, overage_behavior=mode)
    assert (c.bal("action1"), c.bal("action3")) == (100, 100)
