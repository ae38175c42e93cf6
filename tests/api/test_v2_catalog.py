"""Features and plans at 2.x: bodies read into the same catalog, the same catalog shown in each shape."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from tests.api.rpc import at, rpc, new_id
from tests.http import Api, audit

pytestmark = pytest.mark.ways("asgi")

NEWER = ["2.1", "2.3", "2.5.0"]
MONTH = {"interval": "month", "interval_count": 1}
USED = {"amount": 1, "billing_units": 1000, "max_purchase": None, **MONTH}


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    api = module_api
    api.feature("msg")
    api.feature("sso", "boolean")
    api.feature("seats", "continuous_use")
    return api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


def said(shown: dict[str, Any]) -> dict[str, Any]:
    """A plan's item without its texts."""
    return {name: value for name, value in shown.items() if name != "display"}


@pytest.mark.parametrize("version", ["2.0", *NEWER])
@pytest.mark.parametrize(("fields", "old"), [
    ({"type": "boolean"}, "boolean"),
    ({"type": "metered", "consumable": True}, "single_use"),
    ({"type": "metered", "consumable": False}, "continuous_use"),
    ({"type": "credit_system", "consumable": True, "credit_schema": [{"metered_feature_id": "msg", "credit_cost": 2}]}, "credit_system"),
])
def test_a_feature_there_and_back(api: Api, version: str, fields: dict[str, Any], old: str) -> None:
    id_ = new_id()
    made = rpc(api, version, "features.create", feature_id=id_, name="F", event_names=[id_], **fields)
    shown = {"id": id_, "name": "F", "consumable": old in ("single_use", "credit_system"), "event_names": [id_], "archived": False}
    assert made == {**shown, "precision": 6, **fields, "consumable": shown["consumable"]}
    assert api.get(f"/v1/features/{id_}")["type"] == old
    for again in (rpc(api, version, "features.get", feature_id=id_), api.get(f"/v1/features/{id_}", **at(version))):
        assert again == made
    assert made in rpc(api, version, "features.list")["list"]
    assert api.raw("POST", "/v1/features.list", headers={"x-api-version": version}).json() == api.raw(
        "GET", "/v1/features", headers={"x-api-version": version}
    ).json(), "no body is no fault"
    assert rpc(api, version, "features.create", 409, feature_id=id_, name="F", **fields)["code"] == "duplicate_feature_id"
    display = {"singular": "f", "plural": "fs"}
    changed = rpc(api, version, "features.update", feature_id=id_, name="G", display=display)
    assert changed == {**made, "name": "G", "display": display}
    assert api.post(f"/v1/features/{id_}", {"archived": True}, **at(version))["archived"] is True
    assert rpc(api, version, "features.delete", feature_id=id_) == {"success": True}
    assert rpc(api, version, "features.get", 404, feature_id=id_)["code"] == "feature_not_found"


