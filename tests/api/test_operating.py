"""What operators see (livez, readyz, metrics), and the test clock."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Callable

import pytest

from sidecar.engine import keys
from tests.http import DAY_MS, PARTITIONS, Api, real_now_ms


@pytest.fixture
def c(api: Api) -> str:
    api.feature("msg")
    api.plan("base", {"feature_id": "msg", "included_usage": 100, "interval": "month"}, is_default=True)
    return api.customer()


def test_livez_touches_nothing(api: Api) -> None:
    api.redis.config_resetstat()
    assert api.raw("GET", "/livez", headers={"authorization": ""}).json() == {"status": "alive"}
    assert set(api.redis.info("commandstats")) <= {"cmdstat_config|resetstat", "cmdstat_xlen", "cmdstat_xrevrange", "cmdstat_info"}


def test_readyz_tells_of_both_stores_and_of_the_lag(api: Api, c: str) -> None:
    api.sync()
    detail = api.get("/readyz")
    assert detail["status"] == "ready" and detail["redis"]["ok"] and detail["sql"]["ok"]
    assert detail["sync"]["behind_entries"] == 0
    for _ in range(3):
        api.track(c)
    assert api.get("/readyz")["sync"]["behind_entries"] == 3
    api.sync()
    assert api.get("/readyz")["sync"]["behind_entries"] == 0


def test_metrics_count_decisions_and_name_no_customer(api: Api, c: str) -> None:
    api.track(c)
    api.check(c)
    api.check(c, required=1000)
    api.track(c, value=1000, status=400, overage_behavior="reject")
    answer = api.raw("GET", "/metrics", headers={"authorization": ""})
    text = answer.text
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    for line in (
        'sidecar_decisions_total{outcome="applied",reason="",verb="track"} 1.0',
        'sidecar_decisions_total{outcome="allowed",reason="",verb="check"} 1.0',
        'sidecar_decisions_total{outcome="denied",reason="insufficient_balance",verb="check"} 1.0',
        'sidecar_decisions_total{outcome="refused",reason="insufficient_balance",verb="track"} 1.0',
        'sidecar_request_seconds_bucket{le="0.0005",verb="check"}',
    ):
        assert line in text, text
    assert c not in text and "msg" not in text
    for name in ("sidecar_log_entries", "sidecar_sync_lag_entries", "sidecar_redis_seconds"):
        assert name in text


# The test clock


def test_the_clock_only_moves_forward(api: Api, c: str) -> None:
    began = real_now_ms()
    now_ms = api.advance(10 * DAY_MS)
    assert abs(now_ms - began - 10 * DAY_MS) < 5_000
    for body in ({"now_ms": now_ms - DAY_MS}, {"advance_ms": -1}, {"now_ms": 0}):
        api.refused("/v1/test_clock", body, 400, "invalid_inputs")
    later = now_ms + DAY_MS
    assert 0 <= api.post("/v1/test_clock", {"now_ms": later})["now_ms"] - later < 5_000
    assert api.post("/v1/test_clock", {"advance_ms": 0})["now_ms"] >= later


@pytest.mark.parametrize(
    "body",
    [{}, {"now_ms": None}, {"now_ms": 1, "advance_ms": 1}, {"now_ms": "5"}, {"now_ms": "soon"}, {"now_ms": {}}, {"advance_ms": True}, {"advance_ms": Decimal("0.5")},
     {"advance_ms": 10**17}, {"now_ms": 10**30}, {"advance_ms": [1]}, []],
    ids=str,
)
def test_a_wrong_move_is_refused(api: Api, body: Any) -> None:
    api.refused("/v1/test_clock", body, 400, "invalid_inputs")


def test_everything_follows_the_clock(api: Api, c: str) -> None:
    api.track(c, value=30)
    due = api.balances(c)["msg"]["next_reset_at"]
    api.advance_to(due - 60_000)
    assert api.balances(c)["msg"]["balance"] == 70
    api.advance_to(due)
    assert api.check(c)["balance"] == 100
    new = api.customer()
    assert abs(api.get(f"/v1/customers/{new}")["created_at"] - due) < 5_000
    api.track(c, timestamp=due)
    api.refused("/v1/track", {"customer_id": c, "feature_id": "msg", "timestamp": due + 90_000}, 400, "invalid_inputs")
    assert abs(api.events(c)[-1]["recorded_at"] - due) < 5_000


def test_every_partition_has_the_time_before_the_call_answers(api: Api) -> None:
    api.advance(5 * DAY_MS)
    offsets = {int(api.redis.hget(keys.meta(p), "off")) for p in range(PARTITIONS)}
    assert len(offsets) == 1 and abs(offsets.pop() - 5 * DAY_MS) < 5_000


def test_without_a_test_clock_there_is_no_route(make_api: Callable[..., Api]) -> None:
    api = make_api(test_clock=False)
    api.refused("/v1/test_clock", {"advance_ms": 1}, 404, "invalid_request")
    api.refused("/v1/test_clock", {"bad": "body"}, 404, "invalid_request")


def test_the_log_has_an_end_beyond_which_calls_are_told_so(make_api: Callable[..., Api]) -> None:
    api = make_api(log_entries_max=1000)
    api.feature("msg")
    api.plan("base", {"feature_id": "msg", "included_usage": 10_000}, is_default=True)
    c = api.customer()
    for _ in range(10):
        api.together(*[("POST", "/v1/track", {"customer_id": c, "feature_id": "msg"})] * 100)
    ready = api.raw("GET", "/readyz")
    assert ready.status_code == 503 and ready.json()["sync"]["log_full"] is True
    answer = api.raw("POST", "/v1/track", {"customer_id": c, "feature_id": "msg"})
    assert answer.status_code == 503 and answer.json()["code"] == "log_full" and "retry-after" in answer.headers
    send = {"customer_id": c, "feature_id": "msg", "send_event": True}
    assert api.raw("POST", "/v1/check", send).status_code == 503
    assert api.check(c)["balance"] == 9000, "a check that writes nothing is still answered"
    api.sync()
    assert api.get("/readyz")["status"] == "ready"
    assert api.track(c)["code"] == "event_received"
