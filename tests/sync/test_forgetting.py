"""What leaves Redis when SQL is ahead of it takes its open holds along, and brings them back."""

from __future__ import annotations

import asyncio
from typing import Any

from sidecar.engine import keys
from sidecar.store.db import Store
from sync.audit import audit

from .world import World, caught_up, lifetime, world


def test_the_holds_of_a_customer_that_redis_lost_an_entry_of_are_sqls(valkey: Any, store: Store) -> None:
    async def scene() -> None:
        async with world(valkey, store) as place:
            await place.create("ann", ("messages", lifetime(1, 100)))
            p = place.engine.partition_of("ann")
            await place.hold("ann", 5, "lock")
            log = await place.engine.redis.dump(keys.log(p))
            await place.track("ann", 1)
            await caught_up(place)
            await place.engine.redis.restore(keys.log(p), 0, log, replace=True)
            await place.engine.redis.hset(keys.meta(p), "run", "")
        async with world(valkey, store) as place:  # by another process
            await _opened_without_holds(place, p)
            state = await place.engine.view("ann")
            assert state is not None and set(state.holds) == {"lock"} and state.features["messages"][0].held == 5
            assert (await audit(place.engine, store)).differences == []

    asyncio.run(scene())


async def _opened_without_holds(place: World, p: int) -> None:
    await place.engine.open_partitions([p])
    for key in (keys.customer(p, "ann"), keys.locks(p, "ann"), keys.holds(p)):
        assert not await place.engine.redis.exists(key), key
