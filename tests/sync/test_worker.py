"""The worker as a process of its own: it carries, resets, projects; killed or doubled it loses and
repeats nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Awaitable, Callable, Iterator

import pytest
from sqlalchemy import func, select

from sidecar.engine import keys
from sidecar.store import customers, events, holds, partitions, settings_kv, tables
from sidecar.store.db import Store
from sync import worker
from sync.audit import audit
from sync.carry import TRIM_MARGIN, Carrier
from sync.status import status

from . import logs
from .world import PARTITIONS, World, caught_up, lifetime, monthly, world

ROOT = Path(__file__).parents[2]


def check(valkey: Any, store: Store, scene: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with world(valkey, store, **settings) as place:
            await scene(place)

    asyncio.run(main())


async def until(what: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> float:
    """Waits until it is so; how long that took."""
    began = time.monotonic()
    while not await what():
        assert time.monotonic() - began < seconds, "not within its time"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


class Running:
    """A worker in this process."""

    def __init__(self, place: World):
        self._place, self._stop = place, asyncio.Event()

    async def __aenter__(self) -> Running:
        self._task = asyncio.create_task(worker.run(self._place.settings, self._stop))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await self._task


async def behind(place: World) -> int:
    return int((await status(place.engine, place.store))["behind_entries"])


async def synced(place: World) -> bool:
    return await behind(place) == 0


def test_the_log_gets_into_sql_and_status_says_how_far(valkey: Any, store: Store) -> None:
    async def scene(place: World) -> None:
        await place.create("ann", ("messages", lifetime(1, 100)))
        for _ in range(30):
            await place.track("ann", 1)
        # the opening of the generation, the customer's first step, the tracks
        before = await status(place.engine, store)
        assert before == {"log_entries": 32, "behind_entries": 32, "rejected": 0, "stopped": {}}
        async with Running(place):
            await until(lambda: synced(place))
        assert store.read_sync(lambda c: c.execute(select(func.count()).select_from(tables.events)).scalar_one()) == 30
        assert (await audit(place.engine, store)).differences == []

    check(valkey, store, scene)


def test_the_longer_it_gathers_the_more_there_was_and_not_at_all_behind_a_backlog() -> None:
    few, some, many = (worker.gather_s(carried) for carried in (1, worker.MUCH // 2, worker.MUCH))
    assert worker.gather_s(0) == worker.GATHER_MIN_S < few < some < many == worker.gather_s(worker.BATCH - 1) == worker.GATHER_MAX_S
    assert worker.gather_s(worker.BATCH) == 0.0


def test_an_idle_customers_reset_follows_the_test_clock(valkey: Any, store: Store) -> None:
    """Within 2 s of the move, nobody calling."""

    async def scene(place: World) -> None:
        now_ms = await place.engine.now_ms()
        day = 86_400_000
        row = monthly(1, 10, interval=3, anchor=now_ms, next_reset_at=now_ms + day, created_at=now_ms)
        cid = await place.create("ann", ("messages", row))
        await place.track("ann", 7)
        async with Running(place):
            await until(lambda: synced(place))
            assert logs.bucket(store, cid).balance == 3
            offset_ms = await store.write(settings_kv.move_clock, 3 * day)
            await place.engine.move_clock(offset_ms)

            async def reset() -> bool:
                return bool(logs.bucket(store, cid).balance == 10)

            assert await until(reset, 5) < 2
        found = logs.bucket(store, cid)
        assert found.next_reset_at == now_ms + 4 * day
        lines = [x for x in store.read_sync(events.ledger_of, cid) if x.kind == "reset"]
        assert [(x.delta, x.period_end) for x in lines] == [(7, now_ms + day)]

    check(valkey, store, scene, test_clock=True)


def test_a_step_whose_request_died_gets_to_redis(valkey: Any, store: Store) -> None:
    async def scene(place: World) -> None:
        cid = await place.create("ann", ("messages", lifetime(1, 100)), project=False)

        async def applied() -> bool:
            found = await store.read(customers.by_cid, cid)
            return found is not None and found.applied_version == 1

        async with Running(place):
            await until(applied)
        assert logs.bucket(store, cid).balance == 100

    check(valkey, store, scene)


def test_closed_partitions_are_opened_without_a_call(valkey: Any, store: Store) -> None:
    async def scene(place: World) -> None:
        async def all_open() -> bool:
            runs = [await place.engine.redis.hget(keys.meta(p), "run") for p in range(PARTITIONS)]
            return all(runs)

        async with Running(place):
            await until(all_open)

    check(valkey, store, scene)


def test_a_gap_stops_its_partition_alone_and_is_told(valkey: Any, store: Store) -> None:
    async def scene(place: World) -> None:
        names = ["ann", *(f"c{i}" for i in range(20))]
        bad = place.engine.partition_of("ann")
        good = next(name for name in names if place.engine.partition_of(name) != bad)
        for name in ("ann", good):
            await place.create(name, ("messages", lifetime(1, 100)))
            await place.track(name, 1)
        (first, _), *_rest = await place.engine.redis.xrange(keys.log(bad), count=1)
        await place.engine.redis.xdel(keys.log(bad), first)
        async with Running(place):
            async def told() -> bool:
                return bad in (await status(place.engine, store))["stopped"]

            await until(told)

            async def carried() -> bool:
                cursors = await store.read(partitions.cursors)
                return cursors[place.engine.partition_of(good)] == (1, 2)

            await until(carried)
        assert "cursor is at 0--1" in (await status(place.engine, store))["stopped"][bad]
        assert (await store.read(partitions.cursors))[bad] == (0, -1)

    check(valkey, store, scene)


def test_a_stopped_partition_is_told_until_it_gets_on(
    valkey: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trying again in vain, or a turn cut short, must not make `/readyz` forget the reason."""
    monkeypatch.setattr("sync.carry.STOPPED_RETRY_S", 0.0)

    async def scene(place: World) -> None:
        await place.create("ann", ("messages", lifetime(1, 100)))
        bad = place.engine.partition_of("ann")
        (first, _), *_rest = await place.engine.redis.xrange(keys.log(bad), count=1)
        await place.engine.redis.xdel(keys.log(bad), first)
        carrier, stop = Carrier(store, place.engine), asyncio.Event()

        async def told() -> dict[int, str]:
            return (await status(place.engine, store))["stopped"]  # type: ignore[no-any-return]

        await carrier.turn(stop, 1)
        assert list(await told()) == [bad]
        stop.set()
        await carrier.turn(stop, 1)
        assert list(await told()) == [bad]
        stop.clear()
        (newest, _), *_rest = await place.engine.redis.xrevrange(keys.log(bad), count=1)
        gen, seq = map(int, newest.split(b"-"))
        restored = tables.partitions.update().where(tables.partitions.c.p == bad).values(cursor_gen=gen, cursor_seq=seq)
        await store.write(lambda c: c.execute(restored))
        await carrier.turn(stop, 1)
        assert await told() == {}

    check(valkey, store, scene)


