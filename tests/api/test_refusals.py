"""Bad input: 4xx with a code and a message, and nothing changed in either store. Never a 500.

`Api.refused` compares everything that Redis and SQL hold before and after each refused call.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Iterator

import httpx
import msgpack
import pytest

from tests.http import MSGPACK, Api, audit

D = Decimal
CHECK, TRACK = "/v1/check", "/v1/track"
BOTH = [CHECK, TRACK]


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    """Sells 100 messages a month, a flag, and 5 of some others, by default."""
    api = module_api
    api.feature("msg")
    api.feature("seats", "continuous_use")
    api.feature("flag", "boolean")
    api.feature("coarse", precision=0)
    api.feature("fine", precision=9)
    api.feature("event-a", event_names=["happening"])
    items = [{"feature_id": "msg", "included_usage": 100, "interval": "month"}]
    items += [{"feature_id": name, "included_usage": 5} for name in ("seats", "coarse", "fine", "event-a")]
    api.plan("base", *items, {"feature_id": "flag"}, is_default=True)
    return api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    """The module's app; audited after each test."""
    yield seller
    audit(seller)


@pytest.fixture(scope="module")
def c(seller: Api) -> str:
    """A customer with one entity, who has used 1 message; for calls that are refused."""
    return new_customer(seller)


@pytest.fixture
def fresh(api: Api) -> str:
    """Another one, of the test's own."""
    return new_customer(api)


def new_customer(api: Api) -> str:
    customer_id = api.customer()
    api.entity(customer_id, "e1")
    api.track(customer_id, value=1)
    return customer_id


def value_name(path: str) -> str:
    return "value" if path == TRACK else "required_balance"


@pytest.mark.parametrize("path", BOTH)
def test_an_unknown_feature_is_a_404(api: Api, c: str, path: str) -> None:
    assert "'nope'" in api.refused(path, {"customer_id": c, "feature_id": "nope"}, 404, "feature_not_found")


@pytest.mark.parametrize("path", BOTH)
def test_an_unknown_feature_does_not_create_the_customer(api: Api, c: str, path: str) -> None:
    api.refused(path, {"customer_id": "nobody", "feature_id": "nope"}, 404, "feature_not_found")


def test_an_event_that_no_feature_lists_is_a_404(api: Api, c: str) -> None:
    api.refused(TRACK, {"customer_id": c, "event_name": "nope"}, 404, "feature_not_found")


@pytest.mark.parametrize("path", BOTH)
def test_an_unknown_entity_is_a_404(api: Api, c: str, path: str) -> None:
    body = {"customer_id": c, "feature_id": "msg", "entity_id": "nope", "send_event": True}
    assert "'nope'" in api.refused(path, body, 404, "entity_not_found")


@pytest.mark.parametrize("path", BOTH)
def test_an_unknown_entity_of_an_unknown_customer_creates_neither(api: Api, c: str, path: str) -> None:
    api.refused(path, {"customer_id": "nobody", "feature_id": "msg", "entity_id": "e1"}, 404, "entity_not_found")


@pytest.mark.parametrize("version", ["2.1", "2.1.0", "2.2.0", "2.3", "2.5.0", "2026-03-17"])
@pytest.mark.parametrize("path", BOTH)
def test_from_2_1_an_unknown_customer_is_not_created(api: Api, c: str, path: str, version: str) -> None:
    """404 `customer_not_found`, or 400 `not_supported` while the answers of 2.1 are not built."""
    with api.nothing_changes():
        answer = api.raw("POST", path, {"customer_id": "nobody", "feature_id": "msg"}, headers={"x-api-version": version})
    assert (answer.status_code, answer.json()["code"]) in ((404, "customer_not_found"), (400, "not_supported"))


