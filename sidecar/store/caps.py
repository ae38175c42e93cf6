"""Caps in force, as scripts have them."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, select

from .tables import caps


class Caps(NamedTuple):
    """What limits a feature's use, packed as scripts read it; `entity_id` '' for the customer's."""

    feature_id: str
    entity_id: str
    data: bytes


def of(conn: Connection, cid: int) -> list[Caps]:
    """A customer's caps, its entities' own included."""
    query = select(caps.c.feature_id, caps.c.entity_id, caps.c.data).where(caps.c.cid == cid)
    rows = conn.execute(query.order_by(caps.c.feature_id, caps.c.entity_id))
    return [Caps(feature_id, entity_id, bytes(data)) for feature_id, entity_id, data in rows]