def test_the_log_is_trimmed_behind_the_cursor_with_a_margin(valkey: Any, store: Store) -> None:
    async def scene(place: World) -> None:
        await place.create("ann", ("messages", lifetime(1, 100_000)))
        p = place.engine.partition_of("ann")
        for _ in range(13):
            await asyncio.gather(*(place.track("ann", 1) for _ in range(200)))
        carrier = Carrier(store, place.engine)
        while await carrier.turn(asyncio.Event(), 1):
            pass
        await place.track("ann", 1)
        length = await place.engine.redis.xlen(keys.log(p))
        assert TRIM_MARGIN < length < TRIM_MARGIN + 500
        newest = await place.engine.redis.xrevrange(keys.log(p), count=1)
        assert newest[0][0].endswith(b"-2602")
        assert (await audit(place.engine, store)).differences == []

    check(valkey, store, scene)


def test_a_store_that_is_away_for_a_while_is_waited_for(valkey: Any, store: Store) -> None:
    async def scene(place: World) -> None:
        await place.create("ann", ("messages", lifetime(1, 100)))
        await place.engine.open_partitions(range(PARTITIONS))  # each opening is an entry
        async with Running(place):
            await until(lambda: synced(place))
            store.write_sync(lambda c: c.exec_driver_sql("ALTER TABLE events RENAME TO events_away"))
            await place.track("ann", 1)
            await asyncio.sleep(0.5)
            assert await behind(place) == 1
            store.write_sync(lambda c: c.exec_driver_sql("ALTER TABLE events_away RENAME TO events"))
            await until(lambda: synced(place))
        assert (await audit(place.engine, store)).differences == []

    check(valkey, store, scene)


