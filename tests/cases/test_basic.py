"""Worked cases, group Basic: one bucket or none, what a track takes and what a check says."""

from __future__ import annotations

from decimal import Decimal

import pytest

from sidecar.domain import layout
from tests.cases.world import FLAG, M, UNLIMITED, World
from tests.http import real_now_ms

D = Decimal


@pytest.mark.parametrize(
    ("value", "r", "u"), [(None, 99, 1), (D("23.47"), D("76.53"), D("23.47"))], ids=["case 1", "case 2"]
)
def test_a_track_takes_its_value(world: World, value, r, u) -> None:
    c = world.holding(M(100))
    answer = c.track(value)
    assert (answer["code"], answer["feature_id"], answer["customer_id"]) == ("event_received", "msg", c.id)
    assert c.ru() == (r, u)
    (event,) = world.api.events(c.id)
    assert (event["value"], event["applied"]) == (str(value or 1), int((value or 1) * 10**6))


def test_case_4_boolean_feature_held(world: World) -> None:
    c = world.holding(FLAG)
    answer = c.track(feature="flag")
    assert "balance" not in answer
    assert world.api.events(c.id)[0]["value"] == "1"
    assert c.allowed(feature="flag") and c.allowed(feature="flag", send_event=True)
    assert c.check(feature="flag")["balance"] == 0


def test_case_5_unlimited_counts_and_never_ends(world: World) -> None:
    c = world.holding(UNLIMITED)

    def used() -> int:
        (row,) = world.api.run(world.api.ctx.engine.view(c.id)).features["msg"]
        return layout.used(row)

    for value, total in ((1, 1), (10, 11), (1_000_000, 1_000_011)):
        c.track(value)
        shown = c.shown().fields
        assert (shown["unlimited"], shown["balance"], shown["usage"], shown["included_usage"]) == (True, 0, 0, 0)
        assert used() == total * 10**6
        assert c.allowed(10**9)


def test_case_7_nothing_held_still_records_the_event(world: World) -> None:
    c = world.holding(M(100))
    world.feature("other")
    answer = c.track(5, "other")
    assert answer["code"] == "event_received" and "balance" not in answer
    assert [(e["feature_id"], e["value"], e["applied"]) for e in world.api.events(c.id)] == [("other", "5", 0)]


def test_case_8_check_shows_the_whole_balance(world: World) -> None:
    c = world.holding(M(1000))
    answer = c.check()
    assert {name: answer[name] for name in (
        "allowed", "code", "balance", "usage", "included_usage", "interval", "interval_count", "overage_allowed", "unlimited",
        "required_balance", "feature_id",
    )} == {
        "allowed": True, "code": "feature_found", "balance": 1000, "usage": 0, "included_usage": 1000, "interval": "month",
        "interval_count": 1, "overage_allowed": False, "unlimited": False, "required_balance": 1, "feature_id": "msg",
    }


def test_case_10_decimals_through_a_credit_system(world: World) -> None:
    world.credits()
    c = world.holding(M(1000), M(500).of("credits"))
    c.track(D("0.1"), "action1")
    c.track(D("0.2"), "action1")
    assert c.allowed(D("10.3"), "action1", send_event=True)
    assert c.bal("credits") == D("497.88")
    assert c.bal() == 1000


def test_case_11_send_event_takes_all_or_nothing(world: World) -> None:
    c = world.holding(M(1000))
    answer = c.check(150, send_event=True)
    assert answer["allowed"] and answer["id"].startswith("evt_") and c.shown().r == 850
    answer = c.check(900, send_event=True)
    assert (answer["allowed"], answer["reason"]) == (False, "insufficient_balance")
    assert "id" not in answer
    assert c.shown().r == 850
    assert [e["value"] for e in world.api.events(c.id)] == ["150"]


@pytest.mark.parametrize("timestamp", [0, -1, "now + 61 s", D("1.5")], ids=lambda t: f"case 14 {t}")
def test_a_timestamp_must_be_positive_and_not_in_the_future(world: World, timestamp) -> None:
    c = world.holding(M(100))
    if timestamp == "now + 61 s":
        timestamp = real_now_ms() + 61_000
    body = {"customer_id": c.id, "feature_id": "msg", "timestamp": timestamp}
    assert "timestamp" in world.api.refused("/v1/track", body, 400, "invalid_inputs")


def test_case_14_a_past_timestamp_and_a_little_skew_are_fine(world: World) -> None:
    c = world.holding(M(100))
    for timestamp in (1, real_now_ms() - 10_000, real_now_ms() + 50_000):
        c.track(timestamp=timestamp)
        assert world.api.events(c.id)[-1]["timestamp"] == timestamp


def test_case_15_after_some_use(world: World) -> None:
    c = world.holding(M(1000))
    c.track(130)
    answer = c.check()
    assert [answer[n] for n in ("allowed", "balance", "usage", "included_usage", "overage_allowed")] == [True, 870, 130, 1000, False]


def test_case_16_a_default_plan_comes_with_the_customer(world: World) -> None:
    world.plan(M(10), is_default=True)
    c = world.customer()
    assert c.bal() == 10
