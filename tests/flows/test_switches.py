"""Switching main plans: what usage does, which reset date stays, what outlives a plan."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.flows.client import Api

DAY_MS = 86_400_000


class Shop:
    """Plans of one group that replace each other, for one feature each test makes anew."""

    def __init__(self, api: Api, feature_type: str = "single_use"):
        self.api = api
        self.mark = uuid.uuid4().hex[:8]
        self.feature = f"units_{self.mark}"
        api.post("/v1/features", {"id": self.feature, "name": "Units", "type": feature_type})
        self.customer = api.customer()
        api.pay(api.post("/v1/setup_payment", {"customer_id": self.customer})["url"])

    def plan(self, name: str, monthly: int | None = None, **item: Any) -> str:
        """Creates a plan with a fixed monthly price and one item of the feature, both if given; its id."""
        items: list[dict[str, Any]] = [{"price": monthly, "interval": "month"}] if monthly is not None else []
        if item:
            items.append({"feature_id": self.feature, **item})
        plan_id = f"{name}_{self.mark}"
        self.api.post("/v1/products", {"id": plan_id, "name": name, "group": self.mark, "items": items})
        return plan_id

    def attach(self, plan_id: str, **fields: Any) -> dict[str, Any]:
        return self.api.attach(self.customer, plan_id, **fields)

    def use(self, value: Any) -> None:
        self.api.track(self.customer, self.feature, value)

    @property
    def shown(self) -> dict[str, Any]:
        return self.api.feature(self.customer, self.feature)

    @property
    def numbers(self) -> tuple[Any, Any]:
        """(balance, usage)"""
        return self.shown["balance"], self.shown["usage"]


@pytest.fixture
def shop(api: Api) -> Shop:
    return Shop(api)


@pytest.mark.parametrize("resets, expected", [(True, (500, 0)), (False, (480, 20))])
def test_usage_follows_when_the_new_plan_says_so(shop: Shop, resets: bool, expected: tuple[int, int]) -> None:
    """Case 205."""
    shop.attach(shop.plan("basic", included_usage=100, interval="month"))
    shop.use(20)
    shop.attach(shop.plan("pro", 20, included_usage=500, interval="month", reset_usage_when_enabled=resets))
    assert shop.numbers == expected


def test_usage_is_never_floored(shop: Shop) -> None:
    """Case 206."""
    shop.attach(shop.plan("free", included_usage=50, interval="month"))
    shop.use(50)
    shop.attach(shop.plan("premium", 20, included_usage=30, interval="month", reset_usage_when_enabled=False))
    assert shop.numbers == (-20, 50)
    assert shop.api.check(shop.customer, shop.feature)["allowed"] is False


def test_occupied_units_always_follow(api: Api) -> None:
    """Case 118."""
    shop = Shop(api, "continuous_use")
    shop.attach(shop.plan("free", included_usage=2))
    shop.use(1)
    paid = shop.plan("paid", price=5, included_usage=0, usage_model="prepaid", interval="month")
    shop.attach(paid, options=[{"feature_id": shop.feature, "quantity": 3}])
    assert shop.numbers == (2, 1)
    assert shop.shown["next_reset_at"] is None, "what is occupied never resets"


def test_a_new_version_takes_all_usage_along(shop: Shop) -> None:
    plan_id = shop.plan("basic", 10, included_usage=100, interval="month")
    shop.attach(plan_id)
    shop.use(30)
    items = [{"price": 10, "interval": "month"}, {"feature_id": shop.feature, "included_usage": 200, "interval": "month"}]
    shop.api.post(f"/v1/products/{plan_id}", {"items": items})
    assert shop.numbers == (70, 30), "holders keep their version"
    shop.attach(plan_id)
    assert shop.numbers == (170, 30)


@pytest.mark.parametrize("interval, keeps", [("month", True), ("year", True), ("week", False)])
def test_the_reset_date_survives_a_switch_to_no_shorter_an_interval(shop: Shop, interval: str, keeps: bool) -> None:
    shop.attach(shop.plan("basic", included_usage=10, interval="month"))
    before = shop.shown["next_reset_at"]
    shop.attach(shop.plan("next", 5, included_usage=10, interval=interval))
    after = shop.shown["next_reset_at"]
    assert (after == before) is keeps
    if not keeps:
        assert before - after > 20 * DAY_MS


def test_units_bought_once_outlive_the_plan_they_came_with(shop: Shop) -> None:
    plan_id = shop.plan("start", 5, price=1, billing_units=10, usage_model="prepaid")
    shop.attach(plan_id, options=[{"feature_id": shop.feature, "quantity": 200}])
    shop.use(50)
    shop.attach(shop.plan("pro", 20, included_usage=500, interval="month"))
    assert shop.numbers[0] == 650


def test_what_is_left_and_a_downgrade_through_newer_calls(shop: Shop) -> None:
    """Case 209, and back down at once."""
    pro = shop.plan("pro", 20, included_usage=500, interval="month")
    basic = shop.plan("basic", 5, included_usage=100, interval="month")

    def attach(plan_id: str, **fields: Any) -> Any:
        body = {"customer_id": shop.customer, "plan_id": plan_id, **fields}
        return shop.api.post("/v1/billing.attach", body, headers={"x-api-version": "2.4.0"})

    assert attach(basic)["payment_url"] is None, "a card is on file"
    shop.use(30)
    attach(pro, carry_over_balances={"enabled": True})
    assert shop.numbers == (570, 0)
    attach(basic, plan_schedule="immediate", carry_over_usages={"enabled": True})
    assert shop.numbers == (170, 0)


def test_a_switch_drops_what_the_new_plan_does_not_have(shop: Shop) -> None:
    shop.attach(shop.plan("basic", included_usage=10, interval="month"))
    shop.attach(shop.plan("empty", 5))
    assert shop.feature not in shop.api.get(f"/v1/customers/{shop.customer}")["features"]
    assert shop.api.check(shop.customer, shop.feature)["allowed"] is False


def test_pay_per_use_with_a_limit(shop: Shop) -> None:
    """Cases 64 and 65."""
    shop.attach(shop.plan(
        "capped", included_usage=100, interval="month", price=0.01, usage_limit=500, usage_model="pay_per_use"
    ))
    shown = shop.shown
    assert (shown["overage_allowed"], shown["usage_limit"], shown["included_usage"]) == (False, 500, 100)
    assert shop.api.check(shop.customer, shop.feature, required_balance=500)["allowed"] is True
    assert shop.api.check(shop.customer, shop.feature, required_balance=501)["allowed"] is False
    shop.use(700)
    assert shop.numbers == (-400, 500)

