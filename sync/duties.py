"""What the worker does beside carrying the log: it opens partitions, brings decided steps to Redis,
resets the buckets of idle customers, ends holds nobody settled, takes out of the hot state what is
used up, and forgets expired idempotency records.

Each duty is one pass; all are safe to run twice at once.
"""

from __future__ import annotations

import asyncio
import time
from typing import Awaitable, Callable, Hashable, Iterable

import structlog

from sidecar.engine import keys
from sidecar.engine.many import send_all
from sidecar.engine.engine import Engine
from sidecar.engine.holds import expire_hold
from sidecar.store import buckets, customers, holds, idempotency, outbox, partitions
from sidecar.store.db import Store

from . import tidy

log = structlog.get_logger()
STEP_AGE_MS = 1000
"""A step younger than this is still its request's to bring to Redis."""
CONCURRENCY = 16
PAGE = 500
HOLDS_PER_PARTITION = 100
HOLD_AGE_MS = 500
"""A hold that ended this recently is for those who look in Redis, and may be on its way to SQL."""
AGAIN_S = 1.0
TIDIED_AGAIN_S = 30.0
"""How long a customer is left alone after a step that may have found nothing to do."""


class Recently:
    """Remembers for a while what was just done, because SQL shows it only after the log has come
    round."""

    def __init__(self, seconds: float = AGAIN_S):
        self._seconds = seconds
        self._until: dict[Hashable, float] = {}

    def first(self, key: Hashable) -> bool:
        """Whether `key` is due, and from now on was done."""
        now = time.monotonic()
        if self._until.get(key, 0.0) > now:
            return False
        if len(self._until) > 100_000:
            self._until = {k: until for k, until in self._until.items() if until > now}
        self._until[key] = now + self._seconds
        return True

    def forget(self, key: Hashable) -> None:
        """Makes `key` due again."""
        self._until.pop(key, None)


class Duties:
    """The worker's duties on one engine."""

    def __init__(self, engine: Engine, store: Store, partition_count: int):
        self._engine = engine
        self._store = store
        self._count = partition_count
        self._projected = Recently()
        self._touched = Recently()
        self._ended = Recently()
        self._tidied = Recently(TIDIED_AGAIN_S)
        self._tidy_after = 0

    async def open_partitions(self) -> None:
        """Opens every partition that is closed, so that the first call after a restart finds it
        open."""
        await self._engine.open_partitions(range(self._count))

    async def project_steps(self) -> int:
        """Brings steps to Redis that the request which decided them did not; how many customers."""
        before_ms = await self._engine.now_ms() - STEP_AGE_MS
        found = await self._store.read(outbox.pending, before_ms)
        due = [one for one in found if self._projected.first(one.cid)]
        await self._each((lambda one=one: self._engine.project(one.customer_id, one.cid)) for one in due)
        return len(due)

    async def reset_due(self) -> int:
        """Resets the due buckets of customers nobody calls for; how many customers. The reset is
        the script's, which does nothing when somebody else was first."""
        now_ms = await self._engine.now_ms()
        after: buckets.Due | None = None
        touched = 0
        while True:
            page = await self._store.read(buckets.due, now_ms, after, PAGE)
            names = {due.customer_id for due in page if self._touched.first((due.cid, due.next_reset_at))}
            await self._each((lambda name=name: self._engine.touch(name)) for name in names)
            touched += len(names)
            if len(page) < PAGE:
                return touched
            after = page[-1]

    async def expire_holds(self) -> int:
        """Ends the open holds past their end of the customers in Redis; how many. What a hold has
        goes back once: a caller who settles it meanwhile was first."""
        now_ms = await self._engine.now_ms()
        found = await send_all(await self._engine.connected(), [
            ("ZRANGEBYSCORE", keys.holds(p), "-inf", now_ms, "LIMIT", 0, HOLDS_PER_PARTITION) for p in range(self._count)
        ])
        due = [member.decode().split("\0", 1) for members in found for member in members]
        await self._each((lambda one=one: expire_hold(self._engine, *one)) for one in due)
        return len(due)

    async def expire_left_holds(self) -> int:
        """As `expire_holds`, by SQL: of customers whose state is not in Redis; how many."""
        due = await self._store.read(holds.due, await self._engine.now_ms() - HOLD_AGE_MS)
        first = [one for one in due if self._ended.first(one)]
        await self._each((lambda one=one: expire_hold(self._engine, *one)) for one in first)
        return len(first)

    async def archive_used_up(self) -> int:
        """Takes used-up buckets of the next customers out of the hot state; of how many."""
        page = await self._store.read(tidy.used_up, self._tidy_after)
        self._tidy_after = page.after_cid
        return await self._decide(page.ops)

    async def drop_expired(self) -> int:
        """Takes buckets past their end out; of how many customers."""
        return await self._decide(await self._store.read(tidy.expired, await self._engine.now_ms()))

    async def _decide(self, ops: dict[int, list[tidy.Op]]) -> int:
        now_ms = await self._engine.now_ms()
        done = 0
        for cid, theirs in ops.items():
            if not self._tidied.first((cid, str(theirs))):
                continue
            name = await self._store.write(tidy.decide, cid, theirs, now_ms)
            if name is None:
                self._tidied.forget((cid, str(theirs)))
                continue
            await self._engine.project(name, cid)
            done += 1
        return done

    async def sweep_deleted(self) -> int:
        """Takes out of Redis what deleted customers left behind there, once SQL has their
        deletion; how many."""
        found = await self._store.read(customers.left_behind)
        places = await self._store.read(partitions.places, {one.p for one in found}) if found else {}
        gone = [one.cid for one in found if await self._engine.evict(one.id, *places[one.p].cursor, one.cid)]
        if gone:
            await self._store.write(customers.mark_gone, gone)
        return len(gone)

    async def forget_keys(self) -> int:
        """Deletes idempotency records past their end; how many."""
        now_ms = await self._engine.now_ms()
        total = 0
        while True:
            gone = await self._store.write(idempotency.delete_expired, now_ms, PAGE)
            total += gone
            if gone < PAGE:
                return total
            await asyncio.sleep(0.05)

    async def _each(self, calls: Iterable[Callable[[], Awaitable[object]]]) -> None:
        """Makes the calls, CONCURRENCY at a time. One that fails does not keep the others from
        being made; the first failure is raised at the end."""
        room = asyncio.Semaphore(CONCURRENCY)

        async def one(call: Callable[[], Awaitable[object]]) -> None:
            async with room:
                await call()

        results = await asyncio.gather(*(one(call) for call in calls), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
