"""Holds beside caps: windows and spend limits bind them, and what is undone gives room back."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
from sqlalchemy import select

from sidecar.store import tables
from tests.http import HOUR_MS, Api, audit

CHECK, TRACK, FINALIZE = "/v1/check", "/v1/track", "/v1/balances.finalize"


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    module_api.feature("msg")
    module_api.feature("calls", precision=0)
    module_api.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "calls", "credit_cost": 2}])
    module_api.plan("free", {"feature_id": "msg", "included_usage": 100}, {"feature_id": "pool", "included_usage": 100}, is_default=True)
    module_api.plan(
        "paid", {"feature_id": "msg", "included_usage": 10, "interval": "hour", "price": 1, "usage_model": "pay_per_use"}, group="paid"
    )
    return module_api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


def windowed(api: Api, limit: int, feature: str = "msg", **controls: Any) -> str:
    """A customer with a usage limit by the day."""
    window = {"feature_id": feature, "limit": limit, "interval": "day", "anchor": "utc"}
    return api.customer(billing_controls={"usage_limits": [window], **controls})


def hold(api: Api, c: str, amount: Any, name: str, feature: str = "msg", **fields: Any) -> Any:
    return api.check(c, feature, amount, lock={"enabled": True, "lock_id": f"{c}-{name}", **fields})


def settle(api: Api, c: str, name: str, value: Any = None) -> None:
    end = {"action": "release"} if value is None else {"action": "confirm", "override_value": value}
    api.post(FINALIZE, {"lock_id": f"{c}-{name}", **end})


def test_a_window_counts_holds_and_what_is_undone_no_more(api: Api) -> None:
    c = windowed(api, 20)
    assert hold(api, c, 15, "a")["allowed"]
    assert hold(api, c, 6, "b")["reason"] == "usage_limit"
    settle(api, c, "a", 5)
    assert hold(api, c, 15, "b")["allowed"]
    assert not api.check(c, "msg", 1)["allowed"]
    settle(api, c, "b")
    assert api.check(c, "msg", 15)["allowed"] and not api.check(c, "msg", 16)["allowed"]


def test_a_confirm_beyond_the_hold_is_capped_by_the_window(api: Api) -> None:
    c = windowed(api, 20)
    hold(api, c, 15, "a")
    settle(api, c, "a", 50)
    assert api.balances(c)["msg"]["balance"] == 80
    assert [event["applied"] for event in api.events(c)] == [15_000_000, 5_000_000]


def test_a_refund_gives_no_room_back(api: Api) -> None:
    c = windowed(api, 20)
    event = api.track(c, "msg", 15)["id"]
    api.post(TRACK, {"customer_id": c, "refund_of": event})
    assert api.balances(c)["msg"]["balance"] == 100 and api.check(c, "msg", 6)["reason"] == "usage_limit"


def test_a_window_on_credits_counts_what_members_hold(api: Api) -> None:
    c = windowed(api, 20, "pool")
    assert hold(api, c, 8, "a", "calls")["allowed"]
    assert hold(api, c, 3, "b", "calls")["reason"] == "usage_limit"
    settle(api, c, "a", 3)
    assert hold(api, c, 7, "b", "calls")["allowed"]
    settle(api, c, "b")
    assert hold(api, c, 8, "d", "calls")["reason"] == "usage_limit"
    assert api.balances(c)["pool"]["balance"] == 94


def test_a_track_past_a_window_in_reject_mode(api: Api) -> None:
    c = windowed(api, 20)
    body = {"customer_id": c, "feature_id": "msg", "value": 21}
    api.refused(TRACK, {**body, "overage_behavior": "reject"}, 400, "usage_limit_exceeded")
    api.refused(TRACK, {**body, "lock": {"enabled": True}}, 400, "usage_limit_exceeded")


def test_a_spend_limit_binds_holds(api: Api) -> None:
    c = api.customer("paid", billing_controls={"spend_limits": [{"feature_id": "msg", "overage_limit": 5}]})
    assert hold(api, c, 116, "a")["reason"] == "spend_limit"
    assert hold(api, c, 115, "a")["allowed"]
    assert hold(api, c, 1, "b")["reason"] in ("spend_limit", "held_by_others")
    settle(api, c, "a", 110)
    assert hold(api, c, 5, "b")["allowed"]
    settle(api, c, "b")
    assert api.balances(c)["msg"]["balance"] == 0


def test_a_release_across_a_reset_credits_the_overage_that_was_billed(api: Api) -> None:
    c = api.customer("paid")
    api.track(c, "msg", 100)
    end = api.balances(c)["msg"]["breakdown"][0]["next_reset_at"]
    hold(api, c, 30, "a", expires_at=api.run(api.ctx.clock.now_ms()) + 5 * HOUR_MS)
    api.advance_to(end)
    settle(api, c, "a", 20)
    api.sync()
    t = tables.ledger.c
    query = select(t.kind, t.over_units).where(t.over_units != 0, t.cid == api.run(api.ctx.engine.view(c)).cid).order_by(t.seq)
    assert [tuple(row) for row in api.ctx.store.read_sync(lambda conn: conn.execute(query).all())] == [
        ("reset", 20_000_000), ("credit", -10_000_000)
    ]
