"""P7: loading and evicting never change a live balance, however slow or many the loaders are."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Awaitable, Callable

import pytest

from sidecar.engine import keys, loader, scripts
from sidecar.store import customers
from sidecar.store.customers import Snapshot

from ..conftest import Valkey
from .inside import BOOST, GRANT_LIFETIME, GRANT_MONTH, PRECISION, Inside, inside, settings_for

CALLERS = 20
ROUNDS = 5
START = (GRANT_MONTH + GRANT_LIFETIME) * PRECISION


def neighbour_of(world: Inside, customer_id: str) -> str:
    """Another customer of the same partition."""
    p = world.partition(customer_id)
    return next(f"n{i}" for i in range(10_000) if world.partition(f"n{i}") == p)


async def read_slowly(world: Inside, customer_id: str) -> Snapshot:
    """What a loader reads before it is paused."""
    snapshot = await world.ctx.store.read(customers.load_snapshot, customer_id)
    assert snapshot is not None
    return snapshot


async def go_on(world: Inside, customer_id: str, snapshot: Snapshot) -> bytes:
    """The paused loader wakes up: its script's answer."""
    p = world.partition(customer_id)
    load_keys = (keys.meta(p), keys.customer(p, customer_id), keys.entities(p, customer_id))
    answer = await world.ctx.engine.run(scripts.LOAD, p, load_keys, loader._load_args(snapshot))
    return bytes(answer[0])


def test_twenty_callers_load_one_customer_while_the_worker_lags(
    valkey: Valkey, database_url: str, tmp_path: Path
) -> None:
    """P7. Twenty tracks at once find the customer absent, again and again, while a neighbour in
    the partition tracks on and SQL is behind the log all the time."""

    async def scenario() -> None:
        async with inside(settings_for(valkey.url, database_url, tmp_path)) as world:
            await world.sell()
            busy = neighbour_of(world, "ann")
            for customer_id in ("ann", busy):
                await world.customer(customer_id)
            p = world.partition("ann")
            going = True

            async def neighbour() -> None:
                while going:
                    await world.track(busy)
                    await asyncio.sleep(0.01)

            async def worker() -> None:
                while going:
                    await world.sync(p, 6)
                    await asyncio.sleep(0.02)

            others = [asyncio.create_task(neighbour()), asyncio.create_task(worker())]
            evictions, lags = 0, []
            for _ in range(ROUNDS):
                await world.track("ann")
                deadline = time.monotonic() + 20
                while not await world.evict("ann"):  # until the worker has its last entry
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.002)
                evictions += 1
                assert await world.held("ann") == {}
                await asyncio.gather(*(world.track("ann", 1 + i % 3) for i in range(CALLERS)))
                lags.append(len(await world.unread(p)))
                assert await world.balance("ann") == START - world.spent["ann", "messages"]
            going = False
            await asyncio.gather(*others)
            assert evictions == ROUNDS and min(lags) >= CALLERS // 2, (evictions, lags)
            await world.assert_exact("ann", busy)

    asyncio.run(scenario())


Step = Callable[[Inside, str], Awaitable[object]]


async def load(world: Inside, name: str) -> None:
    assert await world.ctx.engine.project(name) is not None


async def spend(world: Inside, name: str) -> None:
    await world.track(name, 3)


async def synced(world: Inside, name: str) -> None:
    await world.sync_all()


async def evict(world: Inside, name: str) -> None:
    assert await world.held(name) and await world.evict(name)


async def buy(world: Inside, name: str) -> None:
    await world.post("/v1/attach", {"customer_id": name, "product_id": "boost"})


async def lose_redis(world: Inside, name: str) -> None:
    """Everything is gone, and the partition is open again."""
    await world.ctx.engine.redis.flushall()
    await world.ctx.engine.verify(world.partition(name))


