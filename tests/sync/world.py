"""An engine on real stores with customers to spend, as an HTTP worker would drive it."""

from __future__ import annotations

import contextlib
from decimal import Decimal
from typing import Any, AsyncIterator

import msgpack
from sqlalchemy import Connection, insert

from sidecar.catalog.model import Feature
from sidecar.catalog.snapshot import Catalog
from sidecar.clock import Clock
from sidecar.domain.layout import PER_ENTITY, Row
from sidecar.engine import holds, scripts, spend
from sidecar.engine.call import Lock, Spend
from sidecar.engine.engine import Engine
from sidecar.settings import Settings
from sidecar.store import customers, outbox, partitions, settings_kv, tables
from sidecar.store.db import Store
from sync.carry import Carrier

from . import logs

PARTITIONS = 8
FEATURES = {
    "messages": Feature("messages", "Messages", "single_use", 0, None, (), (), False, 0),
    "words": Feature("words", "Words", "single_use", 0, None, (), (), False, 0),
    "seats": Feature("seats", "Seats", "continuous_use", 0, None, (), (), False, 0),
    "credits": Feature("credits", "Credits", "credit_system", 2, None, (("messages", Decimal("0.01")),), (), False, 0),
}


class World:
    """One engine, and the calls of tests on it."""

    def __init__(self, settings: Settings, store: Store, engine: Engine):
        self.settings, self.store, self.engine = settings, store, engine
        self.catalog = Catalog.of(1, FEATURES.values(), [])

    async def decide(self, cid: int, *ops: list[Any]) -> None:
        """One step, in SQL alone."""

        def write(conn: Connection) -> None:
            version = customers.take_version(conn, cid).version
            outbox.append(conn, cid, version, list(ops), logs.AT)

        await self.store.write(write)

    async def create(self, name: str, *grants: tuple[str, Row], project: bool = True) -> int:
        """A customer with these buckets, granted by its first step."""
        p = self.engine.partition_of(name)
        now_ms = await self.engine.now_ms()
        cid = (await self.store.write(customers.create, name, p, now_ms))[0].cid
        await self.decide(cid, *(["add", feature_id, list(row), [], 0, 1] for feature_id, row in grants))
        if project:
            await self.engine.project(name)
        return cid

    async def open_entity(self, name: str, cid: int, entity_id: str) -> bool:
        """An entity of `seats`; whether there was room."""
        values = {"cid": cid, "id": entity_id, "feature_id": "seats", "status": "pending", "applied": False, "created_at": 0}
        await self.store.write(lambda c: c.execute(insert(tables.entities), values))
        await self.decide(cid, ["entity", entity_id, "seats", 1, 1])
        return not any(step.refused for step in await self.engine.project(name) or ())

    async def track(self, name: str, amount: int, feature: str = "messages", entity_id: str = "", key: str = "") -> spend.Result:
        """A track in cap mode."""
        info: dict[str, Any] = {"v": str(amount), "s": "track", "p": {"n": 1}}
        if key:
            info["k"] = key
        return await spend.run(self.engine, self.catalog, Spend(
            scripts.TRACK, name, entity_id, ((FEATURES[feature], amount),), "cap", msgpack.packb(info), key,
            b"fingerprint" if key else b"",
        ))


    async def hold(self, name: str, amount: int, lock_id: str, feature: str = "messages", entity_id: str = "") -> spend.Result:
        """A check with a lock, for a minute."""
        ends_at = await self.engine.now_ms() + 60_000
        return await holds.hold(self.engine, self.catalog, Spend(
            scripts.HOLD, name, entity_id, ((FEATURES[feature], amount),), "send",
            msgpack.packb({"v": str(amount), "l": lock_id}), lock=Lock(lock_id, ends_at),
        ))


@contextlib.asynccontextmanager
async def world(valkey: Any, store: Store, **settings: Any) -> AsyncIterator[World]:
    """An engine on these stores, started and closed."""
    chosen = Settings(redis_url=valkey.url, database_url=store.url, partitions=PARTITIONS, **settings)

    async def read_offset() -> int:
        return await store.read(settings_kv.clock_offset_ms)

    await store.write(partitions.ensure, PARTITIONS)
    engine = Engine(chosen, store, Clock(read_offset if chosen.test_clock else None))
    await engine.start()
    try:
        yield World(chosen, store, engine)
    finally:
        await engine.close()


async def caught_up(place: World) -> None:
    """Carries the log until SQL has all of it."""
    import asyncio

    carrier = Carrier(place.store, place.engine)
    while await carrier.turn(asyncio.Event(), 1):
        pass


def lifetime(no: int, units: int, **values: Any) -> Row:
    """A bucket that never resets."""
    return logs.row(no, units, units)._replace(**({"next_reset_at": 0, "interval": 0, "plan_id": ""} | values))


def monthly(no: int, units: int, **values: Any) -> Row:
    """A bucket of which many periods have passed since its anchor: due at its next one."""
    return logs.row(no, units, units)._replace(**values)


def per_seat(no: int, units: int) -> Row:
    """A grant of so many units to every seat."""
    return lifetime(no, units, balance=0, flags=PER_ENTITY, entity_feature="seats")
