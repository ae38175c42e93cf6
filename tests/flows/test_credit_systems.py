"""The walk-through "credit systems": two models draw from one pool of USD credits."""

from __future__ import annotations

from decimal import Decimal

from tests.flows.client import Api


def test_the_whole_walk(api: Api) -> None:
    """Cases 43 and 44, then the upgrade and the top-up."""
    customer_id = api.customer()
    check = api.check(customer_id, "basic_messages", required_balance=5)
    assert check["allowed"] is True
    assert (check["feature_id"], check["required_balance"], check["balance"]) == ("usd_credits", Decimal("0.05"), 5)

    api.track(customer_id, "basic_messages", 2)
    assert api.feature(customer_id, "usd_credits")["balance"] == Decimal("4.98")
    api.track(customer_id, "premium_messages", 3)
    shown = api.feature(customer_id, "usd_credits")
    assert (shown["balance"], shown["usage"], shown["type"]) == (Decimal("4.68"), Decimal("0.32"), "single_use")
    assert shown["credit_schema"] == [
        {"feature_id": "basic_messages", "credit_amount": Decimal("0.01")},
        {"feature_id": "premium_messages", "credit_amount": Decimal("0.1")},
    ]
    reset_at = shown["next_reset_at"]

    attached = api.attach(customer_id, "pro", success_url="https://app.test/pro")
    assert (attached["code"], attached["product_ids"]) == ("checkout_created", ["pro"])
    assert api.feature(customer_id, "usd_credits")["balance"] == Decimal("4.68"), "nothing changes before payment"
    assert api.pay(attached["checkout_url"]).status_code == 303
    upgraded = api.feature(customer_id, "usd_credits")
    assert (upgraded["balance"], upgraded["usage"], upgraded["included_usage"]) == (10, 0, 10), "credits start fresh"
    assert upgraded["next_reset_at"] == reset_at, "the reset date survives a switch to the same interval"
    held = {p["id"]: p for p in api.get(f"/v1/customers/{customer_id}")["products"]}
    assert "free_credits" not in held
    assert held["pro"]["status"] == "active" and held["pro"]["current_period_end"] > held["pro"]["started_at"]

    options = [{"feature_id": "usd_credits", "quantity": 20}]
    assert api.checkout(customer_id, "credit_top_up", options=options)["total"] == 20
    assert api.attach(customer_id, "credit_top_up", options=options)["code"] == "one_off_product_attached"
    assert api.check(customer_id, "premium_messages", required_balance=300)["allowed"] is True
    assert api.check(customer_id, "premium_messages", required_balance=301)["allowed"] is False
    api.track(customer_id, "premium_messages", 101)
    parts = api.feature(customer_id, "usd_credits")["breakdown"]
    assert [(p["interval"], p["balance"]) for p in parts] == [("month", 0), ("lifetime", Decimal("19.9"))]


def test_checkout_shows_what_the_upgrade_replaces(api: Api) -> None:
    customer_id = api.customer()
    checkout = api.checkout(customer_id, "pro")
    assert (checkout["total"], checkout["product"]["scenario"]) == (10, "upgrade")
    assert checkout["current_product"]["id"] == "free_credits"
    assert checkout["next_cycle"]["total"] == 10
    assert [(line["description"], line["amount"]) for line in checkout["lines"]] == [("Pro", 10)]
