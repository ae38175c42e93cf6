"""A worker that is told to stop while Redis says nothing: every call gets an answer, the process ends.

The worker is the real one, in a process of its own, between the session's Valkey and a database.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

import pytest

from tests.fast.raw import Answer, Client, check, connected, request
from tests.http import KEY, memory_folder
from tests.run.harness import environment

TRACK = {"customer_id": "c", "feature_id": "msg"}
CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "check": (check(1), "/v1/check"), "track": (TRACK, "/v1/track"), "keyed": ({**TRACK, "idempotency_key": "k"}, "/v1/track"),
    "asgi": (check(1), "/v1/check?asgi"),
}


@dataclass
class Worker:
    """A worker's process, and where it listens."""

    process: subprocess.Popen[bytes]
    path: str

    async def up(self) -> None:
        """Waits until it answers."""
        for _ in range(1000):
            try:
                async with connected(self.path) as client:
                    await client.call(request(b"", "/readyz", method="GET"))
                return
            except OSError:
                await asyncio.sleep(0.01)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self, timeout_s: float) -> float:
        """Waits for its end; the seconds that took."""
        began = time.monotonic()
        while self.process.poll() is None:
            assert time.monotonic() - began < timeout_s, f"still running after {timeout_s} s"
            await asyncio.sleep(0.01)
        return time.monotonic() - began


@pytest.fixture
def start(valkey: Any, _sqlite_migrated: Path) -> Iterator[Callable[..., Worker]]:
    """Starts a worker, all on one empty world: `start(variables, setting=value)`."""
    started: list[subprocess.Popen[bytes]] = []
    with memory_folder() as folder:
        shutil.copy(_sqlite_migrated, folder / "sidecar.db")

        def make(others: Mapping[str, str] = {}, **settings: Any) -> Worker:
            path = str(folder / f"s{len(started)}")
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(path)
                variables = {
                    "SIDECAR_DATA_DIR": str(folder), "SIDECAR_REDIS_URL": valkey.url, "SIDECAR_SECRET_KEYS": KEY,
                    "SIDECAR_PARTITIONS": "4", "SIDECAR_LISTEN_FDS": str(listening.fileno()),
                    **{f"SIDECAR_{name.upper()}": str(value) for name, value in settings.items()}, **others,
                }
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "sidecar.run.http_worker"], cwd=folder, env=environment(variables),
                    pass_fds=(listening.fileno(),), stdin=subprocess.DEVNULL,
                )
            started.append(process)
            return Worker(process, path)

        try:
            yield make
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
            for process in started:
                process.kill()
                process.wait()


async def sell(worker: Worker) -> None:
    """Waits for the worker, and sells messages to one customer."""
    await worker.up()
    async with connected(worker.path) as client:
        for path, body in (
            ("/v1/features", {"id": "msg", "name": "Msg", "type": "single_use"}),
            ("/v1/products", {"id": "base", "name": "B", "items": [{"feature_id": "msg", "included_usage": 100}], "is_default": True}),
            ("/v1/customers", {"id": "c"}), ("/v1/check", check(1)),
        ):
            answer = await client.call(request(body, path))
            assert answer.status == 200, answer


async def waiting_calls(worker: Worker, clients: list[Client]) -> None:
    """Sends each kind of call on a connection of its own."""
    for client, (body, path) in zip(clients, CALLS.values()):
        client.writer.write(request(body, path))
    await asyncio.sleep(0.1)


async def stopped_within(worker: Worker, valkey: Any, timeout_s: float) -> tuple[dict[str, Answer | None], float]:
    """Stalls Redis, sends the calls, stops the worker: the answers, and how long it took to end."""
    await sell(worker)
    async with (
        connected(worker.path) as a, connected(worker.path) as b, connected(worker.path) as c, connected(worker.path) as d,
        connected(worker.path) as slow, connected(worker.path) as idle,
    ):
        assert (await idle.call(request(check(1)))).status == 200
        slow.writer.write(request(check(1))[:-5])
        os.kill(valkey.pid, signal.SIGSTOP)
        await waiting_calls(worker, [a, b, c, d])
        worker.stop()

        async def one(client: Client) -> Answer | None:
            try:
                return await client.answer()
            except (asyncio.IncompleteReadError, ConnectionError):
                return None

        *answers, took = await asyncio.gather(*(one(client) for client in (a, b, c, d)), worker.ended(timeout_s))
        assert await idle.ended()
    return dict(zip(CALLS, answers)), took


def test_calls_in_flight_get_their_answer_and_then_it_ends(
    start: Callable[..., Worker], valkey: Any, loop_runner: asyncio.Runner
) -> None:
    """Redis' time-out comes before the end of the grace: 503 for what changes nothing, else 504."""
    worker = start(redis_timeout_ms=400, shutdown_timeout_s=4)
    answers, took = loop_runner.run(stopped_within(worker, valkey, 10))
    assert {name: answer and answer.status for name, answer in answers.items()} == {
        "check": 503, "track": 504, "keyed": 504, "asgi": 503,
    }
    assert all(answer and (b"connection", b"close") in answer.headers for answer in answers.values())
    assert took < 4 + 2, "only the half request was waited for"


def test_a_grace_shorter_than_redis_time_out_ends_it_all_the_same(
    start: Callable[..., Worker], valkey: Any, loop_runner: asyncio.Runner
) -> None:
    """When the grace is over the calls that still wait are told that nobody knows."""
    worker = start(redis_timeout_ms=60_000, shutdown_timeout_s=1)
    answers, took = loop_runner.run(stopped_within(worker, valkey, 10))
    for name in ("check", "track", "keyed"):
        answer = answers[name]
        assert answer is not None and answer.status == (503 if name == "check" else 504), (name, answer)
        assert answer.json["code"] in ("unavailable", "outcome_unknown")
    assert took < 1 + 2


def test_a_call_that_has_a_task_is_told_too_when_the_grace_is_over(
    start: Callable[..., Worker], valkey: Any, loop_runner: asyncio.Runner
) -> None:
    """uvicorn cancels it then."""
    worker = start(redis_timeout_ms=60_000, shutdown_timeout_s=1)

    async def exchange() -> Answer:
        await sell(worker)
        async with connected(worker.path) as client:
            os.kill(valkey.pid, signal.SIGSTOP)
            client.writer.write(request({"customer_id": "c", "feature_id": "msg", "customer_data": {"name": "C"}}, "/v1/track"))
            await asyncio.sleep(0.1)
            worker.stop()
            answer = await client.answer()
            await worker.ended(10)
        return answer

    answer = loop_runner.run(exchange())
    assert answer.status == 504 and answer.json["code"] == "outcome_unknown", answer


def test_a_stop_without_trouble_answers_what_it_has_read(
    start: Callable[..., Worker], valkey: Any, loop_runner: asyncio.Runner
) -> None:
    worker = start(shutdown_timeout_s=5)

    async def exchange() -> float:
        await sell(worker)
        async with connected(worker.path) as client, connected(worker.path) as other:
            client.writer.write(b"".join(request(check(n)) for n in range(200)))
            assert (await client.answer()).json["required_balance"] == 0
            os.kill(valkey.pid, signal.SIGSTOP)
            await asyncio.sleep(0.05)
            worker.stop()
            await asyncio.sleep(0.3)
            os.kill(valkey.pid, signal.SIGCONT)
            last = [await client.answer() for _ in range(199)]
            assert [answer.json["required_balance"] for answer in last] == list(range(1, 200))
            assert (b"connection", b"close") in last[-1].headers
            assert await client.ended() and await other.ended()
        return await worker.ended(10)

    assert loop_runner.run(exchange()) < 2
