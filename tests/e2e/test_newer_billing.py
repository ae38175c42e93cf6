"""The newest published clients against a running sidecar: attaching plans, their previews and payments,
and the controls of customers and entities."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from .newer import AutumnPython, new_id, pay

DONE_URL = "https://your-app.com/done"


def created(strict: Any, **fields: Any) -> str:
    """A new customer; its id."""
    customer_id = new_id()
    strict.call("customers.get_or_create", customer_id=customer_id, **fields)
    return customer_id


def balance(strict: Any, customer_id: str, feature_id: str) -> Any:
    return strict.call("customers.get", customer_id=customer_id)["balances"][feature_id]


def test_a_free_plan_is_there_at_once(strict: Any) -> None:
    c, plan_id = created(strict), new_id("gift")
    items = [{"feature_id": "messages", "included": 5, "reset": {"interval": "month"}}]
    strict.call("plans.create", plan_id=plan_id, name="Gift", group=plan_id, items=items)
    preview = strict.call("billing.preview_attach", customer_id=c, plan_id=plan_id)
    assert (preview["total"], preview["redirect_to_checkout"], preview["checkout_type"]) == (0, False, None)
    assert balance(strict, c, "messages")["granted"] == 10, "a preview changes nothing"
    attached = strict.call("billing.attach", customer_id=c, plan_id=plan_id)
    assert (attached["customer_id"], attached["payment_url"]) == (c, None)
    shown = strict.call("customers.get", customer_id=c)
    assert plan_id in {plan["plan_id"] for plan in shown["subscriptions"]}
    assert shown["balances"]["messages"]["granted"] == 15
    assert strict.refused("billing.attach", customer_id=c, plan_id=plan_id)[0] in (400, 409)


def test_a_plan_that_is_paid_for(strict: Any) -> None:
    c = created(strict)
    strict.call("track", customer_id=c, feature_id="premium_messages", value=3)
    preview = strict.call("billing.preview_attach", customer_id=c, plan_id="pro")
    assert (preview["customer_id"], preview["subtotal"], preview["total"], preview["currency"]) == (c, 10, 10, "usd")
    assert [line["plan_id"] for line in preview["line_items"]] == ["pro"]
    assert [plan["plan_id"] for plan in preview["incoming"] + preview["outgoing"]] == ["pro", "free_credits"]
    assert preview["redirect_to_checkout"] is True and preview["next_cycle"]["total"] == 10
    attached = strict.call(
        "billing.attach", customer_id=c, plan_id="pro", success_url=DONE_URL, carry_over_usages={"enabled": True}
    )
    assert attached["customer_id"] == c
    assert balance(strict, c, "usd_credits")["granted"] == 5, "nothing changes before payment"
    assert pay(attached["payment_url"]).headers["location"] == DONE_URL
    credits = balance(strict, c, "usd_credits")
    assert (credits["granted"], credits["remaining"], credits["usage"]) == (10, Decimal("9.7"), Decimal("0.3"))

    units = {"plan_id": "top_up", "feature_quantities": [{"feature_id": "messages", "quantity": 200}]}
    preview = strict.call("billing.preview_attach", customer_id=c, **units)
    assert (preview["total"], preview["redirect_to_checkout"]) == (20, False), "there is a card on file now"
    assert preview["incoming"][0]["feature_quantities"] == [{"feature_id": "messages", "quantity": 200}]
    assert strict.call("billing.attach", customer_id=c, **units)["payment_url"] is None
    assert balance(strict, c, "messages")["remaining"] == 210
    url = strict.call("billing.attach", customer_id=c, **units, redirect_mode="always")["payment_url"]
    assert balance(strict, c, "messages")["remaining"] == 210
    pay(url)
    messages = balance(strict, c, "messages")
    assert messages["remaining"] == 410
    assert [part["prepaid_grant"] for part in messages["breakdown"]] == [0, 200, 200]


def test_a_card_and_then_the_plan(strict: Any) -> None:
    c = created(strict)
    strict.call("track", customer_id=c, feature_id="notifications", value=1000)
    page = strict.call("billing.setup_payment", customer_id=c, plan_id="pay_as_you_go", success_url=DONE_URL)
    assert page["customer_id"] == c
    assert strict.call("check", customer_id=c, feature_id="notifications")["allowed"] is False
    assert pay(page["url"]).headers["location"] == DONE_URL
    check = strict.call("check", customer_id=c, feature_id="notifications", required_balance=200, send_event=True)
    assert check["allowed"] is True
    notifications = balance(strict, c, "notifications")
    assert (notifications["remaining"], notifications["usage"], notifications["overage_allowed"]) == (0, 1200, True)
    part = notifications["breakdown"][0]
    assert (part["price"]["billing_method"], part["price"]["amount"], part["price"]["billing_units"]) == ("usage_based", 1, 1000)

    alone = strict.call("billing.setup_payment", customer_id=created(strict))
    pay(alone["url"])


def test_controls_of_a_customer(strict: Any) -> None:
    daily = {"feature_id": "messages", "enabled": True, "limit": 3, "interval": "day"}
    spend = {"feature_id": "notifications", "enabled": True, "overage_limit": 100}
    c = created(strict, billing_controls={"usage_limits": [daily], "spend_limits": [spend]})
    controls = strict.call("customers.get", customer_id=c)["billing_controls"]
    assert [(one["feature_id"], one["limit"], one["interval"], one["usage"]) for one in controls["usage_limits"]] == [("messages", 3, "day", 0)]
    assert [(one["feature_id"], one["overage_limit"]) for one in controls["spend_limits"]] == [("notifications", 100)]
    strict.call("track", customer_id=c, feature_id="messages", value=2)
    assert strict.call("check", customer_id=c, feature_id="messages", required_balance=2)["allowed"] is False
    assert strict.call("customers.get", customer_id=c)["billing_controls"]["usage_limits"][0]["usage"] == 2

    pay(strict.call("billing.setup_payment", customer_id=c, plan_id="pay_as_you_go")["url"])
    check = {"customer_id": c, "feature_id": "notifications"}
    assert strict.call("check", **check, required_balance=1100)["allowed"] is True
    assert strict.call("check", **check, required_balance=1101)["allowed"] is False
    off = {"feature_id": "notifications", "enabled": False}
    controls = strict.call(
        "customers.update", customer_id=c, billing_controls={"usage_limits": [], "overage_allowed": [off]}
    )["billing_controls"]
    assert not controls.get("usage_limits") and controls["spend_limits"][0]["overage_limit"] == 100
    assert strict.call("check", customer_id=c, feature_id="messages", required_balance=8)["allowed"] is True
    assert strict.call("check", **check, required_balance=1001)["allowed"] is False


def test_controls_of_an_entity(strict: Any) -> None:
    c = created(strict)
    limit = {"feature_id": "messages", "enabled": True, "limit": 5, "interval": "month", "anchor": "utc"}
    strict.call(
        "entities.create", customer_id=c, entity_id="e1", feature_id="images", name="E1",
        billing_controls={"usage_limits": [limit]},
    )
    strict.call("entities.create", customer_id=c, entity_id="e2", feature_id="images", name="E2")
    strict.call("track", customer_id=c, entity_id="e1", feature_id="messages", value=4)
    shown = strict.call("entities.get", customer_id=c, entity_id="e1")["billing_controls"]["usage_limits"]
    assert [(one["limit"], one["usage"]) for one in shown] == [(5, 4)]
    asked = {"customer_id": c, "feature_id": "messages", "required_balance": 2}
    assert strict.call("check", **asked, entity_id="e1")["allowed"] is False
    assert strict.call("check", **asked, entity_id="e2")["allowed"] is True
    more = {"usage_limits": [{**limit, "limit": 6}]}
    updated = strict.call("entities.update", customer_id=c, entity_id="e1", billing_controls=more)
    assert updated["billing_controls"]["usage_limits"][0]["limit"] == 6
    assert strict.call("check", **asked, entity_id="e1")["allowed"] is True
    assert strict.refused("entities.update", customer_id=c, entity_id="e9", billing_controls=more) == (404, "entity_not_found")


def test_the_client_of_2_0(lenient: AutumnPython) -> None:
    c = new_id()
    lenient.call("customers.create", id=c)
    options = [{"feature_id": "messages", "quantity": 200}]
    attached = lenient.call("attach", customer_id=c, product_id="top_up", options=options, success_url=DONE_URL)
    assert pay(attached["checkout_url"]).headers["location"] == DONE_URL
    assert lenient.call("check", customer_id=c, feature_id="messages")["balance"]["current_balance"] == 210
    preview = lenient.call("checkout", customer_id=c, product_id="top_up", options=options)
    assert (preview["total"], preview["url"]) == (20, None)
    other = new_id()
    lenient.call("customers.create", id=other)
    pay(lenient.call("setup_payment", customer_id=other, success_url=DONE_URL)["url"])
    assert lenient.call("attach", customer_id=other, product_id="top_up", options=options)["code"] == "one_off_product_attached"
