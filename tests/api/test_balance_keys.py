"""balances.* over time: names that become free, keys that outlive Redis and end, and the room for them."""

from __future__ import annotations

from typing import Any, Callable

import httpx

from tests.http import DAY_MS, Api

CREATE, UPDATE = "/v1/balances.create", "/v1/balances.update"
REPLAYED = "idempotency-replayed"


def send(api: Api, path: str, body: dict[str, Any], key: str | None = None) -> httpx.Response:
    return api.raw("POST", path, body, headers={"idempotency-key": key} if key else {})


def left(api: Api, c: str) -> Any:
    return api.balances(c)["msg"]["balance"]


def test_an_id_is_free_when_its_grant_has_ended(make_api: Callable[..., Api]) -> None:
    api = make_api()
    api.feature("msg")
    c = api.customer()
    body = {"customer_id": c, "feature_id": "msg", "included_grant": 5, "balance_id": "week", "expires_at": api.advance(0) + DAY_MS}
    api.post(CREATE, body)
    api.advance(DAY_MS)
    api.refused(UPDATE, {"customer_id": c, "feature_id": "msg", "balance_id": "week", "remaining": 1}, 404, "balance_not_found")
    api.post(CREATE, {**body, "expires_at": None})
    assert left(api, c) == 5


def test_a_key_outlives_redis_and_ends_with_its_time(make_api: Callable[..., Api]) -> None:
    api = make_api(idempotency_ttl_s=86400)
    api.feature("msg")
    api.plan("base", {"feature_id": "msg", "included_usage": 100}, is_default=True)
    c = api.customer()
    body = {"customer_id": c, "feature_id": "msg", "add_to_balance": 5}
    send(api, UPDATE, body, "k")
    api.sync()
    api.redis.flushall()
    assert REPLAYED in send(api, UPDATE, body, "k").headers and left(api, c) == 105
    track = {"customer_id": c, "feature_id": "msg"}
    api.redis.flushall()
    assert send(api, "/v1/track", track, "k").status_code == 409
    api.advance(DAY_MS)
    assert REPLAYED not in send(api, UPDATE, body, "k").headers and left(api, c) == 110


def test_no_room_for_another_key(make_api: Callable[..., Api]) -> None:
    api = make_api(idempotency_bytes_max=4096)
    api.feature("msg")
    api.plan("base", {"feature_id": "msg", "included_usage": 100}, is_default=True)
    c = api.customer()
    body = {"customer_id": c, "feature_id": "msg", "add_to_balance": 1}
    for number in range(60):
        answer = send(api, UPDATE, body, f"k{number}")
        if answer.status_code == 503:
            break
    assert answer.json()["code"] == "idempotency_full" and left(api, c) == 100 + number
    assert REPLAYED in send(api, UPDATE, body, "k0").headers and send(api, UPDATE, body).status_code == 200
