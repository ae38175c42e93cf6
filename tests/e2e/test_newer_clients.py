"""The newest published clients against a running sidecar: customers, checks and tracks, entities, plans
and features. `test_newer_balances.py` and `test_newer_billing.py` have the rest.
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

from tests.run.harness import Sidecar, wait_for

from .newer import AutumnPython, buy_messages, new_id

LISTED_WITHIN_S = 1.0


def test_customers(strict: Any, example: Sidecar) -> None:
    c = new_id()
    made = strict.call("customers.get_or_create", customer_id=c, name="John", email="john@example.com", metadata={"a": 1})
    assert (made["id"], made["name"], made["email"], made["metadata"], made["env"]) == (c, "John", "john@example.com", {"a": 1}, "sandbox")
    assert [(plan["plan_id"], plan["status"], plan["auto_enable"]) for plan in made["subscriptions"]][0] == ("free", "active", True)
    assert (made["balances"]["messages"]["granted"], made["balances"]["messages"]["remaining"]) == (10, 10)
    assert made["purchases"] == [] and made["flags"] == {}
    buy_messages(example, c)
    shown = strict.call("customers.get", customer_id=c, expand=["invoices", "subscriptions.plan", "balances.feature"])
    assert [bought["plan_id"] for bought in shown["purchases"]] == ["top_up"]
    messages = shown["balances"]["messages"]
    assert (messages["remaining"], messages["feature"]["type"]) == (210, "metered")
    assert [(part["plan_id"], part["reset"]["interval"]) for part in messages["breakdown"]] == [("free", "month"), ("top_up", "one_off")]
    first = strict.call("customers.list", limit=1)
    assert [customer["id"] for customer in first["list"]] == [c]
    strict.call("customers.get_or_create", customer_id=new_id())
    newest = strict.call("customers.list", limit=1)
    second = strict.call("customers.list", limit=1, start_cursor=newest["next_cursor"])
    assert [customer["id"] for customer in second["list"]] == [c]
    assert strict.call("customers.update", customer_id=c, name="J2")["name"] == "J2"
    assert strict.call("customers.delete", customer_id=c)["success"] is True
    assert strict.refused("customers.get", customer_id=c) == (404, "customer_not_found")


def test_checks_tracks_and_their_events(strict: Any) -> None:
    c = new_id()
    assert strict.refused("check", customer_id=c, feature_id="messages") == (404, "customer_not_found")
    strict.call("customers.get_or_create", customer_id=c)
    check = strict.call("check", customer_id=c, feature_id="messages")
    assert (check["allowed"], check["balance"]["remaining"]) == (True, 10)
    tracked = strict.call("track", customer_id=c, feature_id="messages", value=5)
    assert (tracked["value"], tracked["balance"]["remaining"], tracked["balance"]["usage"]) == (5, 5, 5)
    strict.call("track", customer_id=c, feature_id="basic_messages", value=2, properties={"m": "x"})
    at = time.monotonic()
    credits = strict.call("check", customer_id=c, feature_id="basic_messages", required_balance=5)["balance"]
    assert (credits["feature_id"], credits["remaining"]) == ("usd_credits", Decimal("4.98"))
    wait_for("the events", lambda: len(strict.call("events.list", customer_id=c)["list"]) == 2)
    assert time.monotonic() - at < LISTED_WITHIN_S
    listed = strict.call("events.list", customer_id=c)["list"]
    assert [(event["feature_id"], event["value"], event["properties"]) for event in listed] == [
        ("basic_messages", 2, {"m": "x"}), ("messages", 5, {})
    ]
    page = strict.call("events.list", customer_id=c, limit=1)
    rest = strict.call("events.list", customer_id=c, limit=1, start_cursor=page["next_cursor"])
    assert page["list"] + rest["list"] == listed and rest["next_cursor"] is None
    assert [event["feature_id"] for event in strict.call("events.list", customer_id=c, feature_id="messages")["list"]] == ["messages"]


def test_entities(strict: Any) -> None:
    c = new_id()
    strict.call("customers.get_or_create", customer_id=c)
    made = strict.call("entities.create", customer_id=c, entity_id="e1", feature_id="messages", name="E1")
    assert (made["id"], made["name"], made["customer_id"]) == ("e1", "E1", c)
    assert made["balances"]["messages"]["remaining"] == 9, "an entity takes a unit of its feature"
    assert strict.call("entities.get", customer_id=c, entity_id="e1") == made
    assert made["id"] in {entity["id"] for entity in strict.call("entities.list", limit=50)["list"] if entity["customer_id"] == c}
    assert strict.call("entities.update", customer_id=c, entity_id="e1") == made
    assert strict.call("entities.delete", customer_id=c, entity_id="e1")["success"] is True
    assert strict.refused("entities.get", customer_id=c, entity_id="e1") == (404, "entity_not_found")


def test_plans(strict: Any) -> None:
    c = new_id()
    strict.call("customers.get_or_create", customer_id=c)
    whose = {"customer_id": c} if strict.lists_plans_for_customers else {}
    listed = {plan["id"]: plan for plan in strict.call("plans.list", **whose)["list"]}
    assert listed["pro"]["price"]["amount"] == 10
    if whose:
        offers = {plan_id: listed[plan_id]["customer_eligibility"]["attach_action"] for plan_id in ("free", "pro", "top_up")}
        assert offers == {"free": "none", "pro": "upgrade", "top_up": "purchase"}
    top_up = strict.call("plans.get", plan_id="top_up")["items"][0]
    assert (top_up["price"]["amount"], top_up["price"]["billing_units"], top_up["price"]["billing_method"]) == (10, 100, "prepaid")
    plan_id = new_id("plan")
    items = [
        {"feature_id": "messages", "included": 5, "reset": {"interval": "month"}},
        {"feature_id": "notifications", "included": 0, "price": {
            "amount": 1, "interval": "month", "billing_units": 1000, "billing_method": "usage_based",
        }},
    ]
    made = strict.call("plans.create", plan_id=plan_id, name="P9", group=plan_id, price={"amount": 10, "interval": "month"}, items=items)
    assert [(item["feature_id"], item["included"]) for item in made["items"]] == [("messages", 5), ("notifications", 0)]
    assert (made["auto_enable"], made["add_on"], made["version"]) == (False, False, 1)
    assert strict.call("plans.update", plan_id=plan_id, name="P9b") == {**made, "name": "P9b"}
    assert strict.call("plans.delete", plan_id=plan_id)["success"] is True
    assert strict.refused("plans.get", plan_id=plan_id) == (404, "product_not_found")


def test_features(strict: Any) -> None:
    if not strict.has_features:
        return  # the client's own models of features cannot be built
    listed = {feature["id"]: feature for feature in strict.call("features.list")["list"]}
    assert (listed["messages"]["type"], listed["messages"]["consumable"]) == ("metered", True)
    assert listed["usd_credits"]["type"] == "credit_system"
    feature_id = new_id("f")
    made = strict.call("features.create", feature_id=feature_id, name="F9", type="metered", consumable=True)
    assert strict.refused("features.create", feature_id=feature_id, name="x", type="boolean") == (409, "duplicate_feature_id")
    assert strict.call("features.update", feature_id=feature_id, name="F9b") == {**made, "name": "F9b"}
    assert strict.call("features.get", feature_id=feature_id)["name"] == "F9b"
    assert strict.call("features.delete", feature_id=feature_id)["success"] is True


def test_the_client_of_2_0(lenient: AutumnPython, example: Sidecar) -> None:
    c = new_id()
    made = lenient.call("customers.create", id=c, name="John", email="j@example.com")
    assert [(plan["plan_id"], plan["default"]) for plan in made["subscriptions"]][0] == ("free", True)
    assert lenient.call("check", customer_id=c, feature_id="messages")["balance"]["current_balance"] == 10
    assert lenient.call("track", customer_id=c, feature_id="messages", value=5)["balance"]["current_balance"] == 5
    buy_messages(example, c)
    shown = lenient.call("customers.get", customer_id=c)
    messages = shown["balances"]["messages"]
    assert (messages["granted_balance"], messages["purchased_balance"], messages["current_balance"], messages["usage"]) == (10, 200, 205, 5)
    assert "top_up" in {plan["plan_id"] for plan in shown["subscriptions"]}
    assert c in {customer["id"] for customer in lenient.call("customers.list")["list"]}
    assert lenient.call("customers.update", customer_id=c, name="J2")["name"] == "J2"
    assert lenient.call("entities.create", customer_id=c, id="e1", feature_id="messages", name="E1")["id"] == "e1"
    assert lenient.call("entities.get", entity_id="e1", customer_id=c)["balances"]["messages"]["current_balance"] == 204
    assert lenient.call("entities.delete", entity_id="e1", customer_id=c)["success"] is True
    assert {"free", "pro"} <= {plan["id"] for plan in lenient.call("plans.list")["list"]}
    plan_id = new_id("p8")
    made = lenient.call("plans.create", id=plan_id, name="P8", features=[{"feature_id": "messages", "granted_balance": 5}])
    assert made["features"][0]["granted_balance"] == 5 and made["default"] is False
    assert lenient.call("plans.update", plan_id=plan_id, name="P8b")["name"] == "P8b"
    assert lenient.call("plans.delete", plan_id=plan_id)["success"] is True
    assert lenient.call("customers.delete", customer_id=c)["success"] is True
    assert lenient.refused("customers.get", customer_id=c) == (404, "customer_not_found")
