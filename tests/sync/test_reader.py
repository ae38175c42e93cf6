"""The log is read a batch at a time, in the order of each partition, never more than fits."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, Awaitable, Callable

import pytest
from sqlalchemy import update

from sidecar.store import partitions, tables
from sidecar.store.db import Store
from sidecar.store.partitions import Cursor
from sync.carry import Carrier
from sync.reader import Reader

from .world import PARTITIONS, World, lifetime, world


def check(valkey: Any, store: Store, scene: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with world(valkey, store) as place:
            await scene(place)

    asyncio.run(main())


def test_every_entry_comes_once_in_order_and_no_more_at_a_time_than_asked(valkey: Any, store: Store) -> None:
    async def scene(place: World) -> None:
        for n in range(6):
            await place.create(f"c{n}", ("messages", lifetime(1, 1000)))
            for _ in range(20 * n):
                await place.track(f"c{n}", 1)
        reader, places = Reader(place.engine), await store.read(partitions.places)
        found: dict[int, list[tuple[int, int]]] = defaultdict(list)
        while busy := await reader.busy(places, 1):
            while busy:
                portion = await reader.read(places, busy, 40)
                assert portion.ps == busy[: len(portion.ps)] and not portion.closed and not portion.behind
                assert 1 <= len(portion.entries) <= 40 and {entry.p for entry in portion.entries} == set(portion.ps)
                busy = busy[len(portion.ps) :]
                for entry in portion.entries:
                    found[entry.p].append((entry.gen, entry.seq))
                    places[entry.p] = places[entry.p]._replace(cursor=Cursor(entry.gen, entry.seq))
        assert all(ids == [(1, seq) for seq in range(len(ids))] for ids in found.values())
        opened = len(found)
        assert sum(len(ids) for ids in found.values()) == opened + 6 + 20 * 15

    check(valkey, store, scene)


def test_a_partition_busier_than_the_others_is_carried_as_far(valkey: Any, store: Store) -> None:
    """One look at the log takes what there is of it, however many others have a little."""
    async def scene(place: World) -> None:
        names = [f"c{n}" for n in range(40)]
        for name in names:
            await place.create(name, ("messages", lifetime(1, 10**6)))
        carrier, stop = Carrier(store, place.engine), asyncio.Event()
        for _ in range(3):
            while await carrier.turn(stop, 1):
                pass
            for name in names:
                await place.track(name, 1)
            for _ in range(600):
                await place.track("c0", 1)
            assert await carrier.turn(stop, 1) == 640

    check(valkey, store, scene)


def test_a_refused_partition_stops_alone_though_all_are_read_without_asking(valkey: Any, store: Store) -> None:
    """It has nothing to read, but a turn after one in which the others had looks at it too."""
    async def scene(place: World) -> None:
        names = dict[int, str]()
        for n in range(1000):
            names.setdefault(place.engine.partition_of(f"c{n}"), f"c{n}")
        assert len(names) == PARTITIONS
        for name in names.values():
            await place.create(name, ("messages", lifetime(1, 10**6)))
        carrier, stop = Carrier(store, place.engine), asyncio.Event()
        while await carrier.turn(stop, 1):
            pass
        refused = PARTITIONS - 1
        store.write_sync(lambda conn: conn.execute(
            update(tables.partitions).where(tables.partitions.c.p == refused).values(generation=tables.partitions.c.generation - 1)
        ))
        carrier = Carrier(store, place.engine)
        others = [name for p, name in names.items() if p != refused]
        carried = 0
        for turn in range(1, 5):
            for name in others:
                await place.track(name, 1)
            carried += await carrier.turn(stop, 1)
            if refused in carrier.stopped:
                break
        assert "SQL was rolled back" in carrier.stopped[refused]
        for later in range(turn + 1, turn + 4):
            for name in others:
                await place.track(name, 1)
            carried += await carrier.turn(stop, 1)
            assert carried == len(others) * later

    check(valkey, store, scene)


def test_a_turn_says_whether_it_left_some(valkey: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the worker goes on at once, however little it carried."""
    monkeypatch.setattr("sync.apply.BATCH_MAX", 20)
    monkeypatch.setattr("sync.apply.BATCH_MAX_POSTGRES", 20)

    async def scene(place: World) -> None:
        await place.create("c", ("messages", lifetime(1, 10**6)))
        carrier, stop = Carrier(store, place.engine), asyncio.Event()
        while await carrier.turn(stop, 1):
            pass
        assert not carrier.left_some
        for _ in range(70):
            await place.track("c", 1)
        carried = [await carrier.turn(stop, 1)]
        while carrier.left_some:
            carried.append(await carrier.turn(stop, 1))
        assert len(carried) > 1 and sum(carried) == 70

    check(valkey, store, scene)