PAUSES: dict[str, tuple[list[Step], bytes]] = {
    "nothing happened": ([], b"OK"),
    "loaded": ([load], b"EXISTS"),
    "loaded, spent": ([spend], b"EXISTS"),
    "loaded and evicted untouched": ([load, evict], b"OK"),
    "spent, evicted": ([spend, synced, evict], b"BEHIND"),
    "spent, evicted, loaded": ([spend, synced, evict, load], b"EXISTS"),
    "spent, evicted, loaded, evicted": ([spend, synced, evict, load, evict], b"BEHIND"),
    "bought, evicted": ([buy, synced, evict], b"BEHIND"),
    "lost": ([lose_redis], b"BEHIND"),
    "spent, lost": ([spend, synced, lose_redis], b"BEHIND"),
    "lost, spent, evicted": ([lose_redis, spend, synced, evict], b"BEHIND"),
}


def test_a_slow_loader_cannot_bring_back_the_past(valkey: Valkey, database_url: str, tmp_path: Path) -> None:
    """P7. A loader reads SQL and is paused; others load, spend, sync and evict; it wakes up. Each
    of PAUSES with a customer of its own."""

    async def scenario() -> None:
        async with inside(settings_for(valkey.url, database_url, tmp_path)) as world:
            await world.sell()
            for pause, (steps, expected) in PAUSES.items():
                name = "ann: " + pause
                await world.customer(name)
                for step in (spend, synced, evict):
                    await step(world, name)
                snapshot = await read_slowly(world, name)
                for step in steps:
                    await step(world, name)
                bought = sum(step is buy for step in steps) * BOOST * PRECISION
                assert await go_on(world, name, snapshot) == expected, pause
                await world.track(name)
                assert await world.balance(name) == START + bought - world.spent[name, "messages"], pause
                await world.assert_exact(name)

    asyncio.run(scenario())


@pytest.mark.parametrize("seed", range(2))
def test_loads_spends_syncs_and_evictions_in_any_order(
    valkey: Valkey, database_url: str, tmp_path: Path, seed: int
) -> None:
    """P7. Slow loaders held over random other work; after every step the live balance is what was
    granted less what was taken."""
    print(f"seed {seed}")
    draw = random.Random(seed)

    async def scenario() -> None:
        async with inside(settings_for(valkey.url, database_url, tmp_path)) as world:
            await world.sell()
            names = ["ann", neighbour_of(world, "ann")]
            granted = {}
            for name in names:
                await world.customer(name)
                granted[name] = START
            p, waiting = world.partition("ann"), []
            answers: dict[bytes, int] = {}
            evicted = 0
            for _ in range(200):
                name = draw.choice(names)
                what = draw.choices(
                    ("read", "go on", "spend", "sync", "sync some", "evict", "buy", "load"), (4, 4, 5, 3, 3, 6, 1, 1)
                )[0]
                if what == "read":
                    waiting.append((name, await read_slowly(world, name)))
                elif what == "go on" and waiting:
                    name, snapshot = waiting.pop(draw.randrange(len(waiting)))
                    answer = await go_on(world, name, snapshot)
                    answers[answer] = answers.get(answer, 0) + 1
                    if answer == b"OK":  # it brings the steps of its snapshot too
                        await world.ctx.engine.project(name)
                elif what == "spend":
                    await world.track(name, draw.randint(1, 9))
                elif what in ("sync", "sync some"):
                    await world.sync(p, 1000 if what == "sync" else draw.randint(1, 4))
                elif what == "evict":
                    was_held = bool(await world.held(name))
                    evicted += await world.evict(name) and was_held
                elif what == "buy":
                    granted[name] += BOOST * PRECISION
                    await world.post("/v1/attach", {"customer_id": name, "product_id": "boost"})
                elif what == "load":
                    await world.ctx.engine.project(name)
                for each in names:
                    balance = await world.balance(each)
                    assert balance in (None, granted[each] - world.spent.get((each, "messages"), 0)), (seed, what, each)
            assert evicted >= 5 and set(answers) == {b"OK", b"EXISTS", b"BEHIND"}, (evicted, answers)
            await world.assert_exact(*names)

    asyncio.run(scenario())
