"""The walk-through "one-time top-ups": free messages each month, and packages bought on top."""

from __future__ import annotations

from decimal import Decimal

from tests.flows.client import Api


def bought(api: Api, quantity: int = 200) -> tuple[str, dict]:
    """A customer who has used 5 of 10 messages and a checkout for `quantity` more."""
    customer_id = api.customer(name="Jane", email="jane@example.com")
    api.track(customer_id, "messages", 5)
    return customer_id, api.checkout(
        customer_id, "top_up", options=[{"feature_id": "messages", "quantity": quantity}], force_checkout=False
    )


def test_the_whole_walk(api: Api) -> None:
    """Cases 16 and 17, field for field."""
    customer_id = api.customer(name="Jane", email="jane@example.com")
    check = api.check(customer_id, "messages")
    assert check["allowed"] is True and check["code"] == "feature_found"
    assert (check["balance"], check["usage"], check["included_usage"]) == (10, 0, 10)
    assert (check["interval"], check["interval_count"], check["unlimited"]) == ("month", 1, False)
    assert check["overage_allowed"] is False and check["next_reset_at"] > 0

    track = api.track(customer_id, "messages", 5)
    assert track["code"] == "event_received" and track["id"].startswith("evt_")

    checkout = api.checkout(
        customer_id, "top_up", options=[{"feature_id": "messages", "quantity": 200}], success_url="https://app.test/ok"
    )
    assert checkout["customer_id"] == customer_id
    assert checkout["url"].startswith(api.url + "/checkout/")
    assert (checkout["total"], checkout["currency"], checkout["has_prorations"]) == (20, "usd", False)
    assert checkout["options"] == [{"feature_id": "messages", "quantity": 200}]
    [line] = checkout["lines"]
    assert (line["description"], line["amount"]) == ("Top up - 200 Messages", 20)
    assert (line["item"]["feature_id"], line["item"]["quantity"], line["item"]["price"]) == ("messages", 200, 10)
    assert line["item"]["display"] == {"primary_text": "200 messages", "secondary_text": "$10 per 100 messages"}
    product = checkout["product"]
    assert (product["id"], product["scenario"], product["is_add_on"]) == ("top_up", "new", False)
    assert product["properties"]["is_one_off"] is True and product["properties"]["is_free"] is False
    assert checkout["current_product"] is None

    assert api.feature(customer_id, "messages")["balance"] == 5, "nothing is granted before payment"
    paid = api.pay(checkout["url"])
    assert (paid.status_code, paid.headers["location"]) == (303, "https://app.test/ok")
    assert api.check(customer_id, "messages")["balance"] == 205, "the very next check sees the units"

    shown = api.feature(customer_id, "messages")
    month_end = check["next_reset_at"]
    assert shown == {
        "id": "messages", "type": "single_use", "name": "Messages", "interval": "multiple", "interval_count": None,
        "unlimited": False, "balance": 205, "usage": 5, "included_usage": 210, "next_reset_at": None,
        "overage_allowed": False,
        "breakdown": [
            {
                "interval": "month", "interval_count": 1, "balance": 5, "usage": 5, "included_usage": 10,
                "next_reset_at": month_end, "overage_allowed": False,
            },
            {
                "interval": "lifetime", "interval_count": 1, "balance": 200, "usage": 0, "included_usage": 200,
                "next_reset_at": None, "overage_allowed": False,
            },
        ],
    }
    products = api.get(f"/v1/customers/{customer_id}")["products"]
    assert [p["id"] for p in products if p["id"] in ("free", "top_up")] == ["free", "top_up"], "a one-off plan replaces none"

    api.track(customer_id, "messages", 7)  # the month first, then what never expires
    parts = api.feature(customer_id, "messages")["breakdown"]
    assert [(p["interval"], p["balance"], p["usage"]) for p in parts] == [("month", 0, 10), ("lifetime", 198, 2)]


def test_a_one_off_grant_and_a_top_up_never_reset(api: Api) -> None:
    """Case 18."""
    customer_id = api.customer()
    free = api.feature(customer_id, "images")
    assert (free["balance"], free["interval"], free["next_reset_at"]) == (10, "lifetime", None)
    checkout = api.checkout(customer_id, "image_top_up", options=[{"feature_id": "images", "quantity": 200}])
    assert api.pay(checkout["url"]).status_code == 200
    shown = api.feature(customer_id, "images")
    assert (shown["balance"], shown["included_usage"], shown["interval"]) == (210, 210, "lifetime")
    assert [(p["balance"], p["next_reset_at"]) for p in shown["breakdown"]] == [(10, None), (200, None)]


def test_buying_again_adds(api: Api) -> None:
    customer_id, first = bought(api)
    api.pay(first["url"])
    again = api.checkout(customer_id, "top_up", options=[{"feature_id": "messages", "quantity": 100}])
    assert again["url"] is None, "with a card on file it is only a preview"
    assert (again["total"], api.feature(customer_id, "messages")["balance"]) == (10, 205)
    attached = api.attach(customer_id, "top_up", options=[{"feature_id": "messages", "quantity": 100}])
    assert (attached["code"], attached["product_ids"]) == ("one_off_product_attached", ["top_up"])
    assert attached["success"] is True and attached["checkout_url"] is None
    assert api.check(customer_id, "messages")["balance"] == 305
    assert len(api.feature(customer_id, "messages")["breakdown"]) == 3


def test_packs_are_rounded_up(api: Api) -> None:
    _, checkout = bought(api, 101)
    assert (checkout["total"], checkout["lines"][0]["description"]) == (20, "Top up - 200 Messages")
    assert checkout["options"] == [{"feature_id": "messages", "quantity": 101}]


def test_a_quantity_that_includes_what_is_included(api: Api) -> None:
    """`feature_quantities` counts included units too, `options` those beyond them: 2 included, packs of 3."""
    customer_id = api.customer()
    for name, quantity in (("options", 6), ("feature_quantities", 8)):
        checkout = api.checkout(customer_id, "packs", **{name: [{"feature_id": "tokens", "quantity": quantity}]})
        assert [line["amount"] for line in checkout["lines"]] == [10, 20], name


def test_prepaid_needs_a_quantity_that_makes_sense(api: Api) -> None:
    customer_id = api.customer()
    for options in (
        None, [], [{"feature_id": "messages"}], [{"feature_id": "messages", "quantity": -1}],
        [{"feature_id": "images", "quantity": 1}], [{"feature_id": "messages", "quantity": "many"}], "200",
        [{"feature_id": "messages", "quantity": 100}] * 2, [{"feature_id": "messages", "quantity": 10**17}],
    ):
        body = {"customer_id": customer_id, "product_id": "top_up", "options": options}
        for route in ("/v1/checkout", "/v1/attach"):
            api.refused("POST", route, body, 400, "invalid_options")
    over = {"customer_id": customer_id, "product_id": "packs", "options": [{"feature_id": "tokens", "quantity": 19}]}
    assert "18" in api.refused("POST", "/v1/checkout", over, 400, "invalid_options")
    assert api.feature(customer_id, "messages")["balance"] == 10


def test_money_is_exact(api: Api) -> None:
    customer_id = api.customer()
    checkout = api.checkout(customer_id, "credit_top_up", options=[{"feature_id": "usd_credits", "quantity": Decimal("19.5")}])
    assert (checkout["total"], checkout["lines"][0]["description"]) == (20, "Credit top up - 20 USD credits")
