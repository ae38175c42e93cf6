"""How long keys are remembered, and what happens when there is no room to remember more."""

from __future__ import annotations

from typing import Any, Callable

import httpx

from tests.http import HOUR_MS, Api

TRACK = "/v1/track"
REPLAYED = "idempotency-replayed"


def send(api: Api, body: dict[str, Any], key: str | None = None) -> httpx.Response:
    return api.raw("POST", TRACK, body, headers={"idempotency-key": key} if key else {})


def left(api: Api, c: str) -> Any:
    return api.balances(c)["msg"]["balance"]


def test_a_key_ends_with_its_time(make_api: Callable[..., Api]) -> None:
    api = make_api(idempotency_ttl_s=3600)
    api.feature("msg")
    api.plan("base", {"feature_id": "msg", "included_usage": 100}, is_default=True)
    c = api.customer()
    body = {"customer_id": c, "feature_id": "msg", "value": 5}
    first = send(api, body, "k")
    api.advance(HOUR_MS - 60_000)
    assert REPLAYED in send(api, body, "k").headers
    api.advance(60_000)
    again = send(api, body, "k")
    assert REPLAYED not in again.headers and again.json()["id"] != first.json()["id"]
    assert left(api, c) == 90


def test_a_full_memory_refuses_keys_and_forgets_none(make_api: Callable[..., Api]) -> None:
    api = make_api(idempotency_bytes_max=4096)
    api.feature("msg")
    api.plan("base", {"feature_id": "msg", "included_usage": 100}, is_default=True)
    c = api.customer()
    body = {"customer_id": c, "feature_id": "msg"}
    kept = []
    for number in range(100):
        answer = send(api, body, f"k{number}")
        if answer.status_code == 503:
            break
        kept.append((f"k{number}", answer.json()))
    assert 1 < len(kept) < 50, "1,024 bytes a partition"
    assert answer.json()["code"] == "idempotency_full" and int(answer.headers["retry-after"]) > 0
    assert left(api, c) == 100 - len(kept)
    for key, first in kept:
        assert send(api, body, key).json() == first
    assert send(api, body).status_code == 200, "without a key there is room"
