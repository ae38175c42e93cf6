"""No body of the RPC style is a fault of ours: whatever comes is answered, or refused by name."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from sidecar.api import events, rpc
from tests.http import Api

pytestmark = pytest.mark.ways("asgi")

PATHS = [route.path for route in (*rpc.routes, *events.routes)]
VERSIONS = ["1.2", "2.0", "2.1", "2.3"]
NAMES = [
    "customer_id", "entity_id", "feature_id", "plan_id", "id", "name", "limit", "start_cursor", "offset", "items", "features",
    "price", "type", "consumable", "credit_schema", "custom_range", "expand", "metadata", "auto_enable", "add_on", "version",
    "group", "display", "event_names", "archived", "search", "customer_data", "include_archived", "all_versions",
]
INNER = [
    "feature_id", "included", "granted_balance", "unlimited", "reset", "price", "interval", "interval_count", "amount",
    "billing_method", "usage_model", "billing_units", "max_purchase", "tiers", "metered_feature_id", "credit_cost", "start", "end",
]
plain = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.decimals(-9, 9, places=3), st.text(max_size=6),
    st.sampled_from(["msg", "base", "c1", "e1", "month", "one_off", "metered", "credit_system", "prepaid", "usage_based", "Yy4x", "ZS4xLjEuMS4x"]),
)
inner = st.recursive(plain, lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(st.sampled_from(INNER), below, max_size=5)), max_leaves=8)
bodies = st.one_of(inner, st.dictionaries(st.sampled_from(NAMES), inner, max_size=8))


@pytest.fixture(scope="module")
def api(module_api: Api) -> Api:
    module_api.feature("msg")
    module_api.plan("base", {"feature_id": "msg", "included_usage": 10}, {"price": 5, "interval": "month"})
    module_api.post("/v1/customers", {"id": "c1"})
    module_api.entity("c1", "e1", "msg")
    return module_api


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(PATHS), version=st.sampled_from(VERSIONS), body=bodies, known=st.booleans())
def test_whatever_comes_is_answered(api: Api, path: str, version: str, body: Any, known: bool) -> None:
    if isinstance(body, dict) and known and not path.endswith(".delete"):
        body = {"customer_id": "c1", "entity_id": "e1", "plan_id": "base", "feature_id": "msg", "name": "N", **body}
    answer = api.raw("POST", path, body, headers={"x-api-version": version})
    assert answer.status_code < 500, f"{path} {version} {body}: {answer.text}"
    if answer.status_code >= 400:
        refusal = answer.json()
        assert isinstance(refusal["message"], str) and isinstance(refusal["code"], str) and refusal["message"]


def test_numbers_may_come_as_floats(api: Api) -> None:
    """As autumn-sdk sends them."""
    item = {"feature_id": "msg", "included": Decimal("5.0"), "reset": {"interval": "month", "interval_count": Decimal("1.0")}}
    made = api.post("/v1/plans.create", {"plan_id": "floats", "name": "F", "items": [item]}, headers={"x-api-version": "2.5.0"})
    assert (made["items"][0]["included"], made["items"][0]["reset"]["interval_count"]) == (5, 1)
    assert api.post("/v1/customers.list", {"limit": Decimal("1.0")}, headers={"x-api-version": "2.5.0"})["list"]