@pytest.mark.parametrize("path", BOTH)
def test_below_2_1_an_unknown_customer_is_created_with_its_defaults(api: Api, c: str, path: str) -> None:
    body = {"customer_id": f"new {path}", "feature_id": "msg", "customer_data": {"name": "N", "email": "n@example.com"}}
    answer = api.post(path, body)
    assert answer["customer_id"] == f"new {path}"
    listed = api.get("/v1/customers?limit=1000")["list"]
    shown = next(found for found in listed if found["id"] == f"new {path}")
    assert (shown["name"], shown["email"]) == ("N", "n@example.com")
    assert shown["features"]["msg"]["balance"] == (99 if path == TRACK else 100)


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (path, fields, name)
    for path in BOTH
    for fields, name in (
        ({"customer_id": None}, "customer_id"), ({"customer_id": ""}, "customer_id"), ({"customer_id": 7}, "customer_id"),
        ({"customer_id": ["c"]}, "customer_id"), ({"customer_id": "a\0b"}, "customer_id"), ({"customer_id": "x" * 256}, "customer_id"),
        ({"customer_id": "\ud800"}, "customer_id"),
        ({"feature_id": None}, "feature_id"), ({"feature_id": 1}, "feature_id"), ({"feature_id": {}}, "feature_id"),
        ({"entity_id": 5}, "entity_id"), ({"entity_id": ""}, "entity_id"),
        ({"properties": "text"}, "properties"), ({"properties": [1]}, "properties"), ({"properties": {"a": "\0"}}, "properties"),
        ({"properties": {"a": {"b": ["\ud800"]}}}, "properties"),
        ({"customer_data": "text"}, "customer_data"), ({"customer_data": {"email": "nowhere"}}, "customer_data.email"),
        ({"customer_data": {"name": 5}}, "customer_data.name"), ({"customer_data": {"metadata": []}}, "customer_data.metadata"),
        ({"entity_data": "text"}, "entity_data"), ({"entity_data": {"feature_id": 5}, "entity_id": "e1"}, "entity_data.feature_id"),
    )
] + [
    (TRACK, fields, name)
    for fields, name in (
        ({"value": "5"}, "value"), ({"value": True}, "value"), ({"value": []}, "value"), ({"value": {}}, "value"),
        ({"overage_behavior": "maybe"}, "overage_behavior"), ({"overage_behavior": 1}, "overage_behavior"),
        ({"overage_behavior": ["cap"]}, "overage_behavior"),
        ({"timestamp": "now"}, "timestamp"), ({"timestamp": 0}, "timestamp"), ({"timestamp": -5}, "timestamp"),
        ({"timestamp": True}, "timestamp"), ({"timestamp": 10**15}, "timestamp"), ({"timestamp": 10**30}, "timestamp"),
        ({"idempotency_key": 5}, "idempotency_key"), ({"idempotency_key": "k" * 256}, "idempotency_key"),
        ({"idempotency_key": "a\0"}, "idempotency_key"), ({"event_name": "happening"}, "feature_id"),
        ({"event_name": 5, "feature_id": None}, "event_name"), ({"async": "yes"}, "async"),
    )
] + [
    (CHECK, fields, name)
    for fields, name in (
        ({"required_balance": "5"}, "required_balance"), ({"required_balance": False}, "required_balance"),
        ({"required_quantity": "5"}, "required_quantity"), ({"send_event": "true"}, "send_event"), ({"send_event": 1}, "send_event"),
        ({"with_preview": "x"}, "with_preview"), ({"product_id": "base"}, "feature_id"),
    )
]


