"""Batches over HTTP: each item for itself, in order for each customer, few writes for many."""

from __future__ import annotations

import time
from typing import Any, Iterator

import pytest

from sidecar.engine import connection
from tests.http import Api, audit

pytestmark = pytest.mark.ways("asgi")  # the exceptions call check or track

TRACKS, CHECKS, TRACK, CHECK = "/v1/balances.batch_track", "/v1/balances.batch_check", "/v1/track", "/v1/check"
V21 = {"x-api-version": "2.1"}


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    module_api.feature("msg", event_names=["both"])
    module_api.feature("other", event_names=["both"])
    module_api.feature("seats", "continuous_use")
    grants = [{"feature_id": name, "included_usage": 100} for name in ("msg", "other", "seats")]
    module_api.plan("base", *grants, is_default=True)
    return module_api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


@pytest.fixture
def c(api: Api) -> str:
    return api.customer()


def item(c: str, value: Any = 1, feature: str = "msg", **fields: Any) -> dict[str, Any]:
    return {"customer_id": c, "feature_id": feature, "value": value, **fields}


def tracks(api: Api, *items: Any, **headers: str) -> list[dict[str, Any]]:
    answer = api.post(TRACKS, list(items), 202, headers=headers)
    assert answer["success"] is True and len(answer["results"]) == len(items)
    results: list[dict[str, Any]] = answer["results"]
    return results


def left(api: Api, c: str, feature: str = "msg") -> Any:
    return api.balances(c)[feature]["balance"]


@pytest.mark.parametrize("version", ["1.2", "2.0", "2.1", "2.3"])
def test_each_item_is_a_track(api: Api, c: str, version: str) -> None:
    other = api.customer()
    results = tracks(
        api, item(c, 3), item(other, 5, "other"), {"customer_id": c, "event_name": "both", "value": 2}, item(c, 0), item(c, -1),
        **{"x-api-version": version},
    )
    assert [set(result) for result in results] == [{"status", "event_id", "value"}] * 5
    assert [result["value"] for result in results] == [3, 5, 2, 0, -1]
    assert {result["status"] for result in results} == {200}
    assert (left(api, c), left(api, c, "other"), left(api, other, "other")) == (96, 98, 95)
    ids = [f"evt_{event['p']}_{event['gen']}_{event['seq']}" for event in api.events(c)]
    assert ids == [results[0]["event_id"], *[results[2]["event_id"]] * 2, results[3]["event_id"], results[4]["event_id"]]


def test_an_item_that_fails_changes_no_other(api: Api, c: str) -> None:
    items = [
        item(c, 1), 5, item(c, 1, "nope"), item(c, "1"), item(c, 1, overage_behavior="most"), item(c, 1000, overage_behavior="reject"),
        item(c, 1, entity_id="nobody"), item(c, 1, timestamp=1 << 50), None, [item(c)], {}, item(c, 2),
    ]
    results = tracks(api, *items)
    codes = [(result["status"], result.get("code")) for result in results]
    bad = (400, "invalid_inputs")
    assert codes == [
        (200, None), bad, (404, "feature_not_found"), bad, bad, (400, "insufficient_balance"), (404, "entity_not_found"), bad, bad, bad,
        bad, (200, None),
    ]
    for result in results:
        assert result["status"] == 200 or (result["message"] and result["event_id"] is None)
    assert left(api, c) == 97 and len(api.events(c)) == 2


@pytest.mark.parametrize("path", [TRACKS, CHECKS])
@pytest.mark.parametrize("body", [{}, [], "x", 5, None, {"items": []}, [{}] * 1001], ids=lambda body: str(body)[:20])
def test_a_body_that_is_no_batch(api: Api, path: str, body: Any) -> None:
    assert api.refused(path, body, 400, "invalid_inputs").startswith("body")


def test_a_batch_that_is_too_large(api: Api, c: str) -> None:
    message = api.refused(TRACKS, [item(c, properties={"x": "y" * 2000})] * 600, 413, "invalid_request")
    assert message.startswith("body: larger than")


def test_unknown_customers_as_in_track(api: Api, c: str) -> None:
    results = tracks(api, item("batch-new", 1), item(c, 1), item("batch-new", 2))
    assert [result["status"] for result in results] == [200] * 3
    assert (left(api, "batch-new"), left(api, c)) == (97, 99)
    results = tracks(api, item("batch-nobody", 1), item(c, 1), **V21)
    assert [result["status"] for result in results] == [404, 200]
    assert results[0]["code"] == "customer_not_found" and left(api, c) == 98


def test_an_entity_that_an_item_describes_is_made(api: Api, c: str) -> None:
    results = tracks(api, item(c, 1, entity_id="e", entity_data={"feature_id": "seats"}), item(c, 1, entity_id="e"))
    assert [result["status"] for result in results] == [200, 200]
    assert left(api, c) == 98


