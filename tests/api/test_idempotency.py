"""Repeats under a key: the first answer again, exactly one application, and a free key after a refusal."""

from __future__ import annotations

from typing import Any, Iterator

import httpx
import msgpack
import pytest

from tests.http import MSGPACK, Api, audit

TRACK, CHECK = "/v1/track", "/v1/check"
REPLAYED = "idempotency-replayed"


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    module_api.feature("msg")
    module_api.feature("other")
    module_api.plan("base", {"feature_id": "msg", "included_usage": 100}, is_default=True)
    return module_api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


@pytest.fixture
def c(api: Api) -> str:
    return api.customer()


def send(api: Api, path: str, body: dict[str, Any], key: str | None = None, **headers: str) -> httpx.Response:
    return api.raw("POST", path, body, headers={**({"idempotency-key": key} if key else {}), **headers})


def left(api: Api, c: str) -> Any:
    return api.balances(c)["msg"]["balance"]


@pytest.mark.parametrize("path", [TRACK, CHECK])
@pytest.mark.parametrize("where", ["body", "header", "both"])
def test_a_repeat_gets_the_first_answer_and_changes_nothing(api: Api, c: str, path: str, where: str) -> None:
    amount = {"value": 5} if path == TRACK else {"required_balance": 5, "send_event": True}
    body = {"customer_id": c, "feature_id": "msg", **amount, **({} if where == "header" else {"idempotency_key": "k"})}
    key = None if where == "body" else "k"
    first = send(api, path, body, key)
    assert first.status_code == 200 and REPLAYED not in first.headers and first.json()["id"].startswith("evt_")
    send(api, TRACK, {"customer_id": c, "feature_id": "msg", "value": 10})
    again = send(api, path, body, key)
    assert (again.status_code, again.json()) == (200, first.json()), "the first answer, balance and all"
    assert again.headers[REPLAYED] == "true"
    assert left(api, c) == 85
    assert len(api.events(c)) == 2


def test_header_and_body_that_differ_are_refused(api: Api, c: str) -> None:
    body = {"customer_id": c, "feature_id": "msg", "idempotency_key": "a"}
    api.refused(TRACK, body, 400, "invalid_inputs", headers={"idempotency-key": "b"})


def test_the_key_may_move_between_body_and_header(api: Api, c: str) -> None:
    body = {"customer_id": c, "feature_id": "msg", "value": 3}
    first = send(api, TRACK, {**body, "idempotency_key": "k"})
    assert send(api, TRACK, body, "k").json() == first.json() and left(api, c) == 97


@pytest.mark.parametrize(
    "other",
    [{"value": 6}, {"value": -5}, {"feature_id": "other"}, {"properties": {"a": 1}}, {"timestamp": 5}, {"overage_behavior": "overflow"}],
    ids=str,
)
def test_another_call_under_the_key_is_a_409(api: Api, c: str, other: dict[str, Any]) -> None:
    body = {"customer_id": c, "feature_id": "msg", "value": 5, "idempotency_key": "k"}
    send(api, TRACK, body)
    api.refused(TRACK, {**body, **other}, 409, "duplicate_idempotency_key")
    assert left(api, c) == 95


def test_another_route_under_the_key_is_a_409(api: Api, c: str) -> None:
    send(api, TRACK, {"customer_id": c, "feature_id": "msg", "value": 5}, "k")
    body = {"customer_id": c, "feature_id": "msg", "required_balance": 5, "send_event": True}
    api.refused(CHECK, body, 409, "duplicate_idempotency_key", headers={"idempotency-key": "k"})


def test_a_check_that_sends_nothing_takes_no_key(api: Api, c: str) -> None:
    body = {"customer_id": c, "feature_id": "msg"}
    send(api, CHECK, body, "k")
    send(api, TRACK, body, "k")
    again = send(api, CHECK, body, "k")
    assert REPLAYED not in again.headers and again.json()["balance"] == 99


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b'"value":1', b'"value":1.0'), (b'"value":1', b'"value":10e-1'), (b'"value":0.5', b'"value":0.50'),
        (b'"value":1', b'"overage_behavior":"cap"'), (b'"value":1', b'"value":null'),
        (b'"properties":{"a":1,"b":[2.0]}', b'"properties":{"b":[2],"a":1.0}'),
    ],
    ids=str,
)
def test_spelling_is_not_another_call(api: Api, c: str, first: bytes, again: bytes) -> None:
    bodies = [b'{"customer_id":"%b","feature_id":"msg","idempotency_key":"k",%b}' % (c.encode(), part) for part in (first, again)]
    answers = [api.raw("POST", TRACK, content=body) for body in bodies]
    assert answers[1].status_code == 200 and answers[1].json() == answers[0].json() and REPLAYED in answers[1].headers
    assert len(api.events(c)) == 1


def test_lists_and_objects_are_not_the_same_properties(api: Api, c: str) -> None:
    body = {"customer_id": c, "feature_id": "msg", "idempotency_key": "k", "properties": {"x": {"a": 1}}}
    send(api, TRACK, body)
    api.refused(TRACK, {**body, "properties": {"x": [["a", 1]]}}, 409, "duplicate_idempotency_key")


