"""Customers: making, finding and listing them, and the snapshot that a load into Redis needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row as SqlRow, func, or_, select, update

from ..domain import layout
from . import caps, dialects, holds, outbox, windows
from .partitions import Cursor, places
from .tables import buckets, customers, entities, slots

BUCKET_COLUMNS = tuple(buckets.c[name] for name in layout.Row._fields)


@dataclass(frozen=True)
class Customer:
    """A row of `customers`. `id` is the caller's name; `cid` is ours and never used twice."""

    cid: int
    id: str
    p: int
    name: str | None
    email: str | None
    fingerprint: str | None
    stripe_id: str | None
    metadata: dict[str, Any]
    payment_method: Any
    created_at: int
    deleted_at: int | None
    structure_version: int
    applied_version: int
    next_bucket_no: int
    last_ms: int
    log_gen: int
    log_seq: int
    gone: bool
    billing_controls: Any
    next_roll_no: int


class VersionTaken(NamedTuple):
    """A structure version and the bucket numbers that belong to the step that makes it."""

    version: int
    first_bucket_no: int


@dataclass(frozen=True)
class Snapshot:
    """A customer at one moment of SQL: buckets as of `customer.applied_version`, the steps above
    it, and the log cursor of the partition at that same moment. What was given back of single
    events is not in it: it is loaded with the event."""

    customer: Customer
    generation: int
    cursor: Cursor
    rows: tuple[tuple[str, layout.Row], ...] = ()
    """(feature id, bucket), by bucket number, without those that left the hot state."""
    archived: tuple[tuple[str, str, layout.Archived], ...] = ()
    """(feature id, entity id, sums) of the buckets that did."""
    slots: tuple[tuple[str, layout.Slot], ...] = ()
    """(entity id, slot)."""
    entities: tuple[tuple[str, str], ...] = ()
    """(entity id, feature id) of the entities in Redis at `applied_version`."""
    caps: tuple[caps.Caps, ...] = ()
    windows: tuple[windows.Window, ...] = ()
    holds: tuple[holds.Hold, ...] = ()
    """The open ones."""
    steps: tuple[outbox.Step, ...] = ()

    def features(self) -> dict[str, list[layout.Row]]:
        """The buckets of each feature in spending order, entities' own included."""
        found: dict[str, list[layout.Row]] = {}
        for feature_id, row in self.rows:
            found.setdefault(feature_id, []).append(row)
        for rows in found.values():
            rows.sort(key=layout.spending_key)
        return found


def by_id(conn: Connection, customer_id: str) -> Customer | None:
    """The live customer of that name."""
    query = select(customers).where(customers.c.id == customer_id, customers.c.deleted_at.is_(None))
    return _customer(conn.execute(query).one_or_none())


def by_cid(conn: Connection, cid: int) -> Customer | None:
    """The customer of that internal id, deleted or not."""
    return _customer(conn.execute(select(customers).where(customers.c.cid == cid)).one_or_none())


def lock(conn: Connection, cid: int) -> Customer | None:
    """As `by_cid`, under the row's lock: nobody else decides about this customer's structure
    until the transaction ends."""
    query = select(customers).where(customers.c.cid == cid).with_for_update()
    return _customer(conn.execute(query).one_or_none())


