"""What callers call grants of their own making: a name for a bucket, unique for a customer."""

from __future__ import annotations

from sqlalchemy import Connection, select

from . import dialects
from .tables import balance_ids


def of(conn: Connection, cid: int) -> dict[str, int]:
    """The bucket each name was given to; that bucket may be gone, and its name free again."""
    rows = conn.execute(select(balance_ids.c.id, balance_ids.c.no).where(balance_ids.c.cid == cid))
    return {name: no for name, no in rows}


def give(conn: Connection, cid: int, name: str, no: int) -> None:
    """Gives a free name to a bucket."""
    conn.execute(dialects.upsert(conn, balance_ids).values(cid=cid, id=name, no=no))
