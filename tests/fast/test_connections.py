"""The short way keeps to a connection's rules: order, back-pressure, time-outs, ends.

Guarantees: pipelined answers come in order; a client that does not read, or sends more than is
answered, takes a bounded amount of memory; a fault of ours is a 500 and nothing else is harmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import socket
import struct
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from sidecar.api import fast, fast_calls, heads, quick
from sidecar.engine import call as call_module
from sidecar.engine import spend
from tests.fast.conftest import selling
from tests.fast.raw import TIMEOUT_S, Client, check, connected, counted, request
from tests.http import Api, served

WRITE_BUFFER_BYTES_MAX = 200_000
MEBIBYTE = 1 << 20


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The faults that the short way logged."""
    found: list[str] = []
    for log in (fast.log, fast_calls.log):
        monkeypatch.setattr(log, "exception", lambda event, **_: found.append(event), raising=False)
    return found


def protocol_of(api: Api) -> fast.FastProtocol:
    """The only connection's protocol."""
    assert api.server is not None
    (only,) = api.server.server_state.connections
    assert isinstance(only, fast.FastProtocol)
    return only


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


# Order


@pytest.mark.parametrize("seed", range(4))
def test_a_thousand_pipelined_requests_are_answered_in_order(api: Api, seed: int) -> None:
    """In one write, or in 200 fragments; short, by ASGI, chunked and refused ones mixed."""
    chosen = random.Random(seed)
    kinds = [chosen.choice(("short", "short", "asgi", "chunked", "get", "bad")) if seed else "short" for _ in range(1000)]
    parts = []
    for number, kind in enumerate(kinds):
        if kind == "get":
            parts.append(request(b"", f"/v1/features/f{number}", method="GET"))
        elif kind == "bad":
            parts.append(request(check(number, feature_id=f"f{number}")))
        else:
            parts.append(request(check(number), "/v1/check?x" if kind == "asgi" else "/v1/check", chunked=kind == "chunked"))
    data = b"".join(parts)
    cuts = sorted(chosen.sample(range(1, len(data)), 199)) if seed else []

    async def exchange() -> list[Any]:
        async with connected(api.socket_path) as client:
            for start, end in zip([0, *cuts], [*cuts, len(data)]):
                client.writer.write(data[start:end])
                if cuts:
                    await asyncio.sleep(0)
            return [await client.answer() for _ in kinds]

    with counted() as short:
        answers = api.run(exchange())
    assert len(short) == sum(kind in ("short", "bad") for kind in kinds)
    for number, (kind, answer) in enumerate(zip(kinds, answers)):
        if kind in ("get", "bad"):
            assert answer.status == 404 and f"f{number}" in answer.json["message"]
        else:
            assert answer.status == 200 and answer.json["required_balance"] == number


def test_pipelined_tracks_are_all_applied_once(api: Api) -> None:
    async def exchange() -> None:
        async with connected(api.socket_path) as client:
            body = {"customer_id": "c", "feature_id": "msg"}
            client.writer.write(b"".join(request({**body, "value": n}, "/v1/track") for n in range(1, 301)))
            for _ in range(300):
                assert (await client.answer()).status == 200

    api.run(exchange())
    assert api.balances("c")["msg"]["usage"] == 300 * 301 // 2


def test_a_request_to_close_ends_the_connection_after_its_answer(api: Api) -> None:
    async def exchange() -> None:
        async with connected(api.socket_path) as client:
            client.writer.write(request(check(1)) + request(check(2), "/v1/check", b"connection: close"))
            first, second = await client.answer(), await client.answer()
            assert (b"connection", b"close") not in first.headers and (b"connection", b"close") in second.headers
            assert await client.ended()

    with counted() as short:
        api.run(exchange())
    assert len(short) == 2


# Back-pressure


KINDS = pytest.mark.parametrize("path", ["/v1/check", "/v1/check?x"], ids=["short", "mixed"])
"""What every second request goes to: the short way too, or Starlette."""