def create(
    conn: Connection, customer_id: str, p: int, now_ms: int, *, name: str | None = None,
    email: str | None = None, fingerprint: str | None = None, stripe_id: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> tuple[Customer, bool]:
    """The live customer of that name and whether this call made it; two at once make one."""
    statement = dialects.insert(conn, customers).on_conflict_do_nothing(
        index_elements=[customers.c.id], index_where=customers.c.deleted_at.is_(None)
    ).returning(customers.c.cid)
    values = {
        "id": customer_id, "p": p, "name": name, "email": email, "fingerprint": fingerprint,
        "stripe_id": stripe_id, "metadata": metadata or {}, "created_at": now_ms, "last_ms": now_ms,
    }
    while True:
        made = conn.execute(statement.values(**values)).scalar_one_or_none()
        customer = by_id(conn, customer_id)
        if customer is not None:  # else the one in our way was deleted since
            return customer, made is not None


def take_version(conn: Connection, cid: int, bucket_count: int = 0) -> VersionTaken:
    """The next structure version of a customer and `bucket_count` new bucket numbers, under the
    row's lock until the transaction ends. Raises LookupError for an unknown or deleted one."""
    row = conn.execute(
        update(customers)
        .where(customers.c.cid == cid, customers.c.deleted_at.is_(None))
        .values(
            structure_version=customers.c.structure_version + 1,
            next_bucket_no=customers.c.next_bucket_no + bucket_count,
        )
        .returning(customers.c.structure_version, customers.c.next_bucket_no)
    ).one_or_none()
    if row is None:
        raise LookupError(f"customer {cid} does not exist")
    return VersionTaken(row[0], row[1] - bucket_count)


def change(conn: Connection, cid: int, **values: Any) -> None:
    """Sets plain columns (name, email, fingerprint, stripe_id, metadata, payment_method, id).
    Raises IntegrityError if a new id belongs to another live customer."""
    if values:
        conn.execute(update(customers).where(customers.c.cid == cid).values(**values))


def mark_deleted(conn: Connection, cid: int, now_ms: int) -> bool:
    """Frees the name at once; what belongs to the customer goes when its deletion step is
    applied. False if it was deleted already. Take the step's version before this."""
    result = conn.execute(
        update(customers)
        .where(customers.c.cid == cid, customers.c.deleted_at.is_(None))
        .values(deleted_at=now_ms)
    )
    return result.rowcount == 1


def page(
    conn: Connection, limit: int, offset: int = 0, search: str | None = None
) -> tuple[list[Customer], int]:
    """Live customers, newest first, and how many there are; `search` looks in id, name and
    email, whatever the case."""
    where = [customers.c.deleted_at.is_(None)]
    if search:
        where.append(or_(*(
            customers.c[name].icontains(search, autoescape=True) for name in ("id", "name", "email")
        )))
    total: int = conn.execute(select(func.count()).select_from(customers).where(*where)).scalar_one()
    query = select(customers).where(*where).order_by(customers.c.cid.desc()).limit(limit).offset(offset)
    return [Customer(**row._mapping) for row in conn.execute(query)], total


def load_snapshot(conn: Connection, customer_id: str, cid: int | None = None) -> Snapshot | None:
    """Everything that a load of the customer into Redis needs. `conn` must be a snapshot
    (`Store.read`), or cursor and buckets could be of different moments. The live customer of
    that name, or with `cid` that very one, deleted or not."""
    customer = by_id(conn, customer_id) if cid is None else by_cid(conn, cid)
    if customer is None:
        return None
    cid = customer.cid
    place = places(conn, [customer.p]).get(customer.p)
    if place is None:
        raise LookupError(f"partition {customer.p} does not exist")
    bucket_rows = conn.execute(
        select(buckets.c.feature_id, *BUCKET_COLUMNS)
        .where(buckets.c.cid == cid, buckets.c.removed_at.is_(None), buckets.c.archived.is_(False))
        .order_by(buckets.c.no)
    ).all()
    archived = conn.execute(
        select(
            buckets.c.feature_id, buckets.c.entity_id, func.count(), func.sum(buckets.c.granted),
            func.sum(buckets.c.prepaid),
        )
        .where(buckets.c.cid == cid, buckets.c.removed_at.is_(None), buckets.c.archived.is_(True))
        .group_by(buckets.c.feature_id, buckets.c.entity_id)
    ).all()
    slot_rows = conn.execute(
        select(slots.c.entity_id, *(slots.c[name] for name in layout.Slot._fields))
        .where(slots.c.cid == cid)
        .order_by(slots.c.no, slots.c.entity_id)
    ).all()
    entity_rows = conn.execute(
        select(entities.c.id, entities.c.feature_id)
        .where(entities.c.cid == cid, entities.c.applied.is_(True))
        .order_by(entities.c.id)
    ).all()
    return Snapshot(
        customer=customer,
        generation=place.generation,
        cursor=place.cursor,
        rows=tuple((row[0], layout.Row(*row[1:])) for row in bucket_rows),
        archived=tuple((row[0], row[1], layout.Archived(*map(int, row[2:]))) for row in archived),
        slots=tuple((row[0], layout.Slot(*row[1:])) for row in slot_rows),
        entities=tuple((row[0], row[1]) for row in entity_rows),
        caps=tuple(caps.of(conn, cid)),
        windows=tuple(windows.of(conn, cid)),
        holds=tuple(holds.open_of(conn, cid)),
        steps=tuple(outbox.after(conn, cid, customer.applied_version)),
    )


def ahead_of_log(conn: Connection, p: int, last_gen: int, last_seq: int) -> list[str]:
    """Names of the customers of a partition of whom SQL has a record past that log id: what Redis
    holds of them is older than SQL when its log ends there. Deleted ones' names too."""
    past = or_(
        customers.c.log_gen > last_gen,
        (customers.c.log_gen == last_gen) & (customers.c.log_seq > last_seq),
    )
    query = select(customers.c.id).where(customers.c.p == p, past).distinct().order_by(customers.c.id)
    return list(conn.execute(query).scalars())


def _customer(row: SqlRow[Any] | None) -> Customer | None:
    return None if row is None else Customer(**row._mapping)


def pending_deletions(conn: Connection, customer_id: str) -> list[int]:
    """The internal ids of deleted customers of that name whose deletion is still to be applied,
    oldest first."""
    query = select(customers.c.cid).where(
        customers.c.id == customer_id, customers.c.deleted_at.is_not(None),
        customers.c.structure_version > customers.c.applied_version,
    )
    return list(conn.execute(query.order_by(customers.c.cid)).scalars())


def left_behind(conn: Connection, limit: int = 200) -> list[Customer]:
    """Deleted customers whose deletion is applied and of whom Redis may still have a trace."""
    query = select(customers).where(
        customers.c.deleted_at.is_not(None), ~customers.c.gone,
        customers.c.structure_version == customers.c.applied_version,
    )
    return [Customer(**row._mapping) for row in conn.execute(query.order_by(customers.c.cid).limit(limit))]


def mark_gone(conn: Connection, cids: list[int]) -> None:
    """Says that Redis has no trace of these deleted customers."""
    conn.execute(update(customers).where(customers.c.cid.in_(cids)).values(gone=True))
