"""The engine: scripts on customers' state in Redis, with partitions kept open and state loaded.

One connection to Redis a process, made again when it is lost; a call that was sent and got no reply
is never sent again here. It must not know about HTTP.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Iterable

import hiredis
import structlog
from redis.asyncio import Redis

from . import keys, loader, scripts
from .command import Packer
from .connection import Connection, connect, redis_scheme
from .errors import REFUSALS, EngineError, ReplyLost, StoreUnavailable
from .partitions import Partitions
from .state import CustomerState, decode_state

if TYPE_CHECKING:
    from ..clock import Clock
    from ..settings import Settings
    from ..store.db import Store

log = structlog.get_logger()
STALE_RETRIES_MAX = 5
RECONNECT_MIN_S, RECONNECT_MAX_S = 0.02, 1.0


class Engine:
    """Runs scripts. `start` before the first call, `close` after the last."""

    def __init__(self, settings: Settings, store: Store, clock: Clock):
        self.settings = settings
        self.store = store
        self._clock = clock
        self._partition_count = settings.partitions
        self.partitions = Partitions(settings, store, clock)
        self._url = settings.redis_address
        self._replicas = 1 if settings.durability == "replica" else 0
        self.carry_debts = int(settings.persist_free_overage)
        """What the scripts are told of debts at a reset."""
        self.packer = Packer(
            (self.carry_debts, settings.idempotency_ttl_s * 1000, settings.idempotency_bytes_max // settings.partitions)
        )
        self._connection: Connection | None = None
        self._connected = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self.last_error = "not connected yet"
        self.redis = Redis.from_url(redis_scheme(self._url), socket_timeout=10)
        """A client for tools: sync, audit, tests. Never on the path of check and track."""

    async def start(self) -> None:
        """Begins to connect; calls wait for it, each within its time-out."""
        self._keeper = asyncio.create_task(self._keep_connected())

    async def close(self) -> None:
        """Ends the connection. Calls without a reply get ReplyLost."""
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._connection:
            self._connection.close()
        await self.redis.aclose()

    # -- calls -----------------------------------------------------------------------------------

    def partition_of(self, customer_id: str) -> int:
        """The partition of a customer."""
        return keys.partition_of(customer_id, self._partition_count)

    async def now_ms(self) -> int:
        """Now, by the clock of the control plane."""
        return await self._clock.now_ms()

    @property
    def connection(self) -> Connection | None:
        """The connection that is up, if one is."""
        return self._connection if self._connection and not self._connection.closed else None

    async def connected(self) -> Connection:
        """The connection; waits for it as long as a call waits for Redis. Raises StoreUnavailable."""
        if connection := self.connection:
            return connection
        try:
            async with asyncio.timeout(self.settings.redis_timeout_ms / 1000):
                while not (connection := self.connection):
                    self._connected.clear()
                    await self._connected.wait()
                return connection
        except TimeoutError:
            raise StoreUnavailable(self.last_error) from None

    async def run(self, script: scripts.Script, p: int, script_keys: tuple[bytes, ...], args: tuple[Any, ...]) -> Any:
        """Runs a fenced script on a partition, opened first where it is closed: the answer, tag
        first. Raises StoreUnavailable, ReplyLost or PartitionRefused."""
        for _ in range(STALE_RETRIES_MAX):
            connection = await self.connected()
            generation = self.partitions.generation(p, connection.run_id)
            if generation is None:
                try:
                    await self.partitions.open(connection, [p])
                except (EngineError, asyncio.CancelledError):
                    raise
                except Exception as problem:
                    raise StoreUnavailable(f"the partition is closed and SQL does not answer: {problem}") from problem
                continue
            try:
                reply = await connection.script(script, script_keys, (generation, connection.run_id, *args))
            except hiredis.ReplyError as refusal:
                if str(refusal).startswith(REFUSALS):
                    raise StoreUnavailable(f"Redis takes no writes now: {refusal}") from refusal
                raise
            if reply[0] != b"STALE":
                return reply
            self.partitions.close(p, generation)
        raise StoreUnavailable(f"partition {p} was closed {STALE_RETRIES_MAX} times in a row")

    async def open_partitions(self, ps: Iterable[int]) -> None:
        """Opens those that are closed, or learns that someone did."""
        await self.partitions.open(await self.connected(), ps)

    async def project(self, customer_id: str, cid: int | None = None) -> list[loader.StepOutcome] | None:
        """See `loader.project`."""
        return await loader.project(self, customer_id, cid)

    async def view(self, customer_id: str) -> CustomerState | None:
        """A customer's live state after due resets, loaded if Redis does not hold it; None if
        there is no such customer."""
        p = self.partition_of(customer_id)
        for _ in range(loader.ATTEMPTS_MAX):
            code, *rest = await self.run(scripts.VIEW, p, keys.of_customer(p, customer_id), (self.carry_debts, 0))
            if code == b"OK":
                return decode_state(rest[0], rest[1])
            if await self.project(customer_id) is None:
                return None
        raise StoreUnavailable(f"customer {customer_id!r} could not be read")

    async def touch(self, customer_id: str) -> bool:
        """Does what is due for a customer (resets), loaded if need be; whether there is one."""
        p = self.partition_of(customer_id)
        for _ in range(loader.ATTEMPTS_MAX):
            code, *_rest = await self.run(scripts.VIEW, p, keys.of_customer(p, customer_id), (self.carry_debts, 1))
            if code == b"OK":
                return True
            if await self.project(customer_id) is None:
                return False
        raise StoreUnavailable(f"customer {customer_id!r} could not be read")

    async def verify(self, p: int) -> None:
        """Makes sure that a partition is open for its newest generation."""
        await self.partitions.verify(await self.connected(), p)

    async def evict(self, customer_id: str, cursor_gen: int, cursor_seq: int, cid: int = 0) -> bool:
        """Takes a customer (with `cid`, only that very one) out of Redis if SQL, at that cursor,
        has all of it; whether Redis has it no more."""
        p = self.partition_of(customer_id)
        evict_keys = (
            keys.meta(p), keys.customer(p, customer_id), keys.entities(p, customer_id), keys.locks(p, customer_id), keys.holds(p),
        )
        reply = await self.run(scripts.EVICT, p, evict_keys, (cursor_gen, cursor_seq, cid, customer_id))
        return bool(reply[0] != b"AHEAD")

    async def move_clock(self, offset_ms: int) -> None:
        """Sets the test clock's offset in every partition, forward only."""
        await self.open_partitions(range(self.settings.partitions))
        connection = await self.connected()
        await asyncio.gather(*(
            connection.script(scripts.CLOCK, (keys.meta(p),), (offset_ms,)) for p in range(self.settings.partitions)
        ))

    # -- the connection --------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        wait_s = RECONNECT_MIN_S
        while True:
            if self.connection is None:
                try:
                    self._connection = await connect(self._url, self.settings.redis_timeout_ms, self._replicas)
                    wait_s, self.last_error = RECONNECT_MIN_S, ""
                    self._connected.set()
                except (StoreUnavailable, ReplyLost) as problem:
                    self.last_error = str(problem)
                    log.warning("redis_unavailable", error=str(problem))
                    wait_s = min(wait_s * 2, RECONNECT_MAX_S)
            await asyncio.sleep(wait_s)

