"""check with a `product_id`: whether a plan is held."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from tests.http import Api, audit

CHECK = "/v1/check"


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    module_api.feature("msg")
    module_api.feature("seats", "continuous_use")
    items = [{"feature_id": "msg", "included_usage": 100}, {"feature_id": "seats", "included_usage": 5}]
    module_api.plan("base", *items, is_default=True)
    module_api.plan("extra", {"feature_id": "msg", "included_usage": 1}, is_add_on=True)
    return module_api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


@pytest.fixture
def c(api: Api) -> str:
    customer_id = api.customer()
    api.entity(customer_id, "e1")
    return customer_id


def held(api: Api, c: str, product_id: str, **fields: Any) -> bool:
    answer = api.post(CHECK, {"customer_id": c, "product_id": product_id, **fields})
    assert answer["code"] == "product_found" and (answer["customer_id"], answer["product_id"]) == (c, product_id)
    assert answer.get("status") == ("active" if answer["allowed"] else None)
    return bool(answer["allowed"])


def test_a_plan_is_held_or_not(api: Api, c: str) -> None:
    assert held(api, c, "base") and not held(api, c, "extra")
    api.attach(c, "extra")
    assert held(api, c, "extra")


def test_a_plan_of_an_entity_is_not_the_customers(api: Api, c: str) -> None:
    api.attach(c, "extra", entity_id="e1")
    assert held(api, c, "extra", entity_id="e1") and not held(api, c, "extra")


def test_an_unknown_customer_is_created(api: Api) -> None:
    assert held(api, "asked for a plan", "base")
    assert api.check("asked for a plan")["balance"] == 100


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"product_id": "nope"}, 404, "product_not_found"), ({"product_id": 5}, 400, "invalid_inputs"),
        ({"entity_id": "nope"}, 404, "entity_not_found"), ({"customer_id": None}, 400, "invalid_inputs"),
        ({"customer_id": "nobody", "entity_id": "e1"}, 404, "entity_not_found"),
        ({"customer_id": "nobody", "product_id": "nope"}, 404, "product_not_found"), ({"lock": {"enabled": True}}, 400, "invalid_inputs"),
        ({"with_preview": True}, 400, "not_supported"), ({"customer_data": 5}, 400, "invalid_inputs"),
        ({"customer_id": "nobody", "entity_id": "e1", "entity_data": {"feature_id": "nope"}}, 404, "feature_not_found"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused(api: Api, c: str, fields: dict[str, Any], status: int, code: str) -> None:
    api.refused(CHECK, {"customer_id": c, "product_id": "base", **fields}, status, code)
