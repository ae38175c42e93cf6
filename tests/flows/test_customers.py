"""Customers over HTTP: made once, found, listed, changed, deleted."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.flows.client import Api


def new_id() -> str:
    return f"c_{uuid.uuid4().hex[:12]}"


def test_create_answers_every_field(api: Api) -> None:
    customer_id = new_id()
    shown = api.post(
        "/v1/customers",
        {"id": customer_id, "name": "Jane", "email": "jane@example.com", "fingerprint": "fp", "metadata": {"a": 1, "b": 0.5}},
    )
    assert {name: shown[name] for name in ("id", "name", "email", "fingerprint", "stripe_id", "env")} == {
        "id": customer_id, "name": "Jane", "email": "jane@example.com", "fingerprint": "fp", "stripe_id": None,
        "env": "sandbox",
    }
    assert shown["metadata"] == {"a": 1, "b": 0.5} and isinstance(shown["created_at"], int)
    free = next(p for p in shown["products"] if p["id"] == "free")
    assert (free["status"], free["group"], free["is_default"], free["is_add_on"]) == ("active", "chat", True, False)
    assert isinstance(free["started_at"], int) and free["items"][0]["feature_id"] == "messages"
    assert set(shown["features"]) == {"messages", "images", "usd_credits", "notifications"}
    messages = shown["features"]["messages"]
    assert (messages["id"], messages["name"], messages["type"]) == ("messages", "Messages", "single_use")
    assert api.get(f"/v1/customers/{customer_id}") == shown
    assert api.post("/v1/customers", {"id": customer_id, "name": "Other"}) == shown, "an existing id is returned as it is"


def test_the_alias_without_v1(api: Api) -> None:
    customer_id = new_id()
    assert api.post("/customers", {"id": customer_id})["id"] == customer_id


def test_many_creates_at_once_make_one(api: Api) -> None:
    customer_id = new_id()
    with ThreadPoolExecutor(12) as callers:
        answers = list(callers.map(lambda _: api.post("/v1/customers", {"id": customer_id}), range(24)))
    assert len({(a["created_at"], a["products"][0]["started_at"]) for a in answers}) == 1
    assert answers[0]["features"]["messages"]["balance"] == 10
    api.track(customer_id, "messages", 4)
    assert api.feature(customer_id, "messages")["included_usage"] == 10


def test_two_first_checks_at_once_make_one(api: Api) -> None:
    """Case 218."""
    customer_id = new_id()
    with ThreadPoolExecutor(2) as callers:
        answers = list(callers.map(lambda _: api.check(customer_id, "messages", customer_data={"name": "J"}), range(2)))
    assert [a["allowed"] for a in answers] == [True, True]
    shown = api.get(f"/v1/customers/{customer_id}")
    assert (shown["name"], shown["features"]["messages"]["included_usage"]) == ("J", 10)


def test_expand_in_query_and_body(api: Api) -> None:
    customer_id = api.customer()
    by_list = api.get(f"/v1/customers/{customer_id}?expand=invoices,payment_method")
    repeated = api.get(f"/v1/customers/{customer_id}?expand=invoices&expand=payment_method")
    in_body = api.post("/v1/customers", {"id": customer_id, "expand": ["invoices", "payment_method"]})
    assert by_list == repeated == in_body and (by_list["invoices"], by_list["payment_method"]) == ([], None)
    assert "invoices" not in api.get(f"/v1/customers/{customer_id}")
    api.refused("GET", f"/v1/customers/{customer_id}?expand=secrets", None, 400, "invalid_expand")


@pytest.mark.parametrize("body", [
    {}, {"id": ""}, {"id": 5}, {"id": "x" * 256}, {"id": "a\u0000b"}, {"id": "\ud800"}, {"id": "x", "email": "nobody"},
    {"id": "x", "name": 5}, {"id": "x", "metadata": []}, {"id": "x", "metadata": {"a": "\u0000"}}, [], "text", 5,
])
def test_wrong_bodies(api: Api, body: object) -> None:
    api.refused("POST", "/v1/customers", body, 400, "invalid_inputs")
    api.get("/v1/customers/x", 404)


@pytest.mark.parametrize("fields", [
    {"create_in_stripe": True}, {"currency": "eur"},
    {"auto_enable_plan_id": "pro"}, {"send_email_receipts": True},
])
def test_known_fields_without_effect_are_refused(api: Api, fields: dict) -> None:
    message = api.refused("POST", "/v1/customers", {"id": "x", **fields}, 400, "not_supported")
    assert next(iter(fields)) in message


def test_fields_that_ask_for_nothing_are_fine(api: Api) -> None:
    api.post("/v1/customers", {
        "id": new_id(), "billing_controls": {"spend_limits": []}, "create_in_stripe": False, "currency": "usd",
        "name": None, "metadata": None, "unknown": {"deep": [1]},
    })


def test_update_merges_metadata(api: Api) -> None:
    customer_id = api.customer(name="Jane", metadata={"a": 1, "b": 2})
    changed = api.call("PATCH", f"/v1/customers/{customer_id}", {"email": "j@e.com", "metadata": {"b": None, "c": 3}})
    assert (changed["name"], changed["email"], changed["metadata"]) == ("Jane", "j@e.com", {"a": 1, "c": 3})
    changed = api.post(f"/v1/customers/{customer_id}", {"name": None})
    assert (changed["name"], changed["email"]) == (None, "j@e.com")
    api.refused("PATCH", f"/v1/customers/{customer_id}", {"email": "no"}, 400, "invalid_inputs")
    api.refused("PATCH", f"/v1/customers/{customer_id}", {"id": "other"}, 400, "not_supported")
    api.refused("PATCH", "/v1/customers/nobody", {"name": "x"}, 404, "customer_not_found")


def test_list_pages(api: Api) -> None:
    mark = uuid.uuid4().hex
    ids = [api.customer(name=f"{mark} {index}") for index in range(5)]
    page = api.get("/v1/customers?limit=2&offset=1")
    assert (len(page["list"]), page["limit"], page["offset"], page["total"], page["has_more"]) == (2, 2, 1, 2, True)
    assert page["total_count"] >= 5
    found = api.post("/v1/customers/list", {"limit": 3, "search": mark})
    assert [c["id"] for c in found["list"]] == ids[::-1][:3]
    assert (found["total_filtered_count"], found["has_more"]) == (5, True)
    assert found["list"][0]["features"]["messages"]["balance"] == 10
    for query in ("limit=0", "limit=1001", "limit=x", "offset=-1"):
        api.refused("GET", f"/v1/customers?{query}", None, 400, "invalid_inputs")


def test_delete_and_the_name_again(api: Api) -> None:
    customer_id = api.customer()
    api.track(customer_id, "messages", 3)
    assert api.call("DELETE", f"/v1/customers/{customer_id}?delete_in_stripe=true") == {"success": True}
    api.refused("GET", f"/v1/customers/{customer_id}", None, 404, "customer_not_found")
    api.refused("DELETE", f"/v1/customers/{customer_id}", None, 404, "customer_not_found")
    assert api.post("/v1/customers", {"id": customer_id})["features"]["messages"]["balance"] == 10


def test_old_versions_are_refused(api: Api) -> None:
    customer_id = api.customer()
    answer = api.get(f"/v1/customers/{customer_id}", 400, headers={"x-api-version": "1.1"})
    assert answer["code"] == "not_supported"


def test_routes_that_are_not_built(api: Api) -> None:
    customer_id = api.customer()
    api.refused("POST", "/v1/cancel", {"customer_id": customer_id, "product_id": "free"}, 400, "not_supported")
    api.refused("POST", f"/v1/customers/{customer_id}/billing_portal", {}, 400, "not_supported")