@pytest.fixture
def spawn(valkey: Any, store: Store) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts worker processes on the test's stores; ends those that are left."""
    started: list[subprocess.Popen[bytes]] = []
    variables = {
        "SIDECAR_REDIS_URL": valkey.url, "SIDECAR_DATABASE_URL": store.url, "SIDECAR_PARTITIONS": str(PARTITIONS),
        "PYTHONPATH": str(ROOT),
    }

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-m", "sync.worker"], env=os.environ | variables, cwd="/tmp"))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_workers_killed_and_doubled_carry_each_entry_once(
    valkey: Any, store: Store, spawn: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """Promise P2: two workers at once, a third killed and started again, under load."""

    async def scene(place: World) -> None:
        names = [f"c{i}" for i in range(12)]
        for name in names:
            await place.create(name, ("messages", lifetime(1, 1_000_000)))
        spawn(), spawn()
        third, kills, tracks = spawn(), 0, 0
        deadline = time.monotonic() + 9
        killed_at = time.monotonic()
        while time.monotonic() < deadline:
            await asyncio.gather(*(place.track(name, 1) for name in names for _ in range(4)))
            tracks += 4
            await asyncio.sleep(0.005)
            if time.monotonic() - killed_at > 1.5:
                third.send_signal(signal.SIGKILL)
                third.wait()
                third, kills, killed_at = spawn(), kills + 1, time.monotonic()
        await until(lambda: synced(place), 60)
        assert kills >= 4 and tracks > 100
        assert store.read_sync(lambda c: c.execute(select(func.count()).select_from(tables.events)).scalar_one()) == tracks * 12
        for name in names:
            found = store.read_sync(customers.by_id, name)
            assert found is not None
            assert logs.bucket(store, found.cid).balance == 1_000_000 - tracks
        result = await audit(place.engine, store)
        assert result.differences == [] and result.customers == 12

    check(valkey, store, scene)


def test_sigterm_ends_a_worker_in_order(
    valkey: Any, store: Store, spawn: Callable[[], subprocess.Popen[bytes]]
) -> None:
    async def scene(place: World) -> None:
        await place.create("ann", ("messages", lifetime(1, 100)))
        process = spawn()
        await until(lambda: synced(place))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 5) == 0

    check(valkey, store, scene)


def test_two_carriers_see_conflicts_and_no_drift(valkey: Any, store: Store) -> None:
    """Two workers on one partition cannot both commit."""

    async def scene(place: World) -> None:
        await place.create("ann", ("messages", lifetime(1, 100_000)))
        carriers = [Carrier(store, place.engine) for _ in range(2)]
        for _ in range(30):
            await asyncio.gather(*(place.track("ann", 1) for _ in range(10)))
            await asyncio.gather(*(carrier.turn(asyncio.Event(), 1) for carrier in carriers))
        await caught_up(place)
        assert sum(carrier.conflicts for carrier in carriers) > 0
        assert (await audit(place.engine, store)).differences == []

    check(valkey, store, scene)


def test_a_hold_nobody_settles_is_released_in_both_stores(valkey: Any, store: Store) -> None:
    """Within 2 s of its end, nobody calling; also of a customer whose state has left Redis."""

    async def scene(place: World) -> None:
        cids = [await place.create(name, ("messages", lifetime(1, 100))) for name in ("ann", "bob")]
        await place.hold("ann", 7, "a")
        await place.hold("bob", 9, "b")
        await caught_up(place)
        p = place.engine.partition_of("bob")
        assert await place.engine.evict("bob", *(await store.read(partitions.cursors))[p])
        async with Running(place):
            await until(lambda: synced(place))
            assert [logs.bucket(store, cid).held for cid in cids] == [7, 9]
            await place.engine.move_clock(await store.write(settings_kv.move_clock, 61_000))

            async def released() -> bool:
                return [logs.bucket(store, cid).balance for cid in cids] == [100, 100]

            assert await until(released, 5) < 2
        for lock_id in ("a", "b"):
            found = await store.read(holds.by_lock, lock_id)
            assert found is not None and (found.status, found.final) == ("expired", 0)
        assert [logs.bucket(store, cid).held for cid in cids] == [0, 0]
        assert (await audit(place.engine, store)).differences == []

    check(valkey, store, scene, test_clock=True)


def test_what_is_used_up_or_over_leaves_without_a_call(valkey: Any, store: Store) -> None:
    async def scene(place: World) -> None:
        now_ms = await place.engine.now_ms()
        cid = await place.create(
            "ann", *(("words", lifetime(no, 10)) for no in range(1, 8)),
            ("messages", lifetime(9, 5, expires_at=now_ms + 1000)),
        )
        await place.track("ann", 70, "words")

        async def gone() -> bool:
            rows = [logs.bucket(store, cid, no) for no in (1, 2, 3, 4, 9)]
            return all(rows) and [one.archived for one in rows[:4]] == [True] * 3 + [False] and rows[4].removed_at

        async with Running(place):
            await until(gone)
            await until(lambda: synced(place))
        assert (await audit(place.engine, store)).differences == []

    check(valkey, store, scene)