@pytest.mark.parametrize("version", NEWER)
@pytest.mark.parametrize(("item", "old", "shown"), [
    (
        {"feature_id": "msg", "included": 5, "pooled": False, "reset": MONTH},
        {"included_usage": 5, "interval": "month", "price": None},
        {"included": 5, "unlimited": False, "reset": MONTH, "price": None},
    ),
    (
        {"feature_id": "msg", "included": 5, "reset": {"interval": "one_off"}},
        {"included_usage": 5, "interval": None}, {"included": 5, "reset": None},
    ),
    ({"feature_id": "msg", "unlimited": True}, {"included_usage": "inf"}, {"included": 0, "unlimited": True}),
    ({"feature_id": "sso"}, {"feature_type": "static"}, {"included": 0, "unlimited": False, "reset": None, "price": None}),
    ({"feature_id": "sso", "included": 0, "unlimited": False, "reset": None, "price": None}, {"feature_type": "static"}, {}),
    (
        {"feature_id": "msg", "included": 1000, "reset": MONTH, "price": {**USED, "billing_method": "usage_based", "max_purchase": 500}},
        {"included_usage": 1000, "price": 1, "billing_units": 1000, "usage_model": "pay_per_use", "usage_limit": 1500, "interval": "month"},
        {"included": 1000, "reset": MONTH, "price": {**USED, "billing_method": "usage_based", "max_purchase": 500}},
    ),
    (
        {"feature_id": "msg", "price": {"amount": 10, "interval": "one_off", "billing_units": 100, "billing_method": "prepaid"}},
        {"included_usage": 0, "price": 10, "billing_units": 100, "usage_model": "prepaid", "usage_limit": None, "interval": None},
        {"included": 0, "reset": None, "price": {
            "amount": 10, "interval": "one_off", "interval_count": 1, "billing_units": 100, "billing_method": "prepaid", "max_purchase": None,
        }},
    ),
    (
        {"feature_id": "msg", "included": 7, "reset": {"interval": "week", "interval_count": 2}, "entity_feature_id": "seats"},
        {"included_usage": 7, "interval": "week", "interval_count": 2, "entity_feature_id": "seats"},
        {"reset": {"interval": "week", "interval_count": 2}, "entity_feature_id": "seats"},
    ),
])
def test_an_item_there_and_back(api: Api, version: str, item: dict[str, Any], old: dict[str, Any], shown: dict[str, Any]) -> None:
    id_ = new_id()
    price = {"amount": 10, **MONTH}
    made = rpc(
        api, version, "plans.create", plan_id=id_, name="P", group="", add_on=False, auto_enable=False, price=price,
        items=[item], create_in_stripe=True,
    )
    assert set(made) == {
        "id", "name", "description", "group", "version", "add_on", "auto_enable", "price", "items", "created_at", "env",
        "archived", "base_variant_id", "config", "metadata",
    }
    assert said(made["price"]) == price and made["price"]["display"] == {"primary_text": "$10", "secondary_text": "per month"}
    assert said(made["items"][0]).items() >= shown.items()
    fixed, stored = api.get(f"/v1/products/{id_}")["items"]
    assert (fixed["type"], fixed["price"], stored.items() >= old.items()) == ("price", 10, True), stored
    assert rpc(api, version, "plans.get", plan_id=id_) == made == api.get(f"/v1/plans/{id_}", **at(version))
    again = {name: made[name] for name in ("name", "price", "items", "add_on", "auto_enable")}
    assert rpc(api, version, "plans.update", plan_id=id_, **again) == made, "what is shown can be sent back"


def test_the_words_of_2_0(api: Api) -> None:
    id_ = new_id()
    features = [
        {"feature_id": "msg", "granted_balance": 5, "reset": {"interval": "month", "reset_when_enabled": False}},
        {"feature_id": "msg", "price": {"amount": 1, "interval": "month", "usage_model": "pay_per_use"}},
    ]
    made = api.post("/v1/plans", {"id": id_, "name": "P8", "default": False, "features": features}, **at("2.0"))
    assert {"default", "features", "free_trial"} < set(made) and not {"auto_enable", "items"} & set(made)
    assert made["features"][0]["granted_balance"] == 5
    assert made["features"][0]["reset"] == {**MONTH, "reset_when_enabled": False}
    assert made["features"][1]["price"]["usage_model"] == "pay_per_use"
    assert api.get(f"/v1/products/{id_}")["items"][0]["reset_usage_when_enabled"] is False
    item = {"feature_id": "msg", "included": 6, "reset": MONTH}
    assert rpc(api, "2.3", "plans.update", plan_id=id_, items=[item])["items"][0]["included"] == 6
    assert api.get(f"/v1/products/{id_}")["items"][0]["reset_usage_when_enabled"] is False, "2.3 cannot say it, so it stays"
    assert api.post(f"/v1/plans/{id_}", {"name": "P8b"}, **at("2.0"))["name"] == "P8b"
    assert api.call("DELETE", f"/v1/plans/{id_}", **at("2.0")) == {"success": True}


def test_a_change_of_part_of_a_plan(api: Api) -> None:
    id_ = new_id()
    rpc(api, "2.3", "plans.create", plan_id=id_, name="P", price={"amount": 10, **MONTH}, items=[{"feature_id": "msg", "included": 5}])
    changed = rpc(api, "2.3", "plans.update", plan_id=id_, name="Q", create_in_stripe=True, archived=False)
    assert (changed["name"], changed["version"], changed["price"]["amount"]) == ("Q", 1, 10)
    changed = rpc(api, "2.3", "plans.update", plan_id=id_, price={"amount": 12, "interval": "year"})
    assert (changed["price"]["amount"], changed["price"]["interval"], changed["items"][0]["included"]) == (12, "year", 5)
    changed = rpc(api, "2.3", "plans.update", plan_id=id_, items=[{"feature_id": "msg", "included": 8}])
    assert (changed["price"]["amount"], changed["items"][0]["included"]) == (12, 8)
    assert rpc(api, "2.3", "plans.update", plan_id=id_, price=None)["price"] is None
    assert rpc(api, "2.3", "plans.has_customers", plan_id=id_, name="R")["will_version"] is False


