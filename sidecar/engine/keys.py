"""Names of Redis keys and hash fields: the Python half (lua/include/keys.lua is the other).

    {pN}:meta              hash    generation, run_id, partition count, clock offset, eviction mark
    {pN}:log               stream  ids <generation>-<seq>, one field `d`: a record
    {pN}:c:<customer id>   hash    a customer's state
    {pN}:e:<customer id>   zset    its entities, <feature id> NUL <entity id>, by name
    {pN}:h:<customer id>   zset    its open holds, by their end
    {pN}:holds             zset    <customer id> NUL <lock id> of every open hold, by its end
    {pN}:i:<digest>        string  an idempotency record; has a TTL
    {pN}:s:<lock id>       string  what became of a hold of a customer here; has a TTL
    {pN}:lock:<lock id>    string  whose hold that is, in the lock id's own partition; has a TTL
    {p0}:opening           string  who is opening partitions; has a TTL

Every key of a partition carries its hash tag, so that one script call can touch them on any
cluster. All but those with a TTL are permanent. Fields of a state: `h` header, `b:<feature>`
buckets, `x:<feature> NUL <entity>` an entity's buckets and slots, `a:<feature>` entities with
buckets of their own, `e:<entity>` its feature, `n:<feature>` how many entities, `p` and `q`
features with per-entity grants and with entities' own buckets, `k:<feature>` caps and `w:<feature>`
counters of usage limits (`NUL <entity>` behind for an entity's own), `l:<lock id>` an open hold, `j` the steps refused last,
`r:<log entry>` how much of an event was given back.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from hashlib import blake2b

PERMANENT = (":meta", ":log", ":c:", ":e:", ":h:", ":holds")
"""What follows the hash tag in keys that may live without a TTL."""

OPENING = b"{p0}:opening"


def partition_of(customer_id: str, partitions: int) -> int:
    """The partition a customer belongs to."""
    return zlib.crc32(customer_id.encode()) % partitions


@lru_cache(maxsize=20_000)
def meta(p: int) -> bytes:
    """The key of a partition's meta."""
    return b"{p%d}:meta" % p


@lru_cache(maxsize=20_000)
def log(p: int) -> bytes:
    """The key of a partition's log."""
    return b"{p%d}:log" % p


def customer(p: int, customer_id: str) -> bytes:
    """The key of a customer's state."""
    return b"{p%d}:c:%b" % (p, customer_id.encode())


def entities(p: int, customer_id: str) -> bytes:
    """The key of a customer's entity ids."""
    return b"{p%d}:e:%b" % (p, customer_id.encode())


def locks(p: int, customer_id: str) -> bytes:
    """The key of a customer's open holds."""
    return b"{p%d}:h:%b" % (p, customer_id.encode())


def holds(p: int) -> bytes:
    """The key of a partition's open holds."""
    return b"{p%d}:holds" % p


def settled(p: int, lock_id: str) -> bytes:
    """The key of what became of a hold, in its customer's partition."""
    return b"{p%d}:s:%b" % (p, lock_id.encode())


def lock(p: int, lock_id: str) -> bytes:
    """The key of a lock id's directory entry, in the lock id's partition."""
    return b"{p%d}:lock:%b" % (p, lock_id.encode())


def digest(customer_id: str, idempotency_key: str) -> bytes:
    """What an idempotency record is filed under: 16 bytes."""
    return blake2b(b"%b\0%b" % (customer_id.encode(), idempotency_key.encode()), digest_size=16).digest()


def record(p: int, record_digest: bytes) -> bytes:
    """The key of an idempotency record."""
    return b"{p%d}:i:%b" % (p, record_digest)


def entity_field(feature_id: str, entity_id: str) -> bytes:
    """The field of an entity's own buckets and slots of a feature."""
    return b"x:%b\0%b" % (feature_id.encode(), entity_id.encode())


def event_id(p: int, gen: int, seq: int) -> str:
    """The id of the event in a log entry."""
    return f"evt_{p}_{gen}_{seq}"


def parse_event_id(text: str) -> tuple[int, int, int] | None:
    """(p, gen, seq) of an event id, or None if it is not one."""
    parts = text.split("_")
    if len(parts) != 4 or parts[0] != "evt" or not all(part.isdecimal() and len(part) < 20 for part in parts[1:]):
        return None
    return int(parts[1]), int(parts[2]), int(parts[3])


def of_customer(p: int, customer_id: str) -> tuple[bytes, bytes, bytes, bytes]:
    """What most scripts begin with: meta, customer, log and entities."""
    return meta(p), customer(p, customer_id), log(p), entities(p, customer_id)
