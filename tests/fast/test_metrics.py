"""What is counted between two looks is told exactly at the next, also of several workers, also at their end."""

from __future__ import annotations

import asyncio
import random
import re
from pathlib import Path
from typing import Callable

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from sidecar.api.metrics import LATENCY_BUCKETS_S, Metrics
from tests.fast.raw import check, connected, request
from tests.fast.test_stopping import Worker, sell, start  # noqa: F401


def lines(text: bytes, name: str) -> list[str]:
    """A metric's lines, without the times at which they were made."""
    return [line for line in text.decode().splitlines() if line.startswith(name) and "_created" not in line]


def test_folded_latencies_are_what_prometheus_would_have_counted() -> None:
    chosen = random.Random(0)
    registry = CollectorRegistry()
    one_by_one = Histogram("sidecar_request_seconds", "", ["verb"], buckets=LATENCY_BUCKETS_S, registry=registry)
    metrics = Metrics()
    for _ in range(5):
        for _ in range(500):
            seconds = chosen.choice((chosen.choice(LATENCY_BUCKETS_S), chosen.randrange(1, 1 << 14) / 1024, 0.0))
            verb = chosen.choice(("check", "track"))
            one_by_one.labels(verb).observe(seconds)
            metrics.decided(verb, "allowed", "", seconds)
        assert sorted(numbers(metrics.text())) == sorted(numbers(generate_latest(registry)))


def numbers(text: bytes) -> list[tuple[str, float]]:
    """The latencies' samples; sums to the rounding that their order makes."""
    found = (line.rsplit(" ", 1) for line in lines(text, "sidecar_request_seconds"))
    return [(name, round(float(value), 6)) for name, value in found]


def test_every_decision_is_told_once() -> None:
    metrics = Metrics()
    for number in range(1, 8):
        metrics.decided("track", "applied", "", 0.001)
        metrics.refused("track", "not_found")
        if number % 2:
            metrics.fold()
        told = lines(metrics.text(), "sidecar_decisions_total")
        assert sorted(told) == [
            f'sidecar_decisions_total{{outcome="applied",reason="",verb="track"}} {number}.0',
            f'sidecar_decisions_total{{outcome="refused",reason="not_found",verb="track"}} {number}.0',
        ]


def test_two_workers_tell_of_both_also_when_one_has_ended(
    start: Callable[..., Worker], loop_runner: asyncio.Runner, tmp_path: Path  # noqa: F811
) -> None:
    variables = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    one = start(variables)

    async def calls(worker: Worker, count: int) -> None:
        async with connected(worker.path) as client:
            for _ in range(count):
                assert (await client.call(request(check(1)))).status == 200

    async def told(worker: Worker) -> int:
        async with connected(worker.path) as client:
            text = (await client.call(request(b"", "/metrics", method="GET"))).body
        (count,) = re.findall(rb'sidecar_request_seconds_count\{verb="check"\} (\d+)', text)
        return int(count)

    async def exchange() -> None:
        await sell(one)  # one check
        two = start(variables)
        await two.up()
        await calls(one, 30)
        assert await told(one) == 31
        await calls(two, 20)
        async with asyncio.timeout(20):
            while await told(one) < 51:
                await asyncio.sleep(0.05)
        await calls(two, 7)
        two.stop()
        await two.ended(10)
        assert await told(one) == 58

    loop_runner.run(exchange())