def test_versions_of_a_plan(api: Api) -> None:
    id_ = new_id()
    rpc(api, "2.3", "plans.create", plan_id=id_, name="P", group=id_, items=[{"feature_id": "msg", "included": 5}])
    api.customer(id_)
    again = rpc(api, "2.3", "plans.update", plan_id=id_, items=[{"feature_id": "msg", "included": 5}])
    assert again["version"] == 1, "the same again is no change"
    assert rpc(api, "2.3", "plans.update", plan_id=id_, items=[{"feature_id": "msg", "included": 6}])["version"] == 2
    asked = {"plan_id": id_, "version": 1}
    assert api.post("/v1/plans.get", asked, **at("2.3"))["items"][0]["included"] == 5
    assert api.post("/v1/plans.get", {**asked, "version": 3}, 404, **at("2.3"))["code"] == "product_not_found"
    listed = [plan["version"] for plan in rpc(api, "2.3", "plans.list", all_versions=True)["list"] if plan["id"] == id_]
    assert listed == [1, 2]
    assert rpc(api, "2.3", "plans.delete", plan_id=id_, all_versions=False) == {"success": True}, "nobody has version 2"
    assert rpc(api, "2.3", "plans.delete", 400, plan_id=id_, all_versions=True)["code"] == "invalid_request"


@pytest.mark.parametrize(("version", "words"), [
    ("1.2", ["active", "upgrade", "new", "new"]), ("2.0", ["active", "upgrade", "new", "new"]),
    ("2.1", ["active", "upgrade", "new", "new"]), ("2.3", ["none", "upgrade", "activate", "purchase"]),
])
def test_what_attaching_would_be(api: Api, version: str, words: list[str]) -> None:
    group = new_id()
    api.plan(f"{group}_free", {"feature_id": "msg", "included_usage": 5}, group=group)
    api.plan(f"{group}_pro", {"price": 5, "interval": "month"}, group=group)
    api.plan(f"{group}_extra", {"feature_id": "msg", "included_usage": 5}, is_add_on=True)
    api.plan(f"{group}_once", {"feature_id": "msg", "price": 5, "usage_model": "prepaid"})
    c = api.customer(f"{group}_free")
    found = api.call("GET", f"/v1/plans?customer_id={c}", **at(version))["list"]
    assert rpc(api, version, "plans.list", customer_id=c)["list"] == found
    shown = {plan["id"]: plan["scenario"] if version == "1.2" else plan["customer_eligibility"] for plan in found}
    told = [shown[f"{group}_{name}"] for name in ("free", "pro", "extra", "once")]
    if version != "1.2":
        told = [each["attach_action" if version == "2.3" else "scenario"] for each in told]
    assert told == words
    nobody = rpc(api, version, "plans.list", customer_id="nobody")["list"]
    assert len(nobody) == len(found), "prices are shown to those who are no customers yet"


