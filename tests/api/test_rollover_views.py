"""Rollovers, holds and spent grants as the versions show them, over HTTP: customer, entity, check."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.api.bucket_views import NEVER_ENDS_MS
from sync.duties import Duties
from tests.cases.world import E, L, M, Customer, World
from tests.http import DAY_MS, HOUR_MS, Api

V20, V21, V23 = ({"x-api-version": version} for version in ("2.0", "2.1", "2.3"))
MONTH = 32 * DAY_MS


@pytest.fixture
def world(api: Api) -> World:
    return World(api)


def newer(c: Customer, headers: dict[str, str], entity: str = "") -> dict[str, Any]:
    """A 2.x balance, the same in the view of the customer (or entity) and in a check of its scope."""
    path = f"/v1/customers/{c.id}" + (f"/entities/{entity}" if entity else "")
    shown: dict[str, Any] = c.api.get(path, headers=headers)["balances"]["msg"]
    body = {"customer_id": c.id, "feature_id": "msg", "required_balance": 0, **({"entity_id": entity} if entity else {})}
    assert c.api.post("/v1/check", body, headers=headers)["balance"] == shown
    return shown


def older(c: Customer, entity: str = "") -> dict[str, Any]:
    """The same at 1.2."""
    path = f"/v1/customers/{c.id}" + (f"/entities/{entity}" if entity else "")
    shown: dict[str, Any] = c.api.get(path)["features"]["msg"]
    seen = c.check(0, **({"entity_id": entity} if entity else {}))
    assert {name: seen[name] for name in shown if name not in ("id", "type", "name")} == {
        name: value for name, value in shown.items() if name not in ("id", "type", "name")
    }
    return shown


def test_totals_count_rollovers_and_the_breakdown_does_not(world: World) -> None:
    c = world.holding(M(100, rollover={"max": 70, "duration": "month", "length": 2}))
    assert older(c)["rollovers"] == []
    c.track(50)
    end = c.period_end()
    world.api.advance_to(end)
    c.track(10)
    shown = older(c)
    assert (shown["balance"], shown["included_usage"], shown["usage"]) == (140, 150, 10)
    assert (shown["interval"], len(shown["breakdown"])) == ("month", 1)
    assert [(b["balance"], b["usage"]) for b in shown["breakdown"]] == [(100, 0)]
    [rollover] = shown["rollovers"]
    assert set(rollover) == {"balance", "expires_at"} and rollover["balance"] == 40
    assert end + 58 * DAY_MS < rollover["expires_at"] < end + 63 * DAY_MS
    middle = newer(c, V20)
    assert (middle["granted_balance"], middle["purchased_balance"], middle["current_balance"], middle["usage"]) == (150, 0, 140, 10)
    assert middle["rollovers"] == [rollover] and middle["reset"]["interval"] == "month"
    for headers in (V21, V23):
        new = newer(c, headers)
        assert (new["granted"], new["remaining"], new["usage"], new["held"]) == (150, 140, 10, 0)
        assert new["rollovers"] == [{"granted": 50, **rollover}]
        assert [(b["remaining"], b["included_grant"]) for b in new["breakdown"]] == [(100, 100)]


def test_an_expired_rollover_never_counts(world: World) -> None:
    c = world.holding(M(100, rollover={"duration": "month", "length": 1}), M(1).with_(interval="year"))
    c.track(30)
    world.api.advance_to(c.period_end())
    assert older(c)["balance"] == 171
    [rollover] = older(c)["rollovers"]
    world.api.advance_to(rollover["expires_at"] - HOUR_MS)
    assert older(c)["balance"] == 171
    world.api.advance_to(rollover["expires_at"])
    shown = older(c)
    assert [r["balance"] for r in shown["rollovers"]] == [100] and shown["balance"] == 201


def test_one_that_never_ends_has_a_far_end(world: World) -> None:
    c = world.holding(M(10, rollover={"duration": "forever"}))
    world.api.advance(MONTH)
    assert newer(c, V21)["rollovers"] == [{"granted": 10, "balance": 10, "expires_at": NEVER_ENDS_MS}]


def test_case_139_of_each_entity_and_of_all(world: World) -> None:
    """case 139: per-entity 100, entity 1 used 40: entity 1 rolls 60 over, entity 2 100, together 160."""
    c = world.holding(E(100).with_(rollover={"duration": "month", "length": 3}))
    c.entities("e1", "e2")
    c.track(40, entity_id="e1")
    world.api.advance(MONTH)
    whole = newer(c, V21)
    assert (whole["granted"], whole["remaining"], [r["granted"] for r in whole["rollovers"]]) == (360, 360, [160])
    assert [r["balance"] for r in older(c, "e1")["rollovers"]] == [60]
    c.track(10, entity_id="e1")
    own = newer(c, V21, "e1")
    assert (own["granted"], own["remaining"], own["usage"]) == (160, 150, 10)
    assert [(r["granted"], r["balance"]) for r in own["rollovers"]] == [(60, 50)]
    assert [(r["granted"], r["balance"]) for r in newer(c, V21)["rollovers"]] == [(160, 150)]
    assert [(r["granted"], r["balance"]) for r in newer(c, V21, "e2")["rollovers"]] == [(100, 100)]
    shown = older(c)
    assert shown["included_usage"] - shown["usage"] == shown["balance"] == 350


def test_holds_are_shown_beside_usage(world: World) -> None:
    c = world.holding(M(100), L(10))
    assert "held" not in older(c)
    c.check(105, send_event=None, lock={"enabled": True, "lock_id": "one"})
    shown = older(c)
    assert (shown["balance"], shown["usage"], shown["held"]) == (5, 105, 105)
    assert [b.get("held") for b in shown["breakdown"]] == [100, 5]
    for headers in (V20, V21):
        new = newer(c, headers)
        assert (new["held"], [b["held"] for b in new["breakdown"]]) == (105, [100, 5])
    explained = c.api.get(f"/v1/customers/{c.id}/explain?feature_id=msg")
    [hold] = explained["holds"]
    assert (hold["lock_id"], hold["held"], hold["feature_id"]) == ("one", 105, "msg")
    assert hold["expires_at"] > explained["now"]
    c.api.post("/v1/balances.finalize", {"lock_id": "one", "action": "confirm", "override_value": 50}, headers=V21)
    assert "held" not in older(c) and newer(c, V21)["held"] == 0
    assert c.api.get(f"/v1/customers/{c.id}/explain?feature_id=msg")["holds"] == []


def test_events_tell_what_each_bucket_paid(world: World) -> None:
    world.feature("msg")
    world.feature("credits", "credit_system", credit_schema=[{"metered_feature_id": "msg", "credit_cost": 2}])
    c = world.holding(M(10), L(5), M(100).of("credits"))
    c.track(20)
    c.track(-3)
    c.track(0)
    world.api.sync()
    listed = world.api.post("/v1/events.list", {"customer_id": c.id}, headers=V23)["list"]
    paid = [(e["value"], e["applied"], [(d["feature_id"], d["value"]) for d in e["deductions"]]) for e in listed]
    assert paid == [
        (0, 0, []), (-3, -3, [("msg", -3)]), (20, 20, [("msg", 10), ("msg", 5), ("credits", 10)]),
    ]
    first = listed[-1]["deductions"][0]
    assert set(first) == {"balance_id", "feature_id", "plan_id", "reset", "value"}
    assert first["plan_id"] == "plan1" and first["reset"]["interval"] == "month"
    assert "deductions" not in world.api.post("/v1/events.list", {"customer_id": c.id}, headers=V21)["list"][0]


def test_what_left_the_hot_state_changes_no_answer(world: World) -> None:
    api = world.api
    c = world.holding(M(100))
    for units in range(1, 10):
        api.post("/v1/balances.create", {"customer_id": c.id, "feature_id": "msg", "included_grant": units}, headers=V21)
    c.track(100 + 40)
    shown = older(c), newer(c, V20), newer(c, V21)
    assert (shown[2]["granted"], shown[2]["remaining"], len(shown[2]["breakdown"])) == (145, 5, 2)
    api.sync()
    assert api.run(Duties(api.ctx.engine, api.ctx.store, api.settings.partitions).archive_used_up()) == 1
    state = api.run(api.ctx.engine.view(c.id))
    assert state is not None and state.archived["msg", ""] == (4, 10 * 10**6, 0), "four of eight stay"
    assert (older(c), newer(c, V20), newer(c, V21)) == shown
    tracked = api.post("/v1/track", {"customer_id": c.id, "feature_id": "msg", "value": 1}, headers=V21)["balance"]
    assert (tracked["granted"], tracked["usage"]) == (145, 141)
    api.sync()
    c.track(-141)
    assert older(c)["balance"] == 145, "they come back when a refund needs them"