def test_a_thousand_items_in_order_quickly(api: Api, c: str) -> None:
    who = [c, *(api.customer() for _ in range(4))]
    values = [2, 3, -1, 4, 0]
    items = [item(who[n % 5], values[n // 5 % 5]) for n in range(1000)]
    started = time.perf_counter()
    results = tracks(api, *items)
    taken = time.perf_counter() - started
    assert {result["status"] for result in results} == {200}
    assert len({result["event_id"] for result in results}) == 1000
    seqs = [int(result["event_id"].rpartition("_")[2]) for n, result in enumerate(results) if n % 5 == 0]
    assert seqs == sorted(seqs), "the items of a customer, in order"
    assert taken < 5
    balance = 100
    for n in range(200):
        balance = max(0, min(100, balance - values[n % 5]))
    assert [left(api, one) for one in who] == [balance] * 5


def test_many_writes_share_few(api: Api, c: str) -> None:
    before = api.redis.info("stats")["total_reads_processed"]
    tracks(api, *(item(c, 0) for _ in range(500)))
    assert api.redis.info("stats")["total_reads_processed"] - before < 100


@pytest.mark.ways("asgi", "short")
def test_keys_of_items(api: Api, c: str) -> None:
    one, other = item(c, 3, idempotency_key="a"), item(c, 5, idempotency_key="b")
    first = tracks(api, one, other, {**one, "value": 4})
    assert [result["status"] for result in first] == [200, 200, 409]
    assert first[2]["code"] == "duplicate_idempotency_key"
    assert tracks(api, other, one) == [first[1], first[0]]
    assert api.post(TRACK, one)["id"] == first[0]["event_id"], "a key is the customer's, whatever the route"
    assert left(api, c) == 92


def test_a_key_for_the_whole_batch_is_refused(api: Api, c: str) -> None:
    api.refused(TRACKS, [item(c)], 400, "not_supported", headers={"idempotency-key": "k"})


def test_locks_and_refunds_in_a_batch(api: Api, c: str) -> None:
    results = tracks(
        api, item(c, 10, idempotency_key="first"), item(c, 20, lock={"enabled": True, "lock_id": f"{c}-l"}),
        {"customer_id": c, "refund_of": "first", "value": -4}, {"customer_id": c, "refund_of": "first"},
        {"customer_id": c, "refund_of": "never"}, item(c, 1, lock={"enabled": True, "lock_id": f"{c}-l"}),
        item(c, 100, lock={"enabled": True, "lock_id": f"{c}-m"}),
    )
    assert [(result["status"], result.get("code")) for result in results] == [
        (200, None), (200, None), (200, None), (200, None), (404, "event_not_found"), (409, "lock_already_exists"),
        (400, "insufficient_balance"),
    ]
    assert [result["value"] for result in results[:4]] == [10, 20, -4, -6]
    assert left(api, c) == 80
    api.post("/v1/balances.finalize", {"lock_id": f"{c}-l", "action": "release"})
    assert left(api, c) == 100


# Checks -------------------------------------------------------------------------------------------


@pytest.mark.ways("asgi", "short")
@pytest.mark.parametrize("version", ["1.2", "2.0", "2.1"])
def test_each_item_is_a_check(api: Api, c: str, version: str) -> None:
    headers = {"x-api-version": version}
    bodies = [
        {"customer_id": c, "feature_id": "msg", "required_balance": 5}, {"customer_id": c, "feature_id": "msg", "required_balance": 101},
        {"customer_id": c, "product_id": "base"},
    ]
    results = api.post(CHECKS, bodies, headers=headers)["results"]
    assert results == [api.post(CHECK, body, headers=headers) for body in bodies]
    assert [result["allowed"] for result in results] == [True, False, True]


def test_checks_that_send_and_checks_that_fail(api: Api, c: str) -> None:
    ask = {"customer_id": c, "feature_id": "msg"}
    results = api.post(CHECKS, [
        *[{**ask, "required_balance": 60, "send_event": True}] * 2, {**ask, "required_balance": 40}, {**ask, "feature_id": "nope"}, 7, {**ask, "lock": {"enabled": True, "lock_id": f"{c}-l"}, "required_balance": 30},
        {"customer_id": c, "product_id": "nope"}, {"customer_id": c},
    ])["results"]
    assert [result.get("allowed") for result in results] == [True, False, True, None, None, True, None, None]
    assert [result["code"] for result in results if "allowed" not in result] == [
        "feature_not_found", "invalid_inputs", "product_not_found", "invalid_inputs"
    ]
    assert all(set(result) == {"code", "message"} for result in results if "allowed" not in result)
    assert results[1]["reason"] == "insufficient_balance" and results[5]["lock_id"] == f"{c}-l"
    assert left(api, c) == 10


def test_an_item_that_has_to_ask_is_not_overtaken(api: Api, c: str) -> None:
    """After a loss of Redis a key is looked up in SQL first."""
    tracks(api, item(c, 90))
    api.sync()
    api.redis.flushall()
    results = tracks(api, item(c, 8, idempotency_key="k"), item(c, 5), item(c, 1, idempotency_key="l"), item(c, -2), item(c, 4))
    assert [result["status"] for result in results] == [200] * 5
    applied = [event["applied"] // 10**6 for event in api.events(c)]
    assert applied == [90, 8, 2, 0, -2, 2], "ten are left for them, in order"


def test_more_than_redis_takes_at_once_is_made_in_smaller_parts(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not written yet has not been done: nothing is unknown, and the connection goes on."""
    customers = [api.customer() for _ in range(3)]
    monkeypatch.setattr(connection, "WRITE_BUFFER_BYTES_MAX", 50_000)
    results = tracks(api, *(item(customers[n % 3], 0.01) for n in range(999)))
    assert {result["status"] for result in results} == {200}
    assert sum(len(api.events(c)) for c in customers) == 999
