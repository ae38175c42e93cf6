"""Calls that SQL decides, once under a key: docs/balances.md, "Idempotency".

The record is written in the transaction that decides, so it is there exactly when the call was done,
and then kept in Redis too, where a check or track under the same key looks. Until the decision is made
a place in Redis, for a minute at most, keeps others off the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Awaitable, Callable

import msgpack
from sqlalchemy import Connection, delete, insert

from ..domain import receipt
from ..domain.receipt import Receipt
from ..engine import keys, scripts
from ..engine.errors import EngineError
from ..errors import ApiError, not_found
from ..store import customers, idempotency, partitions
from ..store.tables import idempotency as table

if TYPE_CHECKING:
    from ..api.endpoint import Context

ATTEMPTS_MAX = 5


class Replayed(Exception):
    """The call was made before; `answer` is what it got."""

    def __init__(self, answer: Any):
        super().__init__()
        self.answer = answer


class Once:
    """A call under a key that answers `answer`. `write` belongs into the transaction that decides it."""

    def __init__(self, ctx: Context, customer_id: str, key: str, fingerprint: bytes, answer: Any):
        self._ctx = ctx
        self._customer_id = customer_id
        self._p = ctx.engine.partition_of(customer_id)
        self._digest = idempotency.digest(customer_id, key)
        self._fingerprint = fingerprint
        self._answer = answer
        self._cid = 0
        self._record = b""

    def write(self, conn: Connection, cid: int, now_ms: int) -> None:
        """Keeps the record with what the transaction does. Raises Replayed, and ApiError 409 for
        another call under the key."""
        found = idempotency.find(conn, cid, self._digest)
        if found is not None:
            self._record = found
            self._compare(found, now_ms)
        end_ms = now_ms + self._ctx.settings.idempotency_ttl_s * 1000
        self._record = receipt.pack(Receipt(end_ms, cid, self._fingerprint, msgpack.packb(self._answer)))
        conn.execute(delete(table).where(table.c.cid == cid, table.c.digest == self._digest))
        conn.execute(insert(table).values(
            cid=cid, digest=self._digest, p=self._p, gen=0, seq=0, expires_at=end_ms, record=self._record,
        ))

    async def unwrite(self) -> None:
        """Takes the record back: what was decided turned out not to be possible."""
        await self._ctx.store.write(_forget, self._cid, self._digest)

    async def take(self) -> None:
        """Takes the key's place in Redis. Raises Replayed, ApiError (404 `customer_not_found`, 409,
        503 `idempotency_full`) and the engine's errors."""
        store = self._ctx.store
        customer = await store.read(customers.by_id, self._customer_id)
        if customer is None:
            raise not_found("customer", self._customer_id)
        self._cid, looked_up = customer.cid, ""
        for attempt in range(ATTEMPTS_MAX):
            code, *rest = await self._run("take", looked_up)
            if code == b"OK":
                return
            if code == b"REPLAY":
                if rest[1]:
                    raise Replayed(msgpack.unpackb(rest[1]))
                return  # the same call is under way: SQL lets one of us through
            if code == b"CONFLICT":
                raise _conflict()
            if code == b"FULL":
                raise ApiError(
                    503, "idempotency_full",
                    "no room to remember another Idempotency-Key; see SIDECAR_IDEMPOTENCY_BYTES_MAX", {"Retry-After": "60"},
                )
            if attempt:
                await self._ctx.engine.verify(self._p)
            looked_up, found = await store.read(_look_up, self._p, self._cid, self._digest)
            if found is not None:
                self._compare(found, await self._ctx.engine.now_ms())
        raise ApiError(503, "unavailable", "not done, nothing changed: the key could not be looked up", {"Retry-After": "1"})

    async def keep(self) -> None:
        """Keeps the record in Redis too; SQL has it whatever happens."""
        try:
            await self._run("keep")
        except EngineError:
            pass  # the place there ends by itself, and a repeat finds the record in SQL

    async def free(self) -> None:
        """Gives the place up."""
        try:
            await self._run("free")
        except EngineError:
            pass

    async def _run(self, action: str, looked_up: str = "") -> Any:
        settings = self._ctx.settings
        return await self._ctx.engine.run(
            scripts.KEEP, self._p, (keys.meta(self._p), keys.record(self._p, self._digest)),
            (
                action, self._cid, self._fingerprint, settings.idempotency_ttl_s * 1000, looked_up,
                settings.idempotency_bytes_max // settings.partitions, self._record if action == "keep" else b"",
            ),
        )

    def _compare(self, packed: bytes, now_ms: int) -> None:
        record = receipt.unpack(packed)
        if record.end_ms > now_ms:
            if record.fingerprint != self._fingerprint:
                raise _conflict()
            raise Replayed(msgpack.unpackb(record.reply))


async def done_once(once: Once | None, do: Callable[[Once | None], Awaitable[None]]) -> Any:
    """Does it, unless it was done before under its key; then raises Replayed. A call that is refused
    leaves its key free."""
    if once is None:
        return await do(None)
    await once.take()
    try:
        await do(once)
    except Replayed:
        await once.keep()
        raise
    except ApiError as error:
        if error.code != "outcome_unknown":
            await once.free()
        raise
    await once.keep()


def _conflict() -> ApiError:
    return ApiError(409, "duplicate_idempotency_key", "Idempotency-Key: was used for another call of this customer")


def _forget(conn: Connection, cid: int, digest: bytes) -> None:
    conn.execute(delete(table).where(table.c.cid == cid, table.c.digest == digest))


def _look_up(conn: Connection, p: int, cid: int, digest: bytes) -> tuple[str, bytes | None]:
    """What SQL has under a key, and the snapshot it was looked for in."""
    generation, cursor = partitions.places(conn, [p])[p]
    return f"{generation} {cursor.gen} {cursor.seq}", idempotency.find(conn, cid, digest)