@pytest.mark.parametrize(("version", "method", "body", "code", "path"), [
    ("2.3", "features.create", {"name": "x", "type": "metered"}, "invalid_inputs", "consumable"),
    ("2.3", "features.create", {"name": "x", "type": "single_use"}, "invalid_inputs", "type"),
    ("2.3", "features.create", {"name": "x", "type": "ai_credit_system"}, "not_supported", "type"),
    ("2.3", "features.create", {"name": "x", "type": "boolean", "default_markup": 2}, "not_supported", "default_markup"),
    ("2.3", "plans.create", {"items": [{"included": 5}]}, "invalid_inputs", "items[0].feature_id"),
    ("2.3", "plans.create", {"items": [{"feature_id": "nope"}]}, "invalid_inputs", "items[0].feature_id"),
    ("2.0", "plans.create", {"features": [{"feature_id": "nope"}]}, "invalid_inputs", "features[0].feature_id"),
    ("2.3", "plans.create", {"items": {}}, "invalid_inputs", "items"),
    ("2.3", "plans.create", {"items": [5]}, "invalid_inputs", "items[0]"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "included": "inf"}]}, "invalid_inputs", "items[0].included"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "included": -1}]}, "invalid_inputs", "items[0].included"),
    ("2.0", "plans.create", {"features": [{"feature_id": "msg", "granted_balance": -1}]}, "invalid_inputs", "features[0].granted_balance"),
    ("2.3", "plans.create", {"items": [{"feature_id": "sso", "included": 3}]}, "invalid_inputs", "items[0].included"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "unlimited": True, "included": 3}]}, "invalid_inputs", "items[0].unlimited"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "unlimited": "yes"}]}, "invalid_inputs", "items[0].unlimited"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "reset": 5}]}, "invalid_inputs", "items[0].reset"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "reset": {}}]}, "invalid_inputs", "items[0].reset.interval"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "reset": {"interval": "eon"}}]}, "invalid_inputs", "items[0].reset.interval"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "price": {"interval": "month", "billing_method": "prepaid"}}]}, "invalid_inputs", "items[0].price.amount"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "price": {"amount": 1, "interval": "month"}}]}, "invalid_inputs", "items[0].price.billing_method"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "price": {**USED, "billing_method": "prepaid", "billing_units": 0}}]}, "invalid_inputs", "items[0].price.billing_units"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "price": {**USED, "billing_method": "prepaid", "max_purchase": -1}}]}, "invalid_inputs", "items[0].price.max_purchase"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "price": {"tiers": [{"to": 5, "amount": 1}], "interval": "month", "billing_method": "prepaid"}}]}, "not_supported", "items[0].price.tiers"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "reset": {"interval": "day"}, "price": {**USED, "billing_method": "usage_based"}}]}, "not_supported", "items[0].reset"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "pooled": True}]}, "not_supported", "items[0].pooled"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "rollover": {"max": 5}}]}, "invalid_inputs", "items[0].rollover"),
    ("2.3", "plans.create", {"items": [{"feature_id": "msg", "reset": MONTH, "rollover": {"expiry_duration_length": 99}}]}, "invalid_inputs", "items[0].rollover.expiry_duration_length"),
    ("2.3", "plans.create", {"price": {"amount": -1, "interval": "month"}}, "invalid_inputs", "price.amount"),
    ("2.3", "plans.create", {"price": {"amount": 1}}, "invalid_inputs", "price.interval"),
    ("2.3", "plans.create", {"price": {"amount": 5, "interval": "month"}, "auto_enable": True}, "invalid_inputs", "auto_enable"),
    ("2.0", "plans.create", {"price": {"amount": 5, "interval": "month"}, "default": True}, "invalid_inputs", "default"),
    ("2.3", "plans.create", {"add_on": "yes"}, "invalid_inputs", "add_on"),
    ("2.3", "plans.create", {"metadata": {"a": 1}}, "not_supported", "metadata"),
    ("2.3", "plans.create", {"billing_controls": {"spend_limits": [{}, {}]}}, "invalid_inputs", "billing_controls.spend_limits[1]"),
    ("2.3", "plans.create", {"free_trial": {"duration_length": 7}}, "not_supported", "free_trial"),
    ("2.3", "plans.create", {"version": 4}, "not_supported", "version"),
])
def test_refusals_name_the_field_as_the_body_has_it(
    api: Api, version: str, method: str, body: dict[str, Any], code: str, path: str
) -> None:
    owner = {"plan_id": "refused", "name": "R"} if method.startswith("plans") else {"feature_id": "refused"}
    message = api.refused(f"/v1/{method}", {**owner, **body}, 400, code, **at(version))
    assert message.startswith(f"{path}: "), message


def test_ids_do_not_change(api: Api) -> None:
    api.refused("/v1/features.update", {"feature_id": "msg", "new_feature_id": "other"}, 400, "not_supported", **at("2.3"))
    id_ = new_id()
    rpc(api, "2.3", "plans.create", plan_id=id_, name="P")
    api.refused("/v1/plans.update", {"plan_id": id_, "new_plan_id": "other"}, 400, "not_supported", **at("2.3"))
    api.refused("/v1/plans.create", {"plan_id": id_, "name": "P"}, 400, "product_already_exists", **at("2.3"))