def test_messagepack_and_json_are_the_same_call(api: Api, c: str) -> None:
    body = {"customer_id": c, "feature_id": "msg", "value": 0.1, "properties": {"a": [1.5, None, True]}, "idempotency_key": "k"}
    first = api.raw("POST", TRACK, content=msgpack.packb(body), headers={"content-type": MSGPACK})
    again = api.raw("POST", TRACK, body)
    assert again.json() == first.json() and again.headers[REPLAYED] == "true"
    assert len(api.events(c)) == 1
    packed = api.raw("POST", TRACK, body, headers={"accept": MSGPACK})
    assert msgpack.unpackb(packed.content) == first.json(), "what is kept is not the rendered body"


def test_a_key_belongs_to_its_customer(api: Api, c: str) -> None:
    other = api.customer()
    for customer_id in (c, other):
        answer = send(api, TRACK, {"customer_id": customer_id, "feature_id": "msg", "value": 7}, "shared")
        assert REPLAYED not in answer.headers
    assert left(api, c) == left(api, other) == 93


def test_an_event_that_applied_nothing_is_remembered(api: Api, c: str) -> None:
    send(api, TRACK, {"customer_id": c, "feature_id": "msg", "value": 100})
    body = {"customer_id": c, "feature_id": "msg", "value": 5}
    first = send(api, TRACK, body, "k")
    send(api, TRACK, {"customer_id": c, "feature_id": "msg", "value": -50})
    assert send(api, TRACK, body, "k").json() == first.json() and left(api, c) == 50


@pytest.mark.parametrize("denied", [400, 404, 409], ids=["too little", "no entity", "another call"])
def test_a_refused_call_leaves_its_key_free(api: Api, c: str, denied: int) -> None:
    refused = {"customer_id": c, "feature_id": "msg", "value": 500, "overage_behavior": "reject"}
    if denied == 404:
        refused = {"customer_id": c, "feature_id": "msg", "entity_id": "nope"}
    if denied == 409:
        assert send(api, TRACK, {"customer_id": c, "feature_id": "msg", "value": 0}, "j").status_code == 200
        assert send(api, TRACK, {"customer_id": c, "feature_id": "msg", "value": 1}, "j").status_code == 409
    else:
        assert send(api, TRACK, refused, "k").status_code == denied
    fine = {"customer_id": c, "feature_id": "msg", "value": 1}
    first = send(api, TRACK, fine, "k")
    assert first.status_code == 200 and REPLAYED not in first.headers
    assert left(api, c) == 99


@pytest.mark.parametrize("path", [TRACK, CHECK])
def test_repeats_at_once_apply_once(api: Api, c: str, path: str) -> None:
    body = {"customer_id": c, "feature_id": "msg", "value": 3, "required_balance": 3, "send_event": True, "idempotency_key": "k"}
    answers = api.together(*[("POST", path, body)] * 30)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert sum(REPLAYED not in answer.headers for answer in answers) == 1
    assert left(api, c) == 97 and len(api.events(c)) == 1


def test_a_key_and_what_it_did_survive_the_loss_of_redis(api: Api, c: str) -> None:
    body = {"customer_id": c, "feature_id": "msg", "value": 5}
    first = send(api, TRACK, body, "k")
    api.sync()
    api.redis.flushall()
    again = send(api, TRACK, body, "k")
    assert again.json()["id"] == first.json()["id"] and again.headers[REPLAYED] == "true"
    assert left(api, c) == 95
    api.refused(TRACK, {**body, "value": 6, "idempotency_key": "k"}, 409, "duplicate_idempotency_key")
    assert REPLAYED not in send(api, TRACK, body, "another").headers


def test_a_repeat_at_another_version_is_the_same_event(api: Api, c: str) -> None:
    """An old client's answer had no balances to remember: a newer one that repeats the call gets none."""
    body = {"customer_id": c, "feature_id": "msg", "value": 3, "idempotency_key": "old"}
    old = api.post("/v1/track", body)
    with api.nothing_changes():
        new = api.post("/v1/track", body, headers={"x-api-version": "2.1.0"})
    assert new["event_id"] == old["id"] and (new["value"], new["balance"], new["deductions"]) == (3, None, [])
    body["idempotency_key"] = "new"
    new = api.post("/v1/track", body, headers={"x-api-version": "2.1.0"})
    with api.nothing_changes():
        assert api.post("/v1/track", body, headers={"x-api-version": "2.1.0"}) == new
        assert api.post("/v1/track", body)["id"] == new["event_id"]
    assert new["balance"] is not None


@pytest.mark.parametrize("size", [65_400, 70_000, 300_000])
@pytest.mark.parametrize("keyed", [False, True])
def test_large_properties_reach_sql(api: Api, c: str, size: int, keyed: bool) -> None:
    body = {"customer_id": c, "feature_id": "msg", "value": 7, "properties": {"text": "x" * size}}
    answer = api.post("/v1/track", {**body, "idempotency_key": "large"} if keyed else body)
    (event,) = api.events(c)
    assert event["properties"] == body["properties"] and answer["id"].startswith("evt_")
    assert left(api, c) == 93
