"""Counters of usage-limit windows, as scripts have them."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, select

from .tables import windows


class Window(NamedTuple):
    """What a usage-limit window has counted. `interval` is its code, `anchor` 0 for the billing
    cycle and 1 for UTC; `entity_id` '' for the customer with all its entities."""

    feature_id: str
    entity_id: str
    interval: int
    anchor: int
    start: int
    end: int
    used: int


def of(conn: Connection, cid: int) -> list[Window]:
    """A customer's window counters, its entities' own included."""
    columns = [windows.c[name] for name in Window._fields]
    query = select(*columns).where(windows.c.cid == cid)
    return [Window(*row) for row in conn.execute(query.order_by(*columns[:4]))]
