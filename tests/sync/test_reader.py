"""The log is read a batch at a time, in the order of each partition, never more than fits."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any, Awaitable, Callable

from sidecar.store import partitions
from sidecar.store.db import Store
from sidecar.store.partitions import Cursor
from sync.carry import Carrier
from sync.reader import Reader

from .world import World, lifetime, world


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
