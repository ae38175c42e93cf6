"""Whose a lock id is: its directory entry, in the lock id's own partition.

The entry is claimed before the hold's script runs. A claim whose hold was never made is void after
a while; once a hold has ended, another may take its entry's place. Where the directory was lost,
SQL says whose hold a name stands for.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

import msgpack
from sqlalchemy import Connection as SqlConnection

from ..store import customers, holds, partitions
from . import keys, scripts
from .errors import EngineError, ReplyLost, StoreUnavailable

if TYPE_CHECKING:
    from .call import Lock
    from .engine import Engine

CLAIM_VOID_MS = 60_000
"""How long a claim counts whose hold is not there (yet)."""

KEPT_MS = 86_400_000
"""How long Redis remembers what became of a hold."""

ATTEMPTS_MAX = 10


class LockTaken(Exception):
    """Someone else has the lock id."""


class Owner(NamedTuple):
    """Whose hold it is, of what."""

    customer_id: str
    feature_id: str
    entity_id: str


class Kept(NamedTuple):
    """The newest hold of a name, as SQL has it."""

    customer_id: str
    feature_id: str
    entity_id: str
    status: str
    final: int


async def claim(engine: Engine, lock: Lock, mine: bytes) -> bytes:
    """Takes the lock id; what stood there before. Raises LockTaken, and the engine's errors."""
    at = engine.partition_of(lock.lock_id)
    claim_keys = (keys.meta(at), keys.lock(at, lock.lock_id))
    expected, looked_up = b"", ""
    for _ in range(ATTEMPTS_MAX):
        args = (mine, expected, lock.life_ms + KEPT_MS, looked_up)
        try:
            code, *rest = await engine.run(scripts.CLAIM, at, claim_keys, args)
        except ReplyLost:  # an entry that is this one's own tells whether it ran
            code, *rest = await engine.run(scripts.CLAIM, at, claim_keys, args)
        if code == b"OK" or (code == b"TAKEN" and rest[0] == mine):
            return expected
        if code == b"ASK":
            looked_up, found = await engine.store.read(in_sql, at, lock.lock_id)
            if found is not None and await _is_open(engine, found.customer_id, lock.lock_id):
                raise LockTaken
        else:
            expected = rest[0]
            if expected and await _is_live(engine, expected, lock):
                raise LockTaken
    raise StoreUnavailable(f"the lock id {lock.lock_id!r} is being claimed by others again and again")


async def _is_live(engine: Engine, entry: bytes, lock: Lock) -> bool:
    """Whether a claim stands: its hold is open, or may be about to be made."""
    customer_id, _feature_id, _entity_id, claimed_ms = msgpack.unpackb(entry)
    if await _is_open(engine, customer_id, lock.lock_id):
        return True
    if lock.claimed_ms - claimed_ms >= CLAIM_VOID_MS:
        return False
    p = engine.partition_of(customer_id)
    settled = await (await engine.connected()).call("GET", keys.settled(p, lock.lock_id))
    return settled is None or bool(msgpack.unpackb(settled)[3] != claimed_ms)


async def _is_open(engine: Engine, customer_id: str, lock_id: str) -> bool:
    """Whether a customer has that hold open: by its state, or by SQL where that is not in Redis."""
    p = engine.partition_of(customer_id)
    await engine.open_partitions([p])
    connection = await engine.connected()
    header, open_hold = await connection.call("HMGET", keys.customer(p, customer_id), "h", b"l:" + lock_id.encode())
    if header is not None:
        return open_hold is not None
    _, found = await engine.store.read(in_sql, p, lock_id)
    return found is not None and found.customer_id == customer_id and found.status == holds.OPEN


async def give_back(engine: Engine, lock_id: str, mine: bytes, before: bytes) -> None:
    """Puts back what stood in a claim's place. Should that fail, the claim is void after a while."""
    at = engine.partition_of(lock_id)
    with contextlib.suppress(EngineError):
        await engine.run(scripts.CLAIM, at, (keys.meta(at), keys.lock(at, lock_id)), (before, mine, KEPT_MS, ""))


async def owner_of(engine: Engine, lock_id: str) -> Owner | None:
    """Whose hold a name stands for: by the directory, else by SQL."""
    at = engine.partition_of(lock_id)
    await engine.open_partitions([at])
    entry = await (await engine.connected()).call("GET", keys.lock(at, lock_id))
    if entry:
        return Owner(*msgpack.unpackb(entry)[:3])
    _, found = await engine.store.read(in_sql, at, lock_id)
    return None if found is None else Owner(found.customer_id, found.feature_id, found.entity_id)


def in_sql(conn: SqlConnection, p: int, lock_id: str) -> tuple[str, Kept | None]:
    """The newest hold of that name of a live customer, and the snapshot it was looked for in."""
    generation, cursor = partitions.places(conn, [p])[p]
    snapshot = f"{generation} {cursor.gen} {cursor.seq}"
    found = holds.by_lock(conn, lock_id)
    customer = customers.by_cid(conn, found.cid) if found is not None else None
    if found is None or customer is None or customer.deleted_at is not None:
        return snapshot, None
    receipt = msgpack.unpackb(found.receipt, raw=True)
    entity_id, feature_id = receipt[3].decode(), receipt[4].decode()
    return snapshot, Kept(customer.id, feature_id, entity_id, found.status, found.final or 0)
