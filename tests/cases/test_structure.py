"""Worked cases on resets and plan switches, and repeats under a key."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from sidecar.store import customers
from tests.cases.world import L, M, U, World
from tests.http import HOUR_MS


def test_case_142_a_period_over_is_full_again(world: World) -> None:
    api, c = world.api, world.holding(M(100))
    c.track(30)
    api.advance_to(c.period_end())
    answer = c.check()
    assert (answer["balance"], answer["usage"]) == (100, 0)
    assert c.ru() == (100, 0)
    api.sync()
    ((_, row),) = api.ctx.store.read_sync(customers.load_snapshot, c.id).rows
    assert row.balance == row.granted == 100_000_000


def test_a_reset_date_keeps_the_original_day(world: World) -> None:
    """31 Jan, 28 Feb, 31 Mar; several missed periods are caught up as if each had been read."""
    api = world.api
    this_year = datetime.now(UTC).year
    api.advance_to(int(datetime(this_year + 1, 1, 31, 12, tzinfo=UTC).timestamp() * 1000))
    c = world.holding(M(10))
    idle = world.customer(("plan1", {}))
    leap = (this_year + 1) % 4 == 0
    for month, day in ((2, 29 if leap else 28), (3, 31), (4, 30), (5, 31)):
        due = datetime.fromtimestamp(c.period_end() / 1000, UTC)
        assert (due.month, due.day, due.hour) == (month, day, 12)
        c.track(4)
        api.advance_to(c.period_end())
        assert c.bal() == 10
    api.advance(HOUR_MS)
    assert idle.bal() == 10 and abs(idle.period_end() - c.period_end()) < 60_000


def test_case_205_a_switch_resets_usage_or_carries_it(world: World) -> None:
    group = {"group": "base"}
    free = world.plan(M(100), **group)
    for flag, left in ((True, 500), (False, 480)):
        c = world.customer(free)
        c.track(20)
        c.attach(world.plan(M(500, reset_usage_when_enabled=flag), **group))
        assert c.bal() == left


def test_case_206_carried_usage_is_never_floored(world: World) -> None:
    group = {"group": "base"}
    c = world.customer(world.plan(M(50), **group))
    c.track(50)
    c.attach(world.plan(M(30, reset_usage_when_enabled=False), **group))
    assert c.bal() == -20 and c.shown().u == 50


def test_the_reset_date_survives_a_switch(world: World) -> None:
    group = {"group": "base"}
    c = world.customer(world.plan(M(50), **group))
    due = c.period_end()
    world.api.advance(5 * 24 * HOUR_MS)
    c.attach(world.plan(M(80), **group))
    assert c.period_end() == due and c.bal() == 80


def test_a_top_up_is_spendable_at_the_next_check(world: World) -> None:
    c = world.holding(M(1))
    c.track(1)
    assert not c.allowed()
    c.attach(world.plan(U(5)))
    assert c.allowed(5)


# Idempotency


def test_case_172_the_same_event_twice_counts_once(world: World) -> None:
    world.feature("a", event_names=["both"])
    world.feature("b", event_names=["both"])
    c = world.holding(M(10).of("a"), L(20).of("b"))
    first = c.event("both", 3, idempotency_key="k")
    again = world.api.raw("POST", "/v1/track", {
        "customer_id": c.id, "event_name": "both", "value": 3, "idempotency_key": "k",
    })
    assert again.json() == first and again.headers["idempotency-replayed"] == "true"
    assert (c.bal("a"), c.bal("b")) == (7, 17)


@pytest.mark.parametrize("verb", ["track", "check"], ids=lambda v: f"case 237 {v}")
def test_a_refused_call_frees_its_key(world: World, verb: str) -> None:
    api, c = world.api, world.holding(M(1))
    if verb == "track":
        path, body = "/v1/track", {"customer_id": c.id, "feature_id": "msg", "value": 5, "overage_behavior": "reject"}
        api.refused(path, {**body, "idempotency_key": "K"}, 400, "insufficient_balance")
    else:
        path, body = "/v1/check", {"customer_id": c.id, "feature_id": "msg", "required_balance": 5, "send_event": True}
        assert api.post(path, {**body, "idempotency_key": "K"})["allowed"] is False
    c.attach(world.plan(M(10)))
    first = api.post(path, {**body, "idempotency_key": "K"})
    assert c.bal() == 6
    again = api.raw("POST", path, {**body, "idempotency_key": "K"})
    assert again.headers["idempotency-replayed"] == "true" and again.json()["id"] == first["id"]
    assert c.bal() == 6
