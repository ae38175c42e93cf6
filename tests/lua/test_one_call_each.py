"""check and track are one script call each and nothing else, whatever the server has forgotten.

Commands are counted twice: by the server's own statistics, and by MONITOR, which tells the commands of
clients from those that scripts call.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter
from typing import Any, Callable, Iterator

import pytest

from sidecar.engine import scripts
from tests.http import Api

HEALTH = {"xlen", "xrevrange", "xrange"}
"""What the health poll asks once a second, beside the calls; counted apart."""


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    """An app that sells messages, and credits that two other features draw from."""
    api = make_api()
    api.feature("msg", event_names=["both"])
    api.feature("other", event_names=["both"])
    api.feature("action")
    api.feature("seats", "continuous_use")
    api.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "action", "credit_cost": 2}])
    api.plan(
        "base", {"feature_id": "msg", "included_usage": 5000, "interval": "month"}, {"feature_id": "other", "included_usage": 5000},
        {"feature_id": "pool", "included_usage": 9000}, {"feature_id": "msg", "included_usage": 500, "entity_feature_id": "seats"},
        is_default=True,
    )
    return api


def mixed(c: str, number: int) -> tuple[str, str, dict[str, Any]]:
    """The kinds of calls, in turn."""
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("/v1/check", {"feature_id": "msg"}),
        ("/v1/track", {"feature_id": "msg", "value": 1}),
        ("/v1/check", {"feature_id": "action", "required_balance": 3, "send_event": True}),
        ("/v1/track", {"event_name": "both", "value": 2, "idempotency_key": f"k{number}"}),
        ("/v1/track", {"feature_id": "msg", "entity_id": "e1", "value": 1}),
        ("/v1/check", {"feature_id": "msg", "entity_id": "e1", "required_balance": 10_000}),
        ("/v1/track", {"feature_id": "action", "value": -1}),
        ("/v1/track", {"feature_id": "msg", "value": 99_999, "overage_behavior": "reject"}),
        ("/v1/track", {"event_name": "both", "value": 2, "idempotency_key": "again"}),
        ("/v1/check", {"feature_id": "other", "required_balance": 0, "send_event": True}),
    ]
    path, body = kinds[number % len(kinds)]
    return "POST", path, {"customer_id": c, **body}


class Monitor:
    """A connection that sees every command of the server."""

    def __init__(self, path: str):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(path)
        self._socket.sendall(b"MONITOR\r\n")
        assert self._socket.recv(5) == b"+OK\r\n"

    def until(self, marker: bytes) -> Counter[str]:
        """The commands of clients up to the one with that marker, by name."""
        seen = b""
        while marker not in seen[-4096:]:
            seen += self._socket.recv(1 << 16)
        found = re.findall(rb'^\+[\d.]+ \[\d+ ([^\]]*)\] "(\w+)"', seen, re.MULTILINE)
        return Counter(name.decode().lower() for source, name in found if source != b"lua")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def monitor(api: Api, valkey: Any) -> Iterator[Monitor]:
    watching = Monitor(valkey.socket_path)
    yield watching
    watching.close()


def test_a_thousand_calls_are_a_thousand_scripts_and_nothing_else(api: Api, monitor: Monitor) -> None:
    c = api.customer()
    api.entity(c, "e1")
    calls = [mixed(c, number) for number in range(1000)]
    api.redis.config_resetstat()
    api.redis.echo("begin")
    monitor.until(b'"begin"')
    statuses: Counter[int] = Counter()
    for at in range(0, 1000, 100):
        statuses.update(answer.status_code for answer in api.together(*calls[at : at + 100]))
    stats = {name.removeprefix("cmdstat_"): stat for name, stat in api.redis.info("commandstats").items()}
    api.redis.echo("end")
    seen = monitor.until(b'"end"')
    assert statuses == {200: 900, 400: 100}
    assert stats["evalsha"]["calls"] == 1000
    assert stats["evalsha"]["failed_calls"] == 0 and stats["evalsha"]["rejected_calls"] == 0
    of_clients = {name: count for name, count in seen.items() if name not in HEALTH | {"info", "echo"}}
    assert of_clients == {"evalsha": 1000}
    inside = {name.lower() for script in (scripts.TRACK, scripts.CHECK) for name in re.findall(r"\bcall\('(\w+)'", script.source)}
    assert {name.partition("|")[0] for name in stats} - {"evalsha", "config", "info", "echo"} <= inside | HEALTH


def test_calls_of_one_turn_share_a_write(api: Api) -> None:
    """A hundred calls made at once in memory leave in a few writes, so in far fewer reads of the server
    than calls. Over sockets they come as the client sends them: then no call takes two."""
    c = api.customer()
    api.together(*[mixed(c, 1)] * 5)
    before = api.redis.info("stats")["total_reads_processed"]
    api.together(*[mixed(c, 1)] * 100)
    assert api.redis.info("stats")["total_reads_processed"] - before <= (20 if api.way == "asgi" else 120)


def test_scripts_that_redis_forgot_are_loaded_again(api: Api) -> None:
    c = api.customer()
    api.redis.script_flush()
    assert api.track(c, value=1)["code"] == "event_received"
    api.redis.script_flush()
    assert api.check(c, required=1, send_event=True)["allowed"] is True
    assert api.balances(c)["msg"]["balance"] == 4998
    api.redis.script_flush()
    assert api.customer()


def test_scripts_forgotten_in_the_midst_lose_and_repeat_nothing(api: Api) -> None:
    c = api.customer()
    body = {"customer_id": c, "feature_id": "other", "value": 1}

    async def storm() -> list[int]:
        statuses: list[int] = []

        async def forget() -> int:
            times = 0
            while len(statuses) < 500:
                await asyncio.to_thread(api.redis.script_flush)
                times += 1
                await asyncio.sleep(0.002)
            return times

        forgetting = asyncio.create_task(forget())
        while not forgetting.done():
            answers = await asyncio.gather(*(api.send("POST", "/v1/track", body) for _ in range(25)))
            statuses += [answer.status_code for answer in answers]
        assert await forgetting > 5
        return statuses

    statuses = api.run(storm())
    assert set(statuses) == {200}
    assert api.balances(c)["other"]["usage"] == min(len(statuses), 5000)
    assert len(api.events(c)) == len(statuses)
