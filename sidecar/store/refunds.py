"""How much of an event was given back already."""

from __future__ import annotations

from sqlalchemy import Connection, select

from .tables import refunds


def returned(conn: Connection, cid: int, gen: int, seq: int) -> bytes | None:
    """What was returned of the event in that log entry, packed as scripts keep it (units per
    feature of the event); None if nothing was."""
    query = select(refunds.c.returned).where(refunds.c.cid == cid, refunds.c.gen == gen, refunds.c.seq == seq)
    found = conn.execute(query).scalar_one_or_none()
    return None if found is None else bytes(found)