@pytest.mark.parametrize(("path", "fields", "name"), WRONG, ids=lambda v: repr(v)[:50])
def test_a_wrong_type_or_value_is_a_400_that_names_the_field(api: Api, c: str, path: str, fields: dict[str, Any], name: str) -> None:
    message = api.refused(path, {"customer_id": c, "feature_id": "msg", **fields}, 400, "invalid_inputs")
    assert message.startswith(name), message


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize(
    ("feature", "value", "fits"),
    [
        ("msg", D("0.0000001"), "precision 7"), ("msg", D("-0.00000049"), "precision 7"), ("coarse", D("0.4"), "precision 1"),
        ("msg", D("0.0000000001"), "no precision"), ("msg", 10**10, "precision 5"), ("msg", -(10**10), "precision 5"),
        ("fine", 10**7, "precision 8"), ("coarse", 2**53, "no precision"), ("msg", D("1e40"), "no precision"),
        ("msg", D("1e-40"), "no precision"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_names_the_precision_that_would(
    api: Api, c: str, path: str, feature: str, value: Any, fits: str
) -> None:
    body = {"customer_id": c, "feature_id": feature, value_name(path): value, "send_event": True}
    message = api.refused(path, body, 400, "invalid_inputs")
    assert message.startswith(value_name(path)) and fits in message, message


def test_the_largest_value_is_fine_and_one_more_is_not(api: Api, c: str) -> None:
    largest = D(2**53 - 1) / 10**6
    assert api.check(c, required=largest)["allowed"] is False
    api.refused(CHECK, {"customer_id": c, "feature_id": "msg", "required_balance": largest + D("0.000001")}, 400, "invalid_inputs")


def test_a_sum_out_of_range_is_refused(api: Api, fresh: str) -> None:
    """Each value fits by itself, the usage they would lead to does not."""
    body = {"customer_id": fresh, "feature_id": "coarse", "value": 2**53 - 100, "overage_behavior": "overflow"}
    api.post(TRACK, body)
    assert api.balances(fresh)["coarse"]["balance"] == 5 - (2**53 - 100)
    message = api.refused(TRACK, body, 400, "invalid_inputs")
    assert message.startswith("value") and "precision" in message
    api.refused(TRACK, {**body, "value": 100}, 400, "invalid_inputs")
    api.post(TRACK, {**body, "value": 99})
    assert api.balances(fresh)["coarse"]["usage"] == 2**53 - 1


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize(
    "content",
    [b"{", b"[1,", b"nul", b"\xff\xfe", b'{"customer_id": NaN}', b'{"value": Infinity}', b"[" * 100_000,
     b'{"a":' * 50_000, b'{"value": ' + b"9" * 50 + b"}", b'{"value": 1e999}', b'{"value": 0.' + b"1" * 60 + b"}"],
    ids=lambda b: repr(b[:14]),
)
def test_a_body_that_is_not_json_is_a_400(api: Api, c: str, path: str, content: bytes) -> None:
    api.refused(path, None, 400, "invalid_request", content=content)


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize("body", [[], [1], "text", 5, None, True], ids=repr)
def test_a_body_that_is_no_object_is_a_400(api: Api, c: str, path: str, body: Any) -> None:
    content = b"" if body is None else None
    api.refused(path, body, 400, "invalid_inputs", content=content)


@pytest.mark.parametrize("path", BOTH)
def test_null_and_empty_bodies(api: Api, c: str, path: str) -> None:
    api.refused(path, None, 400, "invalid_inputs", content=b"null")
    api.refused(path, {}, 400, "invalid_inputs")


@pytest.mark.parametrize("path", BOTH)
def test_too_large_a_body_is_a_413(api: Api, c: str, path: str) -> None:
    body = {"customer_id": c, "feature_id": "msg", "properties": {"blob": "x" * (1 << 20)}}
    api.refused(path, body, 413, "invalid_request")


@pytest.mark.parametrize("path", BOTH)
def test_too_large_a_body_without_a_length_is_a_413_before_it_is_all_read(api: Api, c: str, path: str) -> None:
    sent = 0

    async def endless():
        nonlocal sent
        while sent < 64 << 20:
            sent += 1 << 16
            yield b" " * (1 << 16)

    async def answered() -> httpx.Response:
        async with api.streaming() as client:
            return await client.post(path, content=endless())

    with api.nothing_changes():
        answer = api.run(answered())
    assert answer.status_code == 413 and answer.json()["code"] == "invalid_request"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": [value]}
    return value


@pytest.mark.parametrize("depth", [5, 60, 100, 450, 600])
@pytest.mark.parametrize("content_type", ["application/json", MSGPACK])
@pytest.mark.parametrize("path", BOTH)
def test_deep_properties_are_kept_or_refused(api: Api, c: str, path: str, content_type: str, depth: int) -> None:
    body = {"customer_id": c, "feature_id": "msg", "send_event": True, "properties": {"deep": nested(depth // 2)}}
    content = None
    if content_type == MSGPACK:
        try:
            content = msgpack.packb(body)
        except ValueError:
            pytest.skip("the client's packer goes no deeper")
    answer = api.raw("POST", path, body, content=content, headers={"content-type": content_type})
    assert answer.status_code == (200 if depth <= 60 else 400)
    if answer.status_code == 400:
        assert answer.json()["code"] in ("invalid_inputs", "invalid_request")


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize("number", [10**18, 2**64, -(2**63) - 1, 10**39, D("1e30"), D("1.5e58"), D("-1e60"), D("1e-60")], ids=str)
def test_large_numbers_in_properties_are_kept(api: Api, fresh: str, path: str, number: Any) -> None:
    body = {"customer_id": fresh, "feature_id": "msg", "send_event": True, "properties": {"n": [number]}}
    api.post(path, {**body, "idempotency_key": "k"})
    kept = api.events(fresh)[-1]["properties"]["n"][0]
    assert abs(D(kept) - D(number)) <= abs(D(number)) / 10**15


NOT_JSON = [b"\xff", msgpack.ExtType(5, b"x"), msgpack.Timestamp(1, 0), {b"k": 1}, {"a": {b"k": 1}}]


@pytest.mark.parametrize("path", BOTH)
@pytest.mark.parametrize("value", NOT_JSON, ids=repr)
def test_messagepack_values_that_json_does_not_have_are_refused(api: Api, c: str, path: str, value: Any) -> None:
    body = {"customer_id": c, "feature_id": "msg", "properties": {"v": value}, "send_event": True, "idempotency_key": "k"}
    headers = {"content-type": MSGPACK}
    api.refused(path, None, 400, "invalid_request", content=msgpack.packb(body), headers=headers)


@pytest.mark.parametrize("content", [b"\xc1", b"\x81", b"\x81\x01\x02", b"\x80\x80", b"\xa1\xff", b"\xcb\x7f\xf0\0\0\0\0\0\0"], ids=repr)
@pytest.mark.parametrize("path", BOTH)
def test_a_body_that_is_not_messagepack_is_a_400(api: Api, c: str, path: str, content: bytes) -> None:
    with api.nothing_changes():
        answer = api.raw("POST", path, content=content, headers={"content-type": MSGPACK})
    assert answer.status_code == 400 and answer.json()["code"] in ("invalid_request", "invalid_inputs")


@pytest.mark.parametrize(
    ("path", "fields", "name"),
    [
        (CHECK, {"with_preview": True}, "with_preview"),
        (TRACK, {"customer_data": {"auto_enable_plan_id": "base"}}, "auto_enable_plan_id"),
    ],
    ids=str,
)
def test_a_known_field_that_is_not_built_is_named(api: Api, c: str, path: str, fields: dict[str, Any], name: str) -> None:
    message = api.refused(path, {"customer_id": c, "feature_id": "msg", **fields}, 400, "not_supported")
    assert message.startswith(name)


@pytest.mark.parametrize(
    "fields",
    [{"with_preview": False}, {"lock": None}, {"lock": {"enabled": False}}, {"refund_of": None}, {"product_id": None}, {"entity_id": None}],
    ids=str,
)
@pytest.mark.parametrize("path", BOTH)
def test_a_field_that_asks_for_nothing_is_fine(api: Api, c: str, path: str, fields: dict[str, Any]) -> None:
    assert api.post(path, {"customer_id": c, "feature_id": "msg", **fields})["customer_id"] == c


@pytest.mark.parametrize("path", BOTH)
def test_unknown_fields_are_ignored_at_every_depth(api: Api, c: str, path: str) -> None:
    body = {"customer_id": c, "feature_id": "msg", "from_the_future": {"a": [1, None]}, "customer_data": {"name": "x", "new": [5]}}
    plain = api.post(path, {"customer_id": c, "feature_id": "msg"})
    assert set(api.post(path, body)) == set(plain)


def test_aliases_and_defaults_of_the_value(api: Api, fresh: str) -> None:
    assert api.check(fresh)["required_balance"] == 1
    assert api.post(CHECK, {"customer_id": fresh, "feature_id": "msg", "required_quantity": 7})["required_balance"] == 7
    assert api.post(CHECK, {"customer_id": fresh, "feature_id": "msg", "required_quantity": 7, "required_balance": 3})["required_balance"] == 3
    api.track(fresh, value=None, properties={"value": 4})
    assert api.balances(fresh)["msg"]["balance"] == 95, "properties.value stands in for a missing value"
    api.track(fresh, value=2, properties={"value": 4})
    assert api.balances(fresh)["msg"]["balance"] == 93
    api.track(fresh, value=None, properties={"value": "4"})
    assert api.balances(fresh)["msg"]["balance"] == 92
    api.track(fresh, value=0)
    assert api.balances(fresh)["msg"]["balance"] == 92
    assert [e["value"] for e in api.events(fresh)][-2:] == ["1", "0"], "an event of exactly 0 is recorded"


def test_an_entity_that_the_body_describes_is_created(api: Api, fresh: str) -> None:
    body = {"customer_id": fresh, "feature_id": "msg", "entity_id": "e9", "entity_data": {"feature_id": "seats", "name": "Nine"}}
    assert api.post(TRACK, {**body, "value": 2})["entity_id"] == "e9"
    assert api.get(f"/v1/customers/{fresh}/entities/e9")["name"] == "Nine"
    new = {**body, "customer_id": "brand new", "entity_id": "e1"}
    assert api.post(CHECK, new)["allowed"] is True
    assert [e["id"] for e in api.get("/v1/customers/brand new/entities")["list"]] == ["e1"]


def test_a_route_that_is_not_there(api: Api) -> None:
    answer = api.raw("POST", "/v1/nowhere", {})
    assert answer.status_code == 404 and set(answer.json()) == {"message", "code", "env"}
    answer = api.raw("GET", "/v1/check")
    assert answer.status_code == 405 and set(answer.json()) == {"message", "code", "env"}


@pytest.mark.parametrize("timestamp", [[], "123", {}, 10**15])
def test_a_check_has_no_timestamp(api: Api, c: str, timestamp: Any) -> None:
    """A check is of now: whatever stands there is a field it does not know, like any other."""
    assert api.post(CHECK, {"customer_id": c, "feature_id": "msg", "timestamp": timestamp})["allowed"] is True
