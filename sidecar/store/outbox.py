"""Decided changes of structure that Redis has not confirmed: one step per structure version.

A step is written in the transaction that decides it and deleted by the one that applies its own
log record.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgpack
from sqlalchemy import Connection, insert, select

from .tables import customers, outbox


_BINARY = {"caps": 3}
"""Where an operation, by its name, has bytes."""


class Step(NamedTuple):
    """One step as kept: `data` is the packed form that the projection script takes."""

    version: int
    data: bytes


class Pending(NamedTuple):
    """A customer with steps that are not applied."""

    cid: int
    customer_id: str
    deleted: bool


def pack(version: int, at_ms: int, ops: list[list[Any]]) -> bytes:
    """The packed form of a step. Scripts know no binary type, so bytes are packed as texts."""
    return msgpack.packb({"v": version, "at": at_ms, "ops": ops}, use_bin_type=False)


def operations(step: Step) -> list[list[Any]]:
    """The operations of a step as they were packed, bytes as bytes."""
    ops: list[list[Any]] = msgpack.unpackb(step.data, unicode_errors="surrogateescape")["ops"]
    for op in ops:
        if at := _BINARY.get(op[0]):
            op[at] = op[at].encode(errors="surrogateescape")
    return ops


def append(conn: Connection, cid: int, version: int, ops: list[list[Any]], now_ms: int) -> Step:
    """Writes the step from `version` − 1 to `version`. The caller holds the customer's row lock
    and took the version with `customers.take_version`."""
    step = Step(version, pack(version, now_ms, ops))
    conn.execute(
        insert(outbox), {"cid": cid, "version": version, "step": step.data, "created_at": now_ms}
    )
    return step


def after(conn: Connection, cid: int, version: int) -> list[Step]:
    """The steps above a version, in order."""
    rows = conn.execute(
        select(outbox.c.version, outbox.c.step)
        .where(outbox.c.cid == cid, outbox.c.version > version)
        .order_by(outbox.c.version)
    )
    return [Step(version, bytes(data)) for version, data in rows]


def pending(conn: Connection, before_ms: int, limit: int = 1000) -> list[Pending]:
    """Customers whose structure is ahead of what was applied, the oldest such step created
    before `before_ms`; deleted customers too, for their deletion is a step."""
    rows = conn.execute(
        select(customers.c.cid, customers.c.id, customers.c.deleted_at)
        .join(outbox, (outbox.c.cid == customers.c.cid) & (outbox.c.version == customers.c.applied_version + 1))
        .where(customers.c.structure_version > customers.c.applied_version, outbox.c.created_at < before_ms)
        .order_by(customers.c.cid)
        .limit(limit)
    )
    return [Pending(cid, customer_id, deleted_at is not None) for cid, customer_id, deleted_at in rows]
