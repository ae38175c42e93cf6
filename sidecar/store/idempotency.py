"""Idempotency records in SQL: what Redis is filled from after it lost its own."""

from __future__ import annotations

from hashlib import blake2b
from typing import Iterable

from sqlalchemy import Connection, delete, select, tuple_

from .tables import idempotency


def digest(customer_id: str, key: str) -> bytes:
    """The 16 bytes under which a customer's key is kept in both stores."""
    return blake2b(f"{customer_id}\0{key}".encode(), digest_size=16).digest()


def find(conn: Connection, cid: int, key_digest: bytes) -> bytes | None:
    """The packed record of a key, also one past its end (it carries its end itself)."""
    found = conn.execute(
        select(idempotency.c.record).where(idempotency.c.cid == cid, idempotency.c.digest == key_digest)
    ).scalar_one_or_none()
    return None if found is None else bytes(found)


def find_with_entry(conn: Connection, cid: int, key_digest: bytes) -> tuple[int, int, bytes] | None:
    """(gen, seq, record) of a key: the log entry that made it, and the packed record."""
    found = conn.execute(
        select(idempotency.c.gen, idempotency.c.seq, idempotency.c.record)
        .where(idempotency.c.cid == cid, idempotency.c.digest == key_digest)
    ).one_or_none()
    return None if found is None else (found[0], found[1], bytes(found[2]))


def live_of(conn: Connection, cids: Iterable[int], now_ms: int) -> list[tuple[int, bytes, int, bytes]]:
    """(cid, digest, end in ms, record) of every record of these customers that has not ended."""
    columns = (idempotency.c.cid, idempotency.c.digest, idempotency.c.expires_at, idempotency.c.record)
    rows = conn.execute(
        select(*columns).where(idempotency.c.cid.in_(list(cids)), idempotency.c.expires_at > now_ms)
    )
    return [(cid, bytes(key), end, bytes(record)) for cid, key, end, record in rows]


def delete_expired(conn: Connection, now_ms: int, limit: int = 1000) -> int:
    """Deletes records past their end, at most `limit`; how many went."""
    keys = (idempotency.c.cid, idempotency.c.digest)
    old = select(*keys).where(idempotency.c.expires_at <= now_ms).limit(limit)
    return conn.execute(delete(idempotency).where(tuple_(*keys).in_(old))).rowcount
