"""Customers and entities at every API version, by both styles of route: the version alone decides."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from tests.api.rpc import at, rpc
from tests.http import Api, audit

VERSIONS = ["1.2", "2.0", "2.1", "2.2", "2.3", "2.5.0"]
NEWER = ["2.1", "2.2", "2.3", "2.5.0"]
BASE = {"id", "name", "email", "created_at", "fingerprint", "stripe_id", "env", "metadata"}
OWN = {"1.2": {"products", "features"}, "2.0": {
    "send_email_receipts", "billing_controls", "subscriptions", "scheduled_subscriptions", "balances",
}}
NEW_OWN = {
    "send_email_receipts", "billing_controls", "subscriptions", "purchases", "licenses", "balances", "flags", "config",
}
ENTITY = {"id", "name", "customer_id", "feature_id", "created_at", "env"}
ENTITY_OWN = {
    "1.2": {"products", "features"}, "2.0": {"billing_controls", "subscriptions", "scheduled_subscriptions", "balances"},
}
NEW_ENTITY_OWN = {"billing_controls", "subscriptions", "purchases", "balances", "flags"}
SUBSCRIPTION = {
    "plan_id", "add_on", "status", "past_due", "canceled_at", "expires_at", "trial_ends_at", "started_at",
    "current_period_start", "current_period_end", "quantity",
}


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    api = module_api
    api.feature("msg")
    api.feature("sso", "boolean")
    api.feature("calls")
    api.feature("seats", "continuous_use")
    api.plan(
        "free", {"feature_id": "msg", "included_usage": 10, "interval": "month"}, {"feature_id": "sso"},
        {"feature_id": "seats", "included_usage": 3}, is_default=True,
    )
    api.plan("pro", {"price": 20, "interval": "month"}, {"feature_id": "calls", "included_usage": 100, "interval": "month"}, group="paid")
    api.plan("top_up", {"feature_id": "msg", "price": 10, "billing_units": 100, "usage_model": "prepaid"})
    api.plan("extra", {"feature_id": "msg", "included_usage": 5}, is_add_on=True)
    return api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


def buyer(api: Api) -> str:
    """A customer with the default plan, a paid one, a top-up and an entity with an add-on."""
    c = api.customer("pro")
    api.attach(c, "top_up", {"msg": 200})
    api.entity(c, "e1")
    api.attach(c, "extra", entity_id="e1")
    api.track(c, "msg", 4)
    return c


@pytest.mark.parametrize("version", VERSIONS)
def test_the_path_never_decides_the_shape(api: Api, version: str) -> None:
    c = buyer(api)
    shown = api.get(f"/v1/customers/{c}", **at(version))
    assert set(shown) == BASE | OWN.get(version, NEW_OWN)
    assert rpc(api, version, "customers.get", customer_id=c) == shown
    assert rpc(api, version, "customers.get_or_create", customer_id=c) == shown
    assert api.post("/v1/customers", {"id": c}, **at(version)) == shown
    assert api.post("/v1/customers", {"customer_id": c}, **at(version)) == shown
    entity = api.get(f"/v1/customers/{c}/entities/e1", **at(version))
    assert set(entity) == ENTITY | ENTITY_OWN.get(version, NEW_ENTITY_OWN)
    assert rpc(api, version, "entities.get", customer_id=c, entity_id="e1") == entity
    assert rpc(api, version, "entities.update", customer_id=c, entity_id="e1") == entity
    listed = rpc(api, version, "entities.list", customer_id=c)
    assert listed["list"] == [entity]
    assert api.get(f"/v1/customers/{c}/entities", **at(version)) == listed
    first = api.call("GET", "/v1/customers?limit=1", **at(version))
    assert first["list"] == [shown]
    assert api.post("/v1/customers/list", {"limit": 1}, **at(version)) == first
    assert rpc(api, version, "customers.list", limit=1) == first


def test_a_customer_at_2_0(api: Api) -> None:
    shown = api.get(f"/v1/customers/{buyer(api)}", **at("2.0"))
    assert [plan["plan_id"] for plan in shown["subscriptions"]] == ["free", "pro", "top_up", "extra"]
    assert all(set(plan) == SUBSCRIPTION | {"default"} for plan in shown["subscriptions"])
    assert [plan["default"] for plan in shown["subscriptions"]] == [True, False, False, False]
    assert shown["scheduled_subscriptions"] == []
    msg = shown["balances"]["msg"]
    assert (msg["granted_balance"], msg["purchased_balance"], msg["current_balance"], msg["usage"]) == (15, 200, 211, 4)
    assert msg["reset"]["interval"] == "multiple" and msg["plan_id"] is None
    assert {"sso", "seats", "calls"} < set(shown["balances"])


@pytest.mark.parametrize("version", NEWER)
def test_a_customer_from_2_1_on(api: Api, version: str) -> None:
    shown = api.get(f"/v1/customers/{buyer(api)}", **at(version))
    plans = {plan["plan_id"]: plan for plan in shown["subscriptions"]}
    assert list(plans) == ["free", "pro", "extra"]
    assert all(set(plan) == SUBSCRIPTION | {"id", "auto_enable", "scope", "entity_id"} for plan in plans.values())
    assert [plan["auto_enable"] for plan in plans.values()] == [True, False, False]
    assert (plans["extra"]["add_on"], plans["extra"]["scope"], plans["extra"]["entity_id"]) == (True, "entity", "e1")
    pro = plans["pro"]
    assert pro["current_period_start"] == pro["started_at"] < pro["current_period_end"]
    assert [(bought["plan_id"], bought["quantity"], bought["expires_at"]) for bought in shown["purchases"]] == [("top_up", 1, None)]
    msg = shown["balances"]["msg"]
    assert (msg["granted"], msg["remaining"], msg["usage"]) == (215, 211, 4)
    assert [(part["plan_id"], part["included_grant"], part["prepaid_grant"]) for part in msg["breakdown"]] == [
        ("free", 10, 0), ("top_up", 0, 200), ("extra", 5, 0)
    ]
    assert set(shown["balances"]) == {"msg", "calls", "seats"}
    assert shown["flags"]["sso"]["feature_id"] == "sso" and shown["flags"]["sso"]["plan_id"] == "free"
    assert shown["licenses"] == [] and shown["billing_controls"] == {}


@pytest.mark.parametrize("version", NEWER)
def test_an_entity_shows_what_it_can_spend(api: Api, version: str) -> None:
    c = buyer(api)
    rpc(api, version, "entities.create", customer_id=c, entity_id="e2", feature_id="seats", name="Two")
    one, two = (rpc(api, version, "entities.get", customer_id=c, entity_id=e) for e in ("e1", "e2"))
    assert (two["name"], two["customer_id"], two["feature_id"]) == ("Two", c, "seats")
    assert [entity["balances"]["msg"]["remaining"] for entity in (one, two)] == [211, 206]
    assert [[plan["plan_id"] for plan in entity["subscriptions"]] for entity in (one, two)] == [
        ["free", "pro", "extra"], ["free", "pro"]
    ]
    assert rpc(api, version, "entities.delete", customer_id=c, entity_id="e2") == {"success": True}
    assert rpc(api, version, "entities.get", 404, customer_id=c, entity_id="e2")["code"] == "entity_not_found"


@pytest.mark.parametrize("version", VERSIONS)
def test_changes_and_deletion_by_rpc(api: Api, version: str) -> None:
    c = api.customer(name="A", metadata={"a": 1})
    changed = rpc(api, version, "customers.update", customer_id=c, name="B", metadata={"b": 2})
    assert (changed["name"], changed["metadata"]) == ("B", {"a": 1, "b": 2})
    assert api.call("PATCH", f"/v1/customers/{c}", {"email": "b@example.com"}, **at(version))["email"] == "b@example.com"
    assert rpc(api, version, "customers.update", 400, customer_id=c, new_customer_id="other")["code"] == "not_supported"
    assert rpc(api, version, "customers.delete", customer_id=c, delete_in_stripe=False) == {"success": True}
    assert rpc(api, version, "customers.get", 404, customer_id=c)["code"] == "customer_not_found"


@pytest.mark.parametrize("version", ["2.0", *NEWER])
def test_expansions(api: Api, version: str) -> None:
    c = buyer(api)
    names = ["invoices", "entities", "subscriptions.plan", "purchases.plan", "balances.feature", "flags.feature"]
    shown = rpc(api, version, "customers.get", customer_id=c, expand=names)
    assert shown["invoices"] == [] and [entity["id"] for entity in shown["entities"]] == ["e1"]
    assert shown["subscriptions"][1]["plan"]["price"]["amount"] == 20
    assert shown["balances"]["msg"]["feature"] == {
        "id": "msg", "name": "Msg", "type": "metered", "consumable": True, "event_names": [], "precision": 6, "archived": False,
    }
    if version != "2.0":
        assert shown["purchases"][0]["plan"]["id"] == "top_up" and shown["flags"]["sso"]["feature"]["type"] == "boolean"
    assert rpc(api, version, "customers.get", 400, customer_id=c, expand=["nope"])["code"] == "invalid_expand"


@pytest.mark.parametrize(("version", "default"), [("1.2", 10), ("2.0", 10), ("2.2", 10), ("2.3", 50)])
def test_pages_of_customers(api: Api, version: str, default: int) -> None:
    made = [api.customer(name=f"page {version}") for _ in range(5)][::-1]
    if default == 50:
        first = rpc(api, version, "customers.list", start_cursor="", limit=2, search=f"page {version}")
        assert set(first) == {"list", "next_cursor"}
        second = rpc(api, version, "customers.list", start_cursor=first["next_cursor"], limit=2, search=f"page {version}")
        last = rpc(api, version, "customers.list", start_cursor=second["next_cursor"], limit=2, search=f"page {version}")
        assert last["next_cursor"] is None
        pages = [first, second, last]
    else:
        pages = [rpc(api, version, "customers.list", limit=2, offset=at, search=f"page {version}") for at in (0, 2, 4)]
        assert [(page["total"], page["has_more"], page["offset"]) for page in pages] == [(2, True, 0), (2, True, 2), (1, False, 4)]
        assert {page["total_filtered_count"] for page in pages} == {5} and pages[0]["total_count"] >= 5
        assert rpc(api, version, "customers.list")["limit"] == default
    assert [customer["id"] for page in pages for customer in page["list"]] == made


def test_pages_of_entities(api: Api) -> None:
    c = api.customer()
    for entity_id in ("p1", "p2", "p3"):
        api.entity(c, entity_id)
    first = rpc(api, "2.3", "entities.list", customer_id=c, limit=2, start_cursor="")
    rest = rpc(api, "2.3", "entities.list", customer_id=c, limit=2, start_cursor=first["next_cursor"])
    assert [entity["id"] for entity in first["list"] + rest["list"]] == ["p1", "p2", "p3"] and rest["next_cursor"] is None
    page = rpc(api, "2.1", "entities.list", customer_id=c, limit=2, offset=1)
    assert ([entity["id"] for entity in page["list"]], page["has_more"]) == (["p2", "p3"], False)
    other = api.customer()
    api.entity(other, "p1")
    everyone = rpc(api, "2.3", "entities.list", search="P1", limit=1000)["list"]
    assert [(entity["customer_id"], entity["id"]) for entity in everyone] == [(c, "p1"), (other, "p1")]


@pytest.mark.parametrize(("method", "body", "code"), [
    ("customers.list", {"start_cursor": "nonsense"}, "invalid_cursor"),
    ("customers.list", {"start_cursor": "bi4x"}, "invalid_cursor"),  # one of entities
    ("customers.list", {"start_cursor": "é"}, "invalid_cursor"),
    ("customers.list", {"start_cursor": 5}, "invalid_inputs"),
    ("customers.list", {"limit": 0}, "invalid_inputs"),
    ("customers.list", {"plans": [{"id": "pro"}]}, "not_supported"),
    ("customers.list", {"sort_order": "asc"}, "not_supported"),
    ("customers.get", {}, "invalid_inputs"),
    ("customers.get", [], "invalid_inputs"),
    ("customers.get_or_create", {"customer_id": None}, "not_supported"),
    ("customers.get_or_create", {"customer_id": "n", "billing_controls": {"spend_limits": [{"enabled": 1}]}}, "invalid_inputs"),
    ("entities.get", {"entity_id": "e1"}, "invalid_inputs"),
    ("entities.create", {"customer_id": "c", "entity_id": "e"}, "invalid_inputs"),
])
def test_refusals(api: Api, method: str, body: Any, code: str) -> None:
    api.refused(f"/v1/{method}", body, 400, code, **at("2.3"))


def test_a_cursor_below_2_3_is_refused(api: Api) -> None:
    api.refused("/v1/customers.list", {"start_cursor": "Yy4x"}, 400, "invalid_inputs", **at("2.2"))
