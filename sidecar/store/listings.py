"""Pages of what there is much of: customers, entities and events, each in a fixed order.

A page starts at an offset, or after the place where the page before ended; a place stays right while
rows come and go. Every function returns the rows and whether there are more.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence, TypeVar

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from .customers import Customer
from .events import Event
from .tables import customers, entities, events

T = TypeVar("T")
Place = tuple[int, ...]


class EventFilter(NamedTuple):
    """Which events of a customer: of these features (none: all), of one entity, sent in a range of
    time that holds both its ends."""

    feature_ids: tuple[str, ...] = ()
    entity_id: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None


def customers_page(
    conn: Connection, limit: int, before: Place | None = None, search: str | None = None
) -> tuple[list[Customer], bool]:
    """Live customers, newest first; a place is a customer's internal id."""
    query = select(customers).where(customers.c.deleted_at.is_(None), *_found(customers, ("id", "name", "email"), search))
    if before is not None:
        query = query.where(customers.c.cid < before[0])
    rows = conn.execute(query.order_by(customers.c.cid.desc()).limit(limit + 1))
    return _cut([Customer(**row._mapping) for row in rows], limit)


def entities_page(
    conn: Connection, limit: int, offset: int = 0, after: Place | None = None, cid: int | None = None,
    search: str | None = None,
) -> tuple[list[Mapping[str, Any]], bool]:
    """Open entities, of one customer or of all, oldest first, each row with its `customer_id`; a
    place is an entity's number."""
    query = (
        select(entities, customers.c.id.label("customer_id"))
        .join(customers, customers.c.cid == entities.c.cid)
        .where(entities.c.status == "active", customers.c.deleted_at.is_(None))
        .where(*_found(entities, ("id", "name"), search))
    )
    if cid is not None:
        query = query.where(entities.c.cid == cid)
    if after is not None:
        query = query.where(entities.c.uid > after[0])
    rows = conn.execute(query.order_by(entities.c.uid).limit(limit + 1).offset(offset)).mappings()
    return _cut(list(rows), limit)


def events_page(
    conn: Connection, cid: int, limit: int, offset: int = 0, before: Place | None = None,
    wanted: EventFilter = EventFilter(),
) -> tuple[list[Event], bool]:
    """A customer's event lines, newest first, those of one event in their order; see `event_place`."""
    query = select(events).where(events.c.cid == cid)
    if wanted.feature_ids:
        query = query.where(events.c.feature_id.in_(wanted.feature_ids))
    if wanted.entity_id is not None:
        query = query.where(events.c.entity_id == wanted.entity_id)
    if wanted.start_ms is not None:
        query = query.where(events.c.timestamp >= wanted.start_ms)
    if wanted.end_ms is not None:
        query = query.where(events.c.timestamp <= wanted.end_ms)
    entry = (events.c.recorded_at, events.c.gen, events.c.seq)
    if before is not None:
        query = query.where(_after_place(entry, before))
    query = query.order_by(*(column.desc() for column in entry), events.c.line)
    rows = conn.execute(query.limit(limit + 1).offset(offset))
    return _cut([Event(**row._mapping) for row in rows], limit)


def event_place(event: Event) -> Place:
    """Where a page that ends with this event line ends."""
    return event.recorded_at, event.gen, event.seq, event.line


def _after_place(entry: Sequence[ColumnElement[Any]], before: Place) -> ColumnElement[bool]:
    """What follows a line in an order that falls by entry and rises by line. A customer's entries
    are all of one partition."""
    recorded_at, gen, seq = entry
    same = and_(recorded_at == before[0], gen == before[1], seq == before[2], events.c.line > before[3])
    earlier = or_(gen < before[1], and_(gen == before[1], seq < before[2]))
    return and_(recorded_at <= before[0], or_(recorded_at < before[0], earlier, same))


def _found(table: Any, columns: Sequence[str], search: str | None) -> list[ColumnElement[bool]]:
    """The rows of which one of these columns has the text, whatever the case."""
    return [or_(*(table.c[name].icontains(search, autoescape=True) for name in columns))] if search else []


def _cut(rows: list[T], limit: int) -> tuple[list[T], bool]:
    return rows[:limit], len(rows) > limit