@KINDS
def test_a_client_that_never_reads_takes_a_bounded_amount_of_memory(api: Api, path: str) -> None:
    """It sends as long as the server takes anything; then it reads: every answer is there."""
    one = request(check(7)) + request(check(7), path)
    chunk = one * 250

    async def exchange() -> tuple[int, int, int, int]:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        sock.connect(api.socket_path)
        await asyncio.sleep(0.05)
        protocol = protocol_of(api)
        before, sent, buffered, queued, taken_at = resident_bytes(), 0, 0, 0, time.monotonic()
        while time.monotonic() - taken_at < 1.5 and sent < 100 * MEBIBYTE:
            try:
                sent += sock.send(chunk[sent % len(one):])
                taken_at = time.monotonic()
            except BlockingIOError:
                pass
            await asyncio.sleep(0.001)
            buffered = max(buffered, protocol.transport.get_write_buffer_size())
            queued = max(queued, len(protocol.pipeline))
        grown = resident_bytes() - before
        assert protocol.flow.write_paused
        assert sent < 20 * MEBIBYTE, "the server goes on reading"
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=MEBIBYTE)
        client = Client(reader, writer)
        for _ in range(sent // len(one) * 2):
            answer = await client.answer()
            assert answer.status == 200 and answer.json["required_balance"] == 7
        writer.transport.abort()
        await asyncio.sleep(0)
        return sent, buffered, queued, grown

    sent, buffered, queued, grown = api.run(exchange())
    print(f"sent {sent}, write buffer {buffered}, queued {queued}, grown {grown}")
    assert buffered < WRITE_BUFFER_BYTES_MAX
    assert queued < 5_000
    assert grown < 30 * MEBIBYTE


def test_nothing_is_started_for_a_client_that_does_not_read(api: Api) -> None:
    """What is not started when the client has gone is never done."""

    async def exchange() -> int:
        async with connected(api.socket_path) as client:
            await client.call(request(check(1)))
            protocol = protocol_of(api)
            protocol.pause_writing()
            client.writer.write(request({"customer_id": "c", "feature_id": "msg"}, "/v1/track") * 3)
            await asyncio.sleep(0.2)
            started = len(short)
        await asyncio.sleep(0.1)
        return started

    with counted() as short:
        assert api.run(exchange()) == 1
    assert len(short) == 1
    assert api.balances("c")["msg"]["usage"] == 0


def test_a_client_that_reads_again_gets_the_rest(api: Api) -> None:
    async def exchange() -> None:
        async with connected(api.socket_path) as client:
            await client.call(request(check(1)))
            protocol = protocol_of(api)
            protocol.pause_writing()
            client.writer.write(b"".join(request(check(n), chunked=n == 3) for n in range(2, 6)))
            await asyncio.sleep(0.1)
            assert not client.reader._buffer  # type: ignore[attr-defined]
            protocol.resume_writing()
            assert [(await client.answer()).json["required_balance"] for _ in range(4)] == [2, 3, 4, 5]

    api.run(exchange())


@KINDS
def test_a_client_that_sends_more_than_is_answered_is_read_no_further(api: Api, path: str) -> None:
    """It reads its answers, but a pipeline of 10,000 requests never stands in memory as a whole."""
    one, count = request(check(7)), 10_000

    async def exchange() -> int:
        queued = 0
        async with connected(api.socket_path) as client:
            client.writer.write(one)
            await client.answer()
            protocol = protocol_of(api)
            client.writer.write((one + request(check(7), path)) * (count // 2))
            for number in range(count):
                assert (await client.answer()).status == 200
                if number % 50 == 0:
                    queued = max(queued, len(protocol.pipeline))
        return queued

    assert api.run(exchange()) < 3_000


# Faults


def _fails(*_: Any, **__: Any) -> Any:
    raise RuntimeError("a fault of ours")


@pytest.mark.parametrize(
    ("where", "name"),
    [(fast_calls.FastService, "_decoded"), (spend, "start"), (spend, "_outcome"), (quick, "answer_check"), (fast_calls.FastService, "_conclude")],
    ids=["decoding", "starting", "in the reply", "answering", "concluding"],
)
def test_a_fault_is_a_500_and_the_connections_go_on(
    api: Api, faults: list[str], monkeypatch: pytest.MonkeyPatch, where: Any, name: str
) -> None:
    async def exchange() -> None:
        async with connected(api.socket_path) as client, connected(api.socket_path) as other:
            with monkeypatch.context() as broken:
                broken.setattr(where, name, _fails)
                client.writer.write(request(check(1)) * 3)
                for _ in range(3):
                    answer = await client.answer()
                    assert answer.status == 500 and answer.json["code"] == "internal_error"
                    assert dict(answer.headers)[b"content-type"] == b"application/json"
            assert api.ctx.engine.connection is redis, "Redis' connection is not the caller's to break"
            for each in (client, other):
                assert (await each.call(request(check(2)))).json["required_balance"] == 2

    redis = api.ctx.engine.connection
    api.run(exchange())
    assert faults == ["fast_call_failed"] * 3


def test_a_fault_in_choosing_the_way_leaves_the_ordinary_one(api: Api, faults: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def exchange() -> None:
        async with connected(api.socket_path) as client:
            with monkeypatch.context() as broken:
                broken.setattr(heads.Heads, "read", _fails)
                assert (await client.call(request(check(1)))).status == 200

    with counted() as short:
        api.run(exchange())
    assert not short and faults == ["fast_call_failed"]


def test_redis_telling_of_a_fault_is_a_500_and_not_another_try(api: Api, faults: list[str]) -> None:
    """A script that failed half-way must not be run again: it may have written."""
    api.redis.rename(b"{p0}:m", b"away") if api.redis.exists(b"{p0}:m") else None
    names = [key for key in api.redis.scan_iter() if api.redis.type(key) == b"hash"]
    saved = {name: api.redis.dump(name) for name in names}
    for name in names:
        api.redis.set(name, "no hash")  # WRONGTYPE
    api.redis.config_resetstat()

    async def exchange() -> None:
        async with connected(api.socket_path) as client:
            answer = await client.call(request({"customer_id": "c", "feature_id": "msg"}, "/v1/track"))
            assert answer.status == 500 and answer.json["code"] == "internal_error"

    api.run(exchange())
    assert api.redis.info("commandstats")["cmdstat_evalsha"]["calls"] == 1
    for name, value in saved.items():
        api.redis.restore(name, 0, value, replace=True)


# Ends


def test_half_a_body_costs_nobody_else_anything(api: Api) -> None:
    """A slow-loris: the rest of its body comes byte by byte, and others are answered meanwhile."""
    data = request(check(5))

    async def exchange() -> None:
        async with connected(api.socket_path) as slow, connected(api.socket_path) as other:
            slow.writer.write(data[:-20])
            for byte in data[-20:]:
                assert (await other.call(request(check(6)))).json["required_balance"] == 6
                slow.writer.write(bytes([byte]))
                await asyncio.sleep(0.005)
            assert (await slow.answer()).json["required_balance"] == 5

    with counted() as short:
        api.run(exchange())
    assert len(short) == 21


def test_a_connection_cut_in_mid_request_does_nothing(api: Api, faults: list[str]) -> None:
    data = request({"customer_id": "c", "feature_id": "msg"}, "/v1/track")

    async def exchange() -> None:
        for end in range(10, len(data), 7):
            async with connected(api.socket_path) as client:
                client.writer.write(data[:end])
                await asyncio.sleep(0.002)
        await asyncio.sleep(0.05)
        assert api.server is not None and not api.server.server_state.connections

    api.run(exchange())
    assert api.balances("c")["msg"]["usage"] == 0 and not faults


@KINDS
@pytest.mark.parametrize("how", ["reset", "closed"])
def test_a_connection_cut_in_mid_answer_ends_what_waits_behind(api: Api, faults: list[str], how: str, path: str) -> None:
    """A part of an answer was written and read; nothing is begun after that, and what was begun counts."""
    data = request({"customer_id": "c", "feature_id": "msg"}, "/v1/track") + request(check(1), path)

    async def exchange() -> int:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        sock.connect(api.socket_path)
        await asyncio.sleep(0.05)
        protocol = protocol_of(api)
        async with asyncio.timeout(20):
            while not protocol.flow.write_paused:
                with contextlib.suppress(BlockingIOError):
                    sock.send(data * 200)
                await asyncio.sleep(0.003)
        await asyncio.sleep(0.3)
        assert protocol.transport.get_write_buffer_size() and protocol.pipeline and len(sock.recv(100)) == 100
        begun = len(short)
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        assert api.server is not None
        async with asyncio.timeout(5):
            while api.server.server_state.connections or api.server.server_state.tasks:
                await asyncio.sleep(0.005)
        return begun

    with counted() as short:
        begun = api.run(exchange())
    assert len(short) == begun and not faults
    assert api.balances("c")["msg"]["usage"] == sum(cycle.head.verb == "track" for cycle in short)


@pytest.mark.parametrize("how", ["reset", "closed"])
def test_a_connection_cut_before_its_answer_is_only_dropped(api: Api, faults: list[str], how: str) -> None:
    """The call is applied, its answer goes nowhere; what was pipelined behind it is not begun."""
    data = request({"customer_id": "c", "feature_id": "msg"}, "/v1/track")

    async def exchange() -> None:
        began = time.monotonic()
        api.redis.execute_command("CLIENT", "PAUSE", "1500", "ALL")
        for _ in range(20):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(api.socket_path)
            sock.send(data * 3)
            await asyncio.sleep(0.005)
            if how == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        assert api.server is not None
        async with asyncio.timeout(5):
            while api.server.server_state.connections:
                await asyncio.sleep(0.005)
        await asyncio.sleep(1.8 - (time.monotonic() - began))

    with counted() as short:
        api.run(exchange())
    assert len(short) == 20 and not faults
    assert all(cycle.response_complete for cycle in short)
    assert api.balances("c")["msg"]["usage"] == 20


def test_an_idle_connection_ends_and_a_waiting_one_does_not(api: Api) -> None:
    async def exchange() -> None:
        path = api.socket_path + "k"
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        async with served(api.app, api.state, listening, timeout_keep_alive=1), connected(path) as client:
            await client.call(request(check(1)))
            api.redis.execute_command("CLIENT", "PAUSE", "1300", "ALL")
            assert (await client.call(request(check(2)))).status == 200, "Redis took longer than the idle time"
            idle_at = time.monotonic()
            assert await client.ended()
            assert 0.9 < time.monotonic() - idle_at < 3

    with counted() as short:
        api.run(exchange())
    assert len(short) == 2


def test_a_thousand_connections_that_come_and_go_leave_nothing(api: Api) -> None:
    async def one(number: int) -> int:
        async with connected(api.socket_path) as client:
            return int((await client.call(request(check(number)))).json["required_balance"])

    async def exchange() -> list[int]:
        found: list[int] = []
        for start in range(0, 1000, 50):
            found += await asyncio.gather(*(one(number) for number in range(start, start + 50)))
        async with asyncio.timeout(TIMEOUT_S):
            while api.server and api.server.server_state.connections:
                await asyncio.sleep(0.01)
        return found

    assert api.run(exchange()) == list(range(1000))
    assert api.server is not None and not api.server.server_state.tasks


# Redis goes away


@pytest.mark.parametrize("keyed", [True, False])
def test_every_call_is_answered_when_redis_connection_is_lost_under_load(
    make_api: Callable[..., Api], keyed: bool
) -> None:
    """Keyed calls find out by their key what became of them, and are repeated where Redis was away for
    that too; the others are told that nobody knows."""
    api = selling(make_api(redis_timeout_ms=3_000))
    statuses: dict[int, int] = {}

    async def caller(number: int, until: float) -> int:
        applied = 0
        async with connected(api.socket_path) as client:
            n = 0
            while time.monotonic() < until:
                n += 1
                key = {"idempotency_key": f"{number}-{n}"} if keyed else {}
                data = request({"customer_id": "c", "feature_id": "msg", **key}, "/v1/track")
                answer = await client.call(data)
                assert (b"idempotency-replayed", b"true") not in answer.headers, "it was not the caller's second try"
                while True:
                    statuses[answer.status] = statuses.get(answer.status, 0) + 1
                    assert answer.status in (200, 503, 504), answer
                    if answer.status == 200 or not keyed:
                        break
                    answer = await client.call(data)
                applied += answer.status == 200
        return applied

    async def cutter(until: float) -> int:
        cuts = 0
        while time.monotonic() < until:
            await asyncio.sleep(0.15)
            cuts += int(api.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
        return cuts

    async def all_of_them() -> tuple[int, int]:
        until = time.monotonic() + 2.0
        *counts, cuts = await asyncio.gather(*(caller(number, until) for number in range(32)), cutter(until - 0.3))
        return sum(counts), cuts

    applied, cuts = api.run(all_of_them())
    usage = api.balances("c")["msg"]["usage"]
    assert cuts >= 3 and statuses[200] > 100, statuses
    if keyed:
        assert usage == applied, statuses
    else:
        assert applied <= usage <= applied + statuses.get(504, 0), statuses


def test_a_reply_that_never_comes_is_answered_in_time(make_api: Callable[..., Api], valkey: Any) -> None:
    api = selling(make_api(redis_timeout_ms=300))
    calls: dict[str, tuple[dict[str, Any], str, int]] = {
        "check": (check(1), "/v1/check", 503),
        "track": ({"customer_id": "c", "feature_id": "msg"}, "/v1/track", 504),
        "keyed": ({"customer_id": "c", "feature_id": "msg", "idempotency_key": "k"}, "/v1/track", 504),
        "sent": (check(1, send_event=True), "/v1/check", 504),
    }

    async def one(body: dict[str, Any], path: str) -> tuple[int, dict[str, Any], float]:
        async with connected(api.socket_path) as client:
            began = time.monotonic()
            answer = await client.call(request(body, path))
            return answer.status, answer.json, time.monotonic() - began

    async def all_of_them() -> list[tuple[int, dict[str, Any], float]]:
        return await asyncio.gather(*(one(body, path) for body, path, _ in calls.values()))

    api.redis.execute_command("CLIENT", "PAUSE", "1500", "ALL")
    answers = api.run(all_of_them())
    for (name, (_, _, expected)), (status, body, took) in zip(calls.items(), answers):
        assert status == expected and body["code"] == ("unavailable" if status == 503 else "outcome_unknown"), (name, status, body)
        assert took < 1.4, (name, took)
    time.sleep(1.0)
    api.run(asyncio.sleep(1.0))
    assert json.dumps(api.check("c"))


# Memory


def test_a_call_leaves_nothing_for_the_garbage_collector(api: Api) -> None:
    """Cycles would: every thousand calls the process would halt for milliseconds to find them."""
    c = "c"
    calls = [lambda: api.check(c), lambda: api.track(c), lambda: api.track(c, idempotency_key=f"k{time.time_ns()}")]
    calls.append(lambda: api.post("/v1/balances.batch_track", [{"customer_id": c, "feature_id": "msg"}] * 3, 202))
    for call in calls:
        call()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for call in calls * 5:
            call()
        gc.collect()
        left = [one for one in gc.garbage if isinstance(one, (call_module.Spend, spend.Result, fast.FastCycle))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert left == []
