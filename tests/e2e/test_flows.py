"""The four ways to sell of the example catalog, each walked through by each published client."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from decimal import Decimal
from typing import Any

import httpx

from tests.run.harness import Sidecar, wait_for

from .client import KEY, Bridge


def created(client: Bridge) -> str:
    """A new customer, made by the client; its id."""
    customer_id = f"e2e_{uuid.uuid4().hex[:12]}"
    made = client.call("customers.create", id=customer_id, name="John Yeo", email="john@example.com")
    assert (made["id"], made["name"], made["email"], made["env"]) == (customer_id, "John Yeo", "john@example.com", "sandbox")
    assert isinstance(made["created_at"], int)
    assert [(p["id"], p["status"]) for p in made["products"]] == [
        ("free", "active"), ("free_credits", "active"), ("free_notifications", "active")
    ]
    return customer_id


def checked(client: Bridge, customer_id: str, feature_id: str, **fields: Any) -> dict[str, Any]:
    """A check of a feature, whose answer names the customer and how it was found."""
    answer = client.call("check", customer_id=customer_id, feature_id=feature_id, **fields)
    assert (answer["customer_id"], answer["code"]) == (customer_id, "feature_found")
    return answer


def tracked(client: Bridge, customer_id: str, feature_id: str, value: int) -> None:
    """A track, whose answer has what both clients need."""
    answer = client.call("track", customer_id=customer_id, feature_id=feature_id, value=value)
    assert (answer["code"], answer["customer_id"], answer["feature_id"]) == ("event_received", customer_id, feature_id)
    assert answer["id"].startswith("evt_")


def totals(feature: dict[str, Any]) -> tuple[Any, Any, Any]:
    return feature["balance"], feature["usage"], feature["included_usage"]


def parts(feature: dict[str, Any]) -> list[tuple[Any, Any, Any, Any]]:
    """The breakdown as (interval, balance, usage, included_usage)."""
    return [(part["interval"], *totals(part)) for part in feature["breakdown"]]


def pay(url: str) -> httpx.Response:
    """What a buyer's click on the page's button sends."""
    answer = httpx.post(url + "/pay")
    assert answer.status_code < 400, answer.text
    return answer


def test_one_time_top_ups(client: Bridge, example: Sidecar) -> None:
    customer_id = created(client)
    check = checked(client, customer_id, "messages")
    assert (check["allowed"], check["balance"]) == (True, 10)
    if client.checks_show_usage:
        assert totals(check) == (10, 0, 10)
        assert (check["unlimited"], check["overage_allowed"]) == (False, False)
    assert client.feature(customer_id, "messages")["interval"] == "month"

    tracked(client, customer_id, "messages", 5)
    assert totals(client.feature(customer_id, "messages")) == (5, 5, 10)

    options = [{"feature_id": "messages", "quantity": 200}]
    checkout = client.call(
        "checkout", customer_id=customer_id, product_id="top_up", options=options, success_url="https://your-app.com/done"
    )
    assert checkout["url"].startswith(example.url + "/")
    assert (checkout["customer_id"], checkout["total"], checkout["currency"]) == (customer_id, 20, "usd")
    assert checkout["options"] == options and checkout["has_prorations"] is False
    assert [(line["amount"], line["item"]["feature_id"], line["item"]["price"]) for line in checkout["lines"]] == [
        (20, "messages", 10)
    ]
    product = checkout["product"]
    assert (product["id"], product["scenario"], product["is_add_on"]) == ("top_up", "new", False)
    assert checked(client, customer_id, "messages")["balance"] == 5, "nothing is granted before payment"

    assert pay(checkout["url"]).headers["location"] == "https://your-app.com/done"
    assert checked(client, customer_id, "messages")["balance"] == 205
    shown = client.feature(customer_id, "messages")
    assert totals(shown) == (205, 5, 210)
    assert (shown["type"], shown["interval"], shown["next_reset_at"], shown["unlimited"]) == (
        "single_use", "multiple", None, False
    )
    assert parts(shown) == [("month", 5, 5, 10), ("lifetime", 200, 0, 200)]
    assert shown["breakdown"][0]["next_reset_at"] > 0 and shown["breakdown"][1]["next_reset_at"] is None
    held = [product["id"] for product in client.customer(customer_id)["products"]]
    assert {"free", "top_up"} <= set(held), "a one-off plan replaces none"

    tracked(client, customer_id, "messages", 8)
    assert parts(client.feature(customer_id, "messages")) == [("month", 0, 10, 10), ("lifetime", 197, 3, 200)]


def test_a_one_off_free_grant_and_a_top_up(client: Bridge) -> None:
    customer_id = created(client)
    free = client.feature(customer_id, "images")
    assert totals(free) == (10, 0, 10)
    assert (free["interval"], free["next_reset_at"]) == ("lifetime", None)
    tracked(client, customer_id, "images", 5)
    assert checked(client, customer_id, "images")["balance"] == 5

    checkout = client.call(
        "checkout", customer_id=customer_id, product_id="image_top_up", options=[{"feature_id": "images", "quantity": 200}]
    )
    assert checkout["total"] == 20
    pay(checkout["url"])
    shown = client.feature(customer_id, "images")
    assert totals(shown) == (205, 5, 210)
    assert (shown["interval"], shown["next_reset_at"]) == ("lifetime", None)
    assert parts(shown) == [("lifetime", 5, 5, 10), ("lifetime", 200, 0, 200)]


def test_credit_systems(client: Bridge) -> None:
    customer_id = created(client)
    check = checked(client, customer_id, "basic_messages", required_balance=5)
    assert (check["allowed"], check["feature_id"], check["balance"]) == (True, "usd_credits", 5)
    if client.checks_show_usage:
        assert check["required_balance"] == Decimal("0.05")
    assert checked(client, customer_id, "basic_messages", required_balance=500)["allowed"] is True
    assert checked(client, customer_id, "basic_messages", required_balance=501)["allowed"] is False

    tracked(client, customer_id, "basic_messages", 2)
    assert checked(client, customer_id, "premium_messages")["balance"] == Decimal("4.98")
    shown = client.feature(customer_id, "usd_credits")
    assert totals(shown) == (Decimal("4.98"), Decimal("0.02"), 5)
    assert shown["type"] == "single_use"
    tracked(client, customer_id, "premium_messages", 3)
    assert checked(client, customer_id, "basic_messages")["balance"] == Decimal("4.68")

    attached = client.call("attach", customer_id=customer_id, product_id="pro", success_url="https://your-app.com/pro")
    assert (attached["code"], attached["product_ids"]) == ("checkout_created", ["pro"])
    assert checked(client, customer_id, "basic_messages")["balance"] == Decimal("4.68"), "nothing changes before payment"
    assert pay(attached["checkout_url"]).headers["location"] == "https://your-app.com/pro"
    assert totals(client.feature(customer_id, "usd_credits")) == (10, 0, 10)
    held = {product["id"]: product["status"] for product in client.customer(customer_id)["products"]}
    assert held == {"free": "active", "free_notifications": "active", "pro": "active"}

    options = [{"feature_id": "usd_credits", "quantity": 20}]
    checkout = client.call("checkout", customer_id=customer_id, product_id="credit_top_up", options=options)
    assert (checkout["url"], checkout["total"]) == (None, 20), "with a card on file it is a preview"
    bought = client.call("attach", customer_id=customer_id, product_id="credit_top_up", options=options)
    assert (bought["code"], bought["checkout_url"]) == ("one_off_product_attached", None)
    tracked(client, customer_id, "premium_messages", 101)
    shown = client.feature(customer_id, "usd_credits")
    assert totals(shown) == (Decimal("19.9"), Decimal("10.1"), 30)
    assert parts(shown) == [("month", 0, 10, 10), ("lifetime", Decimal("19.9"), Decimal("0.1"), 20)]


def test_pay_as_you_go(client: Bridge, example: Sidecar) -> None:
    customer_id = created(client)
    tracked(client, customer_id, "notifications", 130)
    check = checked(client, customer_id, "notifications")
    assert (check["allowed"], check["balance"]) == (True, 870)
    if client.checks_show_usage:
        assert totals(check) == (870, 130, 1000) and check["overage_allowed"] is False
    tracked(client, customer_id, "notifications", 870)
    check = checked(client, customer_id, "notifications")
    assert (check["allowed"], check["balance"]) == (False, 0)

    asked = {"setup_payment": True} if client.sends_setup_payment else {}
    attached = client.call(
        "attach", customer_id=customer_id, product_id="pay_as_you_go", success_url="https://your-app.com/settings", **asked
    )
    assert attached["code"] == "checkout_created"
    if client.checks_show_usage:
        assert attached["url"] == attached["checkout_url"], "`url` is what callers of autumn-js read"
    assert checked(client, customer_id, "notifications")["allowed"] is False, "nothing changes before the card is there"
    assert pay(attached["checkout_url"]).headers["location"] == "https://your-app.com/settings"

    check = checked(client, customer_id, "notifications")
    assert (check["allowed"], check["balance"]) == (True, 0), "usage carries over"
    tracked(client, customer_id, "notifications", 200)
    check = checked(client, customer_id, "notifications")
    assert (check["allowed"], check["balance"]) == (True, -200)
    if client.checks_show_usage:
        assert totals(check) == (-200, 1200, 1000) and check["overage_allowed"] is True
    shown = client.feature(customer_id, "notifications")
    assert totals(shown) == (-200, 1200, 1000)

    httpx.post(
        example.url + "/v1/test_clock", json={"now_ms": shown["next_reset_at"] + 1000},
        headers={"Authorization": f"Bearer {KEY}"},
    ).raise_for_status()
    assert checked(client, customer_id, "notifications")["balance"] == 1000
    owed: list[tuple[Any, ...]] = []

    def is_owed() -> bool:
        owed[:] = owed_by(example, customer_id)
        return bool(owed)

    wait_for("the reset's ledger row", is_owed)
    assert owed == [(200, 1, Decimal("0.2"))]


def owed_by(sidecar: Sidecar, customer_id: str) -> list[tuple[Decimal, Decimal, Decimal]]:
    """(units, price, amount) of the customer's resets that owe something, read from SQL."""
    with closing(sqlite3.connect(sidecar.data_dir / "sidecar.db")) as sql:
        rows = sql.execute(
            "select units, price, amount from ledger where kind = 'reset' and over_units > 0"
            " and cid = (select cid from customers where id = ?)", (customer_id,),
        ).fetchall()
    return [(Decimal(units), Decimal(price), Decimal(amount)) for units, price, amount in rows]


def test_refusals_reach_the_caller(client: Bridge) -> None:
    """The clients' own errors carry the sidecar's status and code."""
    customer_id = created(client)
    assert client.refused("check", customer_id=customer_id, feature_id="no_such")[1] == "feature_not_found"
    assert client.refused("attach", customer_id=customer_id, product_id="no_such") == (404, "product_not_found")
