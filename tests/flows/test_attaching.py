"""attach and checkout: which plan replaces which, what carries over, and what is refused."""

from __future__ import annotations

import pytest

from tests.flows.client import Api


@pytest.fixture
def buyer(api: Api) -> str:
    """A customer with a card on file."""
    customer_id = api.customer()
    api.pay(api.post("/v1/setup_payment", {"customer_id": customer_id})["url"])
    return customer_id


def held(api: Api, customer_id: str) -> list[str]:
    return [p["id"] for p in api.get(f"/v1/customers/{customer_id}")["products"]]


def test_recurring_prepaid(api: Api, buyer: str) -> None:
    """Case 19, with packs of 3 and a fixed price: 2 included, 3 bought."""
    attached = api.attach(buyer, "packs", options=[{"feature_id": "tokens", "quantity": 3}])
    assert attached["code"] == "new_product_attached"
    tokens = api.feature(buyer, "tokens")
    assert (tokens["balance"], tokens["included_usage"], tokens["interval"]) == (5, 5, "month")
    api.refused(
        "POST", "/v1/track", {"customer_id": buyer, "feature_id": "tokens", "value": 7, "overage_behavior": "reject"},
        400, "insufficient_balance",
    )
    api.track(buyer, "tokens", 4)
    assert api.feature(buyer, "tokens")["balance"] == 1
    product = next(p for p in api.get(f"/v1/customers/{buyer}")["products"] if p["id"] == "packs")
    assert product["current_period_end"] > product["current_period_start"] >= product["started_at"]


def test_attaching_what_is_held_is_a_conflict(api: Api, buyer: str) -> None:
    api.refused("POST", "/v1/attach", {"customer_id": buyer, "product_id": "free"}, 409, "customer_product_already_exists")
    api.attach(buyer, "packs", options=[{"feature_id": "tokens", "quantity": 3}])
    body = {"customer_id": buyer, "product_id": "packs", "options": [{"feature_id": "tokens", "quantity": 6}]}
    assert "options" in api.refused("POST", "/v1/attach", body, 400, "not_supported")


def test_a_downgrade_is_not_built(api: Api, buyer: str) -> None:
    api.attach(buyer, "pro")
    api.refused("POST", "/v1/attach", {"customer_id": buyer, "product_id": "free_credits"}, 400, "not_supported")
    assert "pro" in held(api, buyer)


def test_add_ons_stack(api: Api, buyer: str) -> None:
    """Case 34, in part: the main plan's month, then the add-on's."""
    api.attach(buyer, "team")
    for _ in range(2):
        api.attach(buyer, "seat_words")
    assert api.feature(buyer, "words")["balance"] == 140
    api.track(buyer, "words", 110)
    parts = [p["balance"] for p in api.feature(buyer, "words")["breakdown"]]
    assert parts == [0, 10, 20, 0], "last the grant per seat, of which there is none"
    assert held(api, buyer).count("seat_words") == 2


@pytest.mark.parametrize("fields", [
    {"free_trial": True}, {"reward": "half_off"}, {"invoice": True}, {"new_billing_subscription": True},
    {"checkout_session_params": {"a": 1}}, {"metadata": {"a": "b"}}, {"version": 7},
])
def test_known_fields_without_effect_are_refused(api: Api, buyer: str, fields: dict) -> None:
    for route in ("/v1/attach", "/v1/checkout"):
        message = api.refused("POST", route, {"customer_id": buyer, "product_id": "pro", **fields}, 400, "not_supported")
        assert next(iter(fields)) in message
    api.refused("POST", "/v1/attach", {"customer_id": buyer, "product_ids": ["pro", "team"]}, 400, "not_supported")
    assert "pro" not in held(api, buyer)


def test_fields_that_ask_for_nothing_are_fine(api: Api, buyer: str) -> None:
    body = {
        "customer_id": buyer, "product_ids": ["pro"], "free_trial": False, "reward": None, "invoice": False,
        "new_billing_subscription": False, "metadata": {}, "options": [], "entity_id": None, "unknown": 1,
    }
    assert api.post("/v1/attach", body)["success"] is True


def test_wrong_calls(api: Api) -> None:
    customer_id = api.customer()
    for body, status, code in (
        ({"product_id": "pro"}, 400, "invalid_inputs"),
        ({"customer_id": customer_id}, 400, "invalid_inputs"),
        ({"customer_id": customer_id, "product_id": "pro", "product_ids": ["pro"]}, 400, "invalid_inputs"),
        ({"customer_id": customer_id, "product_id": "pro", "force_checkout": "yes"}, 400, "invalid_inputs"),
        ({"customer_id": customer_id, "product_id": 5}, 400, "invalid_inputs"),
        ({"customer_id": customer_id, "product_id": "nothing"}, 404, "product_not_found"),
        ({"customer_id": customer_id, "product_id": "pro", "options": [{"feature_id": "messages", "quantity": 1}]}, 400, "invalid_options"),
    ):
        api.refused("POST", "/v1/attach", body, status, code)
        api.refused("POST", "/v1/checkout", body, status, code)


def test_an_unknown_customer_is_made_with_its_data(api: Api) -> None:
    customer_id = api.customer() + "_new"
    checkout = api.checkout(customer_id, "pro", customer_data={"name": "Jane"})
    assert checkout["url"] is not None
    assert api.get(f"/v1/customers/{customer_id}")["name"] == "Jane"
