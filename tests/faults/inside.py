"""The application in the test's own process, over real stores, with the pieces that a fault test
moves by hand: the log's entries into SQL, evictions, and what both stores hold of a customer.

Sync here is the product's `sync.apply` on entries read by the test, so that a test decides how far
SQL lags. Nothing stands in for Redis or SQL.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, AsyncIterator

import httpx
from sqlalchemy import Connection, func, select

import sync.apply
from sidecar import app as application
from sidecar.api.endpoint import Context
from sidecar.engine import keys, loader, scripts
from sidecar.engine.state import CustomerState, decode_state
from sidecar.settings import Settings
from sidecar.store import customers, partitions, tables
from sidecar.store.partitions import Place
from sync.reader import parse_entries
from sync.working import Entry

KEY = "am_sk_test_faults"
PARTITIONS = 8
GRANT_MONTH = 50
GRANT_LIFETIME = 1_000_000
BOOST = 7
TIGHT = 25
PRECISION = 10**6

FEATURES: list[dict[str, Any]] = [
    {"id": "messages", "name": "Messages", "type": "single_use"},
    {"id": "tight", "name": "Tight", "type": "single_use"},
    {"id": "basic", "name": "Basic", "type": "single_use"},
    {"id": "credits", "name": "Credits", "type": "credit_system",
     "credit_schema": [{"metered_feature_id": "basic", "credit_cost": 0.01}]},
]
PRODUCTS: list[dict[str, Any]] = [
    {"id": "free", "name": "Free", "is_default": True, "items": [
        {"feature_id": "messages", "included_usage": GRANT_MONTH, "interval": "month"},
        {"feature_id": "messages", "included_usage": GRANT_LIFETIME},
        {"feature_id": "tight", "included_usage": TIGHT},
        {"feature_id": "credits", "included_usage": GRANT_LIFETIME},
    ]},
    {"id": "boost", "name": "Boost", "is_add_on": True, "items": [
        {"feature_id": "messages", "included_usage": BOOST},
    ]},
]
"""A monthly and a lifetime bucket of messages, few units of `tight`, credits; and an add-on that
costs nothing, so that buying it is one call."""


def settings_for(redis_url: str, database_url: str, folder: Path, **more: Any) -> Settings:
    """Settings of a process that shares its stores with the test."""
    return Settings(
        data_dir=folder, redis_url=redis_url, database_url=database_url, secret_keys=(KEY,),
        partitions=more.pop("partitions", PARTITIONS), **more,
    )


@contextlib.asynccontextmanager
async def inside(settings: Settings) -> AsyncIterator[Inside]:
    """The application, started; ended with the block."""
    app = application.build(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://inside", headers=headers) as client:
            yield Inside(app.state.context, client)


@dataclass
class Inside:
    """A running application and both of its stores."""

    ctx: Context
    client: httpx.AsyncClient
    spent: dict[tuple[str, str], int] = field(default_factory=dict)
    """Scaled units that tracks through this object took, by (customer, feature)."""

    async def call(self, path: str, body: dict[str, Any], method: str = "POST") -> tuple[int, Any]:
        """A call's status and decoded answer."""
        answer = await self.client.request(method, path, json=body)
        return answer.status_code, json.loads(answer.text, parse_float=Decimal)

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        """The answer of a call that must succeed."""
        status, answer = await self.call(path, body)
        assert status == 200, (path, body, status, answer)
        return answer

    async def sell(self) -> None:
        """Creates the catalog above."""
        for feature in FEATURES:
            await self.post("/v1/features", feature)
        for product in PRODUCTS:
            await self.post("/v1/products", product)

    async def customer(self, customer_id: str) -> None:
        """Makes a customer."""
        await self.post("/v1/customers", {"id": customer_id})

    async def track(self, customer_id: str, value: int = 1, feature_id: str = "messages", **more: Any) -> Any:
        """Tracks, and remembers what was taken."""
        body = {"customer_id": customer_id, "feature_id": feature_id, "value": value, **more}
        answer = await self.post("/v1/track", body)
        key = (customer_id, feature_id)
        self.spent[key] = self.spent.get(key, 0) + value * PRECISION
        return answer

    def partition(self, customer_id: str) -> int:
        """The customer's partition."""
        return self.ctx.engine.partition_of(customer_id)

    # -- the log and SQL -------------------------------------------------------------------------

    async def place(self, p: int) -> Place:
        """How far SQL is, and under which generation."""
        return (await self.ctx.store.read(partitions.places, [p]))[p]

    async def unread(self, p: int, place: Place | None = None) -> list[Entry]:
        """Log entries that SQL, or whoever is at `place`, does not have; read by the worker's
        script, at once."""
        at = place or await self.place(p)
        connection = await self.ctx.engine.connected()
        args = (at.generation, connection.run_id, *at.cursor, 1000)
        code, *rest = await connection.script(scripts.READ, (keys.meta(p), keys.log(p)), args)
        if code == b"STALE":  # closed, or never opened
            await self.ctx.engine.verify(p)
            return await self.unread(p)
        assert code == b"OK", rest
        return list(parse_entries(p, rest[0]))

    async def sync(self, p: int, count: int = 1000) -> int:
        """Carries up to `count` entries of a partition into SQL; how many."""
        await self.unread(p)  # opens it if need be
        place = await self.place(p)
        entries = (await self.unread(p, place))[:count]
        if entries:
            await self.apply(entries, place)
        return len(entries)

    async def apply(self, entries: list[Entry], place: Place) -> None:
        """One transaction of the product's own."""
        now_ms = await self.ctx.clock.now_ms()
        applied = sync.apply.apply(self.ctx.store, entries, {entries[0].p: place}, now_ms)
        assert applied.rejected == (), applied.rejected

    async def sync_all(self) -> None:
        """Until SQL has everything."""
        for p in range(self.ctx.settings.partitions):
            while await self.sync(p):
                pass

    async def evict(self, customer_id: str) -> bool:
        """As the worker would, at SQL's cursor."""
        return await self.ctx.engine.evict(customer_id, *(await self.place(self.partition(customer_id))).cursor)

    # -- what the stores hold --------------------------------------------------------------------

    async def held(self, customer_id: str) -> dict[bytes, bytes]:
        """The customer's state in Redis as it is; empty if Redis does not hold it."""
        key = keys.customer(self.partition(customer_id), customer_id)
        return dict(await self.ctx.engine.redis.hgetall(key))

    async def state(self, customer_id: str) -> CustomerState | None:
        """As `held`, decoded."""
        fields = await self.held(customer_id)
        return decode_state(0, [part for pair in fields.items() for part in pair]) if fields else None

    async def balance(self, customer_id: str, feature_id: str = "messages") -> int | None:
        """The scaled balance in Redis, None if Redis does not hold the customer."""
        state = await self.state(customer_id)
        return None if state is None else sum(row.balance for row in state.features.get(feature_id, ()))

    async def differences(self, customer_id: str) -> list[str]:
        """Where Redis and SQL differ about a customer once SQL has everything (the header's log id
        apart, which a load sets to the partition's cursor)."""
        snapshot = await self.ctx.store.read(customers.load_snapshot, customer_id)
        assert snapshot is not None
        expected, found = loader.state_fields(snapshot), await self.held(customer_id)
        if not found:
            return []
        problems = [f"{customer_id}: step {step.version} is not applied" for step in snapshot.steps]
        state = await self.state(customer_id)
        assert state is not None
        wanted = decode_state(0, [part for pair in expected.items() for part in pair])
        for name in ("cid", "version", "features", "entities", "entity_features"):
            ours, theirs = getattr(wanted, name), getattr(state, name)
            if ours != theirs:
                problems.append(f"{customer_id}.{name}: SQL {ours}, Redis {theirs}")
        return problems

    async def ledger_sums(self, customer_id: str) -> tuple[int, int]:
        """(sum of ledger deltas, sum of live bucket balances) of a customer in SQL."""
        return await self.ctx.store.read(_sums, customer_id)

    async def assert_exact(self, *customer_ids: str) -> None:
        """After everything is synced: both stores say the same, SQL's ledger adds up, and what was
        taken is exactly what these tracks took."""
        await self.sync_all()
        for customer_id in customer_ids:
            assert await self.differences(customer_id) == []
            in_ledger, in_buckets = await self.ledger_sums(customer_id)
            assert in_ledger == in_buckets, customer_id
            taken = await self.ctx.store.read(_taken, customer_id)
            assert taken == {f: spent for (c, f), spent in self.spent.items() if c == customer_id}, customer_id


def _sums(conn: Connection, customer_id: str) -> tuple[int, int]:
    customer = customers.by_id(conn, customer_id)
    assert customer is not None
    ledger, buckets = tables.ledger.c, tables.buckets.c
    in_ledger = conn.execute(select(func.coalesce(func.sum(ledger.delta), 0)).where(ledger.cid == customer.cid)).scalar_one()
    in_buckets = conn.execute(
        select(func.coalesce(func.sum(buckets.balance), 0)).where(buckets.cid == customer.cid, buckets.removed_at.is_(None))
    ).scalar_one()
    return int(in_ledger), int(in_buckets)


def _taken(conn: Connection, customer_id: str) -> dict[str, int]:
    events = tables.events.c
    query = select(events.feature_id, func.sum(events.applied)).where(events.customer_id == customer_id)
    return {feature_id: int(total) for feature_id, total in conn.execute(query.group_by(events.feature_id))}
