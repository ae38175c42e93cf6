"""Random bodies at the routes that answer most: any answer but a 500, and both stores stay equal.

Guarantee: bad input is a 4xx, whatever it is, in JSON and in MessagePack.
"""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.http import MSGPACK, Api, audit, to_json

BOUNDED = settings(
    max_examples=150, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

IDS = st.sampled_from(["c1", "c2", "new", "e1", "msg", "pool", "flag", "seats", "happening", "base", ""])
NUMBERS = st.one_of(
    st.integers(-(10**20), 10**20), st.sampled_from([0, 1, -1, 5, 10**9, 2**53, 2**63, 2**64 - 1, 10**39]),
    st.decimals(-(10**12), 10**12, allow_nan=False, places=4), st.decimals("-0.001", "0.001", allow_nan=False, allow_infinity=False),
)
TEXTS = st.one_of(IDS, st.text(max_size=8), st.sampled_from(["\0", "\ud800", "x" * 300, "cap", "reject", "overflow", "k", "a@b.co"]))
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)), max_leaves=8
)
NAMES = [
    "customer_id", "feature_id", "event_name", "entity_id", "value", "required_balance", "required_quantity", "send_event",
    "properties", "timestamp", "idempotency_key", "overage_behavior", "refund_of", "lock", "with_preview", "product_id", "async",
    "customer_data", "entity_data", "id", "name", "email", "metadata", "fingerprint", "stripe_id", "expand", "currency",
    "billing_controls", "options", "product_ids", "success_url", "quantity", "limit", "offset", "search", "now_ms",
]


def mostly(sensible: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Sensible values three times in four, so that calls get past the first field."""
    return st.integers(0, 3).flatmap(lambda n: VALUES if n == 0 else sensible)


SENSIBLE = st.fixed_dictionaries(
    {"customer_id": mostly(st.sampled_from(["c1", "c2", "new"])), "feature_id": mostly(st.sampled_from(["msg", "pool", "flag", "seats"]))},
    optional={
        "value": mostly(NUMBERS), "required_balance": mostly(NUMBERS), "send_event": mostly(st.booleans()),
        "entity_id": mostly(st.sampled_from(["e1", "e2", None])), "properties": mostly(st.dictionaries(TEXTS, VALUES, max_size=3)),
        "timestamp": mostly(st.integers(1, 2 * 10**12)), "idempotency_key": mostly(st.sampled_from(["k", "l"])),
        "overage_behavior": mostly(st.sampled_from(["cap", "reject", "overflow"])),
        "customer_data": mostly(st.dictionaries(st.sampled_from(["name", "email", "metadata", "fingerprint"]), VALUES, max_size=2)),
        "entity_data": mostly(st.fixed_dictionaries({"feature_id": mostly(st.just("seats"))}, optional={"name": VALUES})),
    },
)
BODIES = st.one_of(SENSIBLE, SENSIBLE, st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6), VALUES)
PATHS = st.sampled_from(["/v1/check", "/v1/track", "/v1/customers", "/v1/customers/c1", "/v1/customers/c1/entities", "/v1/customers/list"])


def selling(api: Api) -> Api:
    api.feature("msg", event_names=["happening"])
    api.feature("flag", "boolean")
    api.feature("seats", "continuous_use")
    api.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "msg", "credit_cost": 3}])
    api.plan(
        "base", {"feature_id": "msg", "included_usage": 10, "interval": "month"}, {"feature_id": "pool", "included_usage": 50},
        {"feature_id": "seats", "included_usage": 3}, {"feature_id": "flag"},
        {"feature_id": "msg", "included_usage": 5, "entity_feature_id": "seats"}, is_default=True,
    )
    for customer_id in ("c1", "c2"):
        api.post("/v1/customers", {"id": customer_id})
        api.entity(customer_id, "e1")
    return api


def refused_or_answered(api: Api, path: str, content: bytes, headers: dict[str, str]) -> None:
    answer = api.raw("POST", path, content=content, headers=headers)
    assert answer.status_code in range(200, 500), (path, content, answer.status_code, answer.text)
    if answer.status_code >= 400:
        shown = answer.json()
        assert isinstance(shown["message"], str) and isinstance(shown["code"], str) and shown["env"] == "sandbox"


def test_random_json_is_never_a_500(api: Api) -> None:
    selling(api)

    @BOUNDED
    @given(path=PATHS, body=BODIES)
    @example("/v1/track", {"customer_id": "c1", "feature_id": "msg", "properties": {"n": 10**39}})
    @example("/v1/customers", {"id": "c3", "metadata": {"n": 10**39}})
    def run(path: str, body: Any) -> None:
        refused_or_answered(api, path, to_json(body), {"content-type": "application/json"})

    run()
    audit(api)


def test_random_messagepack_is_never_a_500(api: Api) -> None:
    selling(api)
    values = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=5), st.binary(max_size=5)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5) | st.binary(max_size=3), inner, max_size=3)),
        max_leaves=6,
    )
    sensible = st.fixed_dictionaries(
        {"customer_id": st.sampled_from(["c1", "c2"]), "feature_id": st.just("msg")},
        optional={name: values for name in NAMES if name not in ("customer_id", "feature_id")},
    )

    @BOUNDED
    @given(path=PATHS, content=st.one_of(sensible.map(msgpack.packb), values.map(msgpack.packb), st.binary(max_size=60)))
    def run(path: str, content: bytes) -> None:
        refused_or_answered(api, path, content, {"content-type": MSGPACK})

    run()
    audit(api)


def test_random_bytes_and_headers_are_never_a_500(api: Api) -> None:
    selling(api)
    plain = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)

    @BOUNDED
    @given(path=PATHS, content=st.binary(max_size=60), header=st.sampled_from(["x-api-version", "idempotency-key", "content-type", "accept"]), value=plain)
    def run(path: str, content: bytes, header: str, value: str) -> None:
        answer = api.raw("POST", path, content=content, headers={header: value})
        assert answer.status_code in range(200, 500), (path, content, header, value, answer.text)

    run()
