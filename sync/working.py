"""The rows that a batch touches, held in memory while its records are played on them in order.

`Working.load` reads them, `play` applies one record, `flush` writes everything in a few bulk
statements. The caller holds the partitions' cursor locks, so nobody else writes these rows; every
new value is a value read here plus what the log says.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Iterable, NamedTuple, Sequence

import msgpack
from sqlalchemy import (
    BigInteger,
    Connection,
    String,
    Table,
    and_,
    bindparam,
    case,
    column,
    delete,
    insert,
    select,
    update,
    values,
)

from sidecar.domain import layout
from sidecar.store import dialects, idempotency, tables

from .amounts import Prices, text
from .records import (
    STEP,
    BucketAdded,
    BucketDropped,
    Change,
    CustomerDeleted,
    EntityClosed,
    EntityOpened,
    EntityRefused,
    Record,
    RecordError,
    Reset,
    SlotDelta,
    SumsChanged,
)

KEYS_PER_QUERY = 1000  # SQLite takes 32,766 variables in one statement
CUSTOMER_TABLES = (
    tables.buckets, tables.slots, tables.entities, tables.customer_plans, tables.idempotency, tables.outbox,
)
"""What goes with a customer whose deletion is applied. Events and ledger stay."""


class SqlBehind(RuntimeError):
    """Redis has a structure version that SQL never gave: SQL was rolled back."""

    def __init__(self, p: int, message: str):
        super().__init__(message)
        self.p = p


class Entry(NamedTuple):
    """A log entry as read: its partition, id and packed record."""

    p: int
    gen: int
    seq: int
    data: bytes


class Bucket:
    """A bucket while records are played on it. `total` is the balance; for an unlimited one,
    whose row keeps two parts, minus everything used."""

    __slots__ = (
        "cid", "no", "feature_id", "total", "granted", "flags", "next_reset_at", "entity_id", "item",
        "slots", "over", "removed_at", "read", "added", "dirty",
    )

    def __init__(self, cid: int, feature_id: str, row: layout.Row, added: bool = False):
        self.cid = cid
        self.read = row
        self.no = row.no
        self.feature_id = feature_id
        self.flags = row.flags
        self.total = row.balance - row.granted * layout.USED_HIGH_UNIT if self.unlimited else row.balance
        self.granted = row.granted
        self.next_reset_at = row.next_reset_at
        self.entity_id = row.entity_id
        self.item = row.item
        self.slots = row.slots
        self.over = row.over
        self.removed_at: int | None = None
        self.added = added
        self.dirty = added

    @property
    def unlimited(self) -> bool:
        return bool(self.flags & layout.UNLIMITED)

    def columns(self) -> tuple[int, int]:
        """Balance and granted as the row keeps them: of an unlimited bucket the low and the high
        part of what was used, the low part within 0 … 2^52 − 1."""
        if not self.unlimited or self.total > 0:  # never below zero by a script's doing
            return self.total, self.granted if not self.unlimited else 0
        high, low = divmod(-self.total, layout.USED_HIGH_UNIT)
        return -low, high

    def row(self) -> layout.Row:
        """The bucket as it stands now."""
        balance, granted = self.columns()
        return self.read._replace(
            balance=balance, granted=granted, next_reset_at=self.next_reset_at, slots=self.slots, over=self.over
        )


class Slot:
    """An entity's share of a per-entity bucket, valid while that bucket's reset is at `period`."""

    __slots__ = ("balance", "period")

    def __init__(self, balance: int, period: int):
        self.balance = balance
        self.period = period


class Working:
    """See the module. One instance is good for one batch inside one transaction."""

    def __init__(self, conn: Connection, batch: Sequence[tuple[Entry, Record]], whole: Iterable[int] | None = None):
        """`whole`: customers to read whole, whatever the batch touches; given, nothing is written."""
        self._conn = conn
        self._batch = batch
        self._to_write = whole is None
        self._whole = set(whole or ())
        self.customers: dict[int, Any] = {}
        self.buckets: dict[tuple[int, int], Bucket] = {}
        self.slots: dict[tuple[int, int, str], Slot] = {}
        self.entities: dict[tuple[int, str], str] = {}
        """The feature of each entity that Redis has; only of the customers read whole."""
        self._plan_uids: dict[tuple[int, int], int] = {}
        self._precisions: dict[str, int] = {}
        self.versions: dict[int, int] = {}
        self.last_ms: dict[int, int] = {}
        self.last_entry: dict[int, Entry] = {}
        self._events: list[dict[str, Any]] = []
        self._ledger: list[dict[str, Any]] = []
        self._keys: dict[tuple[int, bytes], dict[str, Any]] = {}
        self._dirty_slots: set[tuple[int, int, str]] = set()
        self._dropped_slots: list[tuple[int, int]] = []
        self._closed: list[tuple[int, str]] = []
        self._entities: list[tuple[Record, Change]] = []
        self._steps_done: list[tuple[int, int]] = []
        self.deleted: dict[int, int] = {}
        self._load()

    # -- reading ---------------------------------------------------------------------------------

    def _load(self) -> None:
        records = [record for _, record in self._batch]
        c = tables.customers.c
        columns = (
            c.cid, c.id, c.p, c.applied_version, c.structure_version, c.last_ms, c.log_gen, c.log_seq, c.deleted_at
        )
        for cids in _chunks({record.cid for record in records} | self._whole):
            query = select(*columns).where(c.cid.in_(cids)).order_by(c.cid)
            if self._to_write:  # first a customer's own row, as whoever changes structure does
                query = query.with_for_update()
            for row in self._conn.execute(query):
                self.customers[row.cid] = row
                self.versions[row.cid] = row.applied_version
                self.last_ms[row.cid] = row.last_ms
        self._load_buckets({record.cid for record in records if record.touches_buckets} | self._whole)
        self._load_whole(self._whole)
        self._load_slots({(r.cid, s.no, s.entity_id) for r in records for s in r.slots})
        self._load_plan_uids({(r.cid, r.version) for r in records if r.kind == STEP})
        self._load_precisions({use.feature_id for r in records if r.kind == STEP for use in r.uses})

    def _load_buckets(self, cids: Iterable[int]) -> None:
        b = tables.buckets.c
        columns = [b[name] for name in layout.Row._fields]
        for some in _chunks(cids):
            query = select(b.cid, b.feature_id, *columns).where(b.cid.in_(some), b.removed_at.is_(None))
            for row in self._conn.execute(query):
                bucket = Bucket(row[0], row[1], layout.Row(*row[2:]))
                self.buckets[bucket.cid, bucket.no] = bucket

    def _load_slots(self, keys: Iterable[tuple[int, int, str]]) -> None:
        """By a join: SQLite would look for a list of triples in the whole table."""
        s = tables.slots.c
        for some in _chunks(keys):
            wanted = values(
                column("cid", BigInteger), column("no", BigInteger), column("entity_id", String), name="wanted"
            ).data(some).cte("wanted")
            query = select(s.cid, s.no, s.entity_id, s.balance, s.period).join_from(
                wanted, tables.slots,
                and_(s.cid == wanted.c.cid, s.no == wanted.c.no, s.entity_id == wanted.c.entity_id),
            )
            for cid, no, entity_id, balance, period in self._conn.execute(query):
                self.slots[cid, no, entity_id] = Slot(balance, period)

    def _load_whole(self, cids: Iterable[int]) -> None:
        s, e = tables.slots.c, tables.entities.c
        for some in _chunks(cids):
            query = select(s.cid, s.no, s.entity_id, s.balance, s.period).where(s.cid.in_(some))
            for cid, no, entity_id, balance, period in self._conn.execute(query):
                self.slots[cid, no, entity_id] = Slot(balance, period)
            found = select(e.cid, e.id, e.feature_id).where(e.cid.in_(some), e.applied.is_(True))
            for cid, entity_id, feature_id in self._conn.execute(found):
                self.entities[cid, entity_id] = feature_id

    def _load_plan_uids(self, keys: set[tuple[int, int]]) -> None:
        """Which purchase each new bucket belongs to: the step says it, the log does not."""
        o = tables.outbox.c
        for some in _chunks({cid for cid, _ in keys}):
            for cid, version, data in self._conn.execute(select(o.cid, o.version, o.step).where(o.cid.in_(some))):
                if (cid, version) not in keys:
                    continue
                for op in msgpack.unpackb(data, strict_map_key=False)["ops"]:
                    if op[0] == "add" and len(op) > 5 and op[5]:
                        self._plan_uids[cid, op[2][0]] = op[5]

    def _load_precisions(self, feature_ids: Iterable[str]) -> None:
        """What the value of a step's event is told in: no caller sent one."""
        f = tables.features.c
        for some in _chunks(feature_ids):
            for feature_id, precision in self._conn.execute(select(f.id, f.precision).where(f.id.in_(some))):
                self._precisions[feature_id] = precision

    # -- playing ---------------------------------------------------------------------------------

    def play(self) -> None:
        """Plays every record of the batch. Raises RecordError for one that contradicts what SQL
        has, SqlBehind if SQL is older than Redis."""
        for entry, record in self._batch:
            self.play_one(entry, record)

    def play_one(self, entry: Entry, record: Record) -> None:
        """As `play`, one record of the batch; after an error its customer is good for nothing."""
        customer = self.customers.get(record.cid)
        if customer is None or customer.p != entry.p:
            raise RecordError(f"customer {record.cid} does not exist in partition {entry.p}")
        if record.version > customer.structure_version:
            raise SqlBehind(
                entry.p, f"customer {record.cid} is at version {record.version} in the log and at "
                f"{customer.structure_version} in SQL"
            )
        if record.kind == STEP and record.version <= self.versions[record.cid]:
            raise RecordError(f"step {record.version} was applied before")
        lines = len(self._ledger)
        for reset in record.resets:
            self._reset(entry, record, reset)
        for change in record.changes:
            if isinstance(change, BucketAdded):
                self._add(entry, record, change)
        for no, delta in record.deltas:
            bucket = self._bucket(record.cid, no)
            bucket.total += delta
            bucket.dirty = True
            self._line(entry, record, "use", bucket, delta)
        for slot in record.slots:
            self._slot(entry, record, slot)
        for change in record.changes:
            if not isinstance(change, BucketAdded):
                self._change(entry, record, change)
        if record.kind == STEP:
            self.versions[record.cid] = record.version
            self._steps_done.append((record.cid, record.version))
            if len(self._ledger) == lines:
                self._line(entry, record, "step", None, 0)
        self.last_ms[record.cid] = max(self.last_ms[record.cid], record.ms)
        self.last_entry[record.cid] = entry
        self._event(entry, record, customer.id)
        for number, line in enumerate(self._ledger[lines:]):
            line["line"] = number

    def _bucket(self, cid: int, no: int) -> Bucket:
        bucket = self.buckets.get((cid, no))
        if bucket is None or bucket.removed_at is not None:
            raise RecordError(f"customer {cid} has no bucket {no}")
        return bucket

    def _reset(self, entry: Entry, record: Record, reset: Reset) -> None:
        bucket = self._bucket(record.cid, reset.no)
        if not reset.period_end_ms == bucket.next_reset_at < reset.next_reset_ms:
            raise RecordError(
                f"bucket {reset.no} was due at {reset.period_end_ms} and will be at {reset.next_reset_ms}, "
                f"SQL has {bucket.next_reset_at}"
            )
        delta, over_units = reset.delta, reset.over_units
        if bucket.unlimited:  # its usage has two parts, and owes nothing
            delta, over_units = delta + over_units * layout.USED_HIGH_UNIT, 0
        bucket.total += delta
        bucket.over = 0
        bucket.next_reset_at = reset.next_reset_ms
        bucket.dirty = True
        self._line(entry, record, "reset", bucket, delta, over_units, reset.period_end_ms)

    def _slot(self, entry: Entry, record: Record, change: SlotDelta) -> None:
        key = (record.cid, change.no, change.entity_id)
        bucket, slot = self._bucket(record.cid, change.no), self.slots.get(key)
        if change.period != bucket.next_reset_at:
            raise RecordError(f"slot {key} of period {change.period}, its bucket's is {bucket.next_reset_at}")
        if change.base >= 0:
            was = change.base
        elif slot is not None and slot.period == change.period:
            was = slot.balance
        else:
            raise RecordError(f"slot {key} is changed and does not exist in this period")
        self.slots[key] = Slot(was + change.delta, change.period)
        self._dirty_slots.add(key)
        bucket.total += change.delta
        bucket.over += max(0, -(was + change.delta)) - max(0, -was)
        bucket.dirty = True
        self._line(entry, record, "use", bucket, change.delta, entity_id=change.entity_id)

    def _add(self, entry: Entry, record: Record, change: BucketAdded) -> None:
        if (record.cid, change.row.no) in self.buckets:
            raise RecordError(f"customer {record.cid} has a bucket {change.row.no} already")
        bucket = Bucket(record.cid, change.feature_id, change.row, added=True)
        self.buckets[record.cid, bucket.no] = bucket
        self._line(entry, record, "grant", bucket, bucket.total)

    def _change(self, entry: Entry, record: Record, change: Change) -> None:
        cid = record.cid
        if isinstance(change, BucketDropped):
            bucket = self._bucket(cid, change.no)
            if not bucket.unlimited and bucket.total != change.balance:
                raise RecordError(f"bucket {change.no} was dropped at {change.balance}, SQL has {bucket.total}")
            self._line(entry, record, "remove", bucket, -bucket.total, change.owed_units,
                       record.ms if change.owed_units else None)
            bucket.total = bucket.over = bucket.slots = 0
            bucket.removed_at = record.ms
            bucket.dirty = True
            self._drop_slots(lambda key: key[:2] == (cid, change.no))
            self._dropped_slots.append((cid, change.no))
        elif isinstance(change, SumsChanged):
            bucket = self._bucket(cid, change.no)
            bucket.total += change.balance
            bucket.granted += change.granted
            bucket.slots += change.slots
            bucket.over += change.over
            bucket.dirty = True
            self._line(entry, record, "entity", bucket, change.balance, entity_id=record.entity_id)
        elif isinstance(change, EntityClosed):
            self._drop_slots(lambda key: key[0] == cid and key[2] == change.entity_id)
            self.entities.pop((cid, change.entity_id), None)
            self._closed.append((cid, change.entity_id))
            self._entities.append((record, change))
        elif isinstance(change, EntityOpened):
            self.entities[cid, change.entity_id] = change.feature_id
            self._entities.append((record, change))
        elif isinstance(change, EntityRefused):
            self._entities.append((record, change))
        elif isinstance(change, CustomerDeleted):
            self.deleted[cid] = record.ms
            for bucket in [b for b in self.buckets.values() if b.cid == cid and b.removed_at is None]:
                self._line(entry, record, "remove", bucket, -bucket.total)
                bucket.removed_at = record.ms

    def _drop_slots(self, which: Any) -> None:
        for key in [key for key in self.slots if which(key)]:
            del self.slots[key]
            self._dirty_slots.discard(key)

    def _event(self, entry: Entry, record: Record, customer_id: str) -> None:
        info = record.info
        for line, use in enumerate(record.uses):
            value = info.value
            if record.kind == STEP:
                value = text(Fraction(use.requested, 10 ** self._precisions.get(use.feature_id, 0)))
            self._events.append({
                "p": entry.p, "gen": entry.gen, "seq": entry.seq, "line": line, "cid": record.cid,
                "customer_id": customer_id, "entity_id": record.entity_id, "feature_id": use.feature_id,
                "event_name": _sql_text(info.event_name), "value": _sql_text(value),
                "requested": use.requested, "applied": use.applied,
                "timestamp": record.ms if info.timestamp is None else info.timestamp,
                "recorded_at": record.ms, "properties": info.properties, "idempotency_key": _sql_text(info.key),
            })
        if record.idempotency is not None:
            assert info.key is not None  # `decode` refused it otherwise
            key = idempotency.digest(customer_id, info.key)
            self._keys[record.cid, key] = {
                "cid": record.cid, "digest": key, "p": entry.p, "gen": entry.gen, "seq": entry.seq,
                "expires_at": record.idempotency.end_ms, "record": record.idempotency.record,
            }

    def _line(
        self, entry: Entry, record: Record, kind: str, bucket: Bucket | None, delta: int,
        over_units: int = 0, period_end: int | None = None, entity_id: str | None = None,
    ) -> None:
        self._ledger.append({
            "p": entry.p, "gen": entry.gen, "seq": entry.seq, "line": 0, "cid": record.cid,
            "no": bucket.no if bucket else 0, "feature_id": bucket.feature_id if bucket else None,
            "entity_id": entity_id or (bucket.entity_id if bucket else record.entity_id), "kind": kind,
            "delta": delta, "over_units": over_units, "units": None, "price": None, "billing_units": None,
            "amount": None, "period_end": period_end, "at": record.ms, "_item": bucket.item if bucket else 0,
        })

    # -- writing ---------------------------------------------------------------------------------

    def flush(self) -> None:
        """Writes what was played."""
        assert self._to_write
        self._price_ledger()
        self._many(insert(tables.events), self._events)
        self._many(insert(tables.ledger), self._ledger)
        self._flush_entities()
        self._flush_buckets()
        self._flush_slots()
        keys = [row for (cid, _), row in self._keys.items() if cid not in self.deleted]
        self._many(dialects.upsert(self._conn, tables.idempotency), keys)
        self._delete(tables.outbox, ("cid", "version"), self._steps_done)
        for cid in sorted(self.deleted):
            self._delete_customer(cid)
        self._flush_customers()

    def _price_ledger(self) -> None:
        owing = [line for line in self._ledger if line["over_units"]]
        if owing:
            prices = Prices(self._conn, [(line["_item"], line["feature_id"]) for line in owing])
            for line in owing:
                charge = prices.charge(line["_item"], line["feature_id"], line["over_units"])
                line["units"], line["price"] = charge.units, charge.price
                line["billing_units"], line["amount"] = charge.billing_units, charge.amount
        for line in self._ledger:
            del line["_item"]

    def _flush_buckets(self) -> None:
        added, changed = [], []
        for bucket in self.buckets.values():
            if not bucket.dirty or bucket.cid in self.deleted:
                continue
            row = bucket.row()
            if bucket.added:
                added.append(row._asdict() | {
                    "cid": bucket.cid, "feature_id": bucket.feature_id, "removed_at": bucket.removed_at,
                    "customer_plan_uid": self._plan_uids.get((bucket.cid, bucket.no)),
                })
            else:
                changed.append({
                    "b_cid": bucket.cid, "b_no": bucket.no, "balance": row.balance, "granted": row.granted,
                    "next_reset_at": row.next_reset_at, "slots": row.slots, "over": row.over,
                    "removed_at": bucket.removed_at,
                })
        b = tables.buckets
        self._many(insert(b), added)
        self._many(update(b).where(b.c.cid == bindparam("b_cid"), b.c.no == bindparam("b_no")), changed)

    def _flush_slots(self) -> None:
        self._delete(tables.slots, ("cid", "no"), self._dropped_slots)
        self._delete(tables.slots, ("cid", "entity_id"), self._closed)
        rows = [
            {"cid": key[0], "no": key[1], "entity_id": key[2],
             "balance": self.slots[key].balance, "period": self.slots[key].period}
            for key in sorted(self._dirty_slots)
            if key[0] not in self.deleted
        ]
        self._many(dialects.upsert(self._conn, tables.slots), rows)

    def _flush_entities(self) -> None:
        """One by one and in order: an entity may be closed and opened again in one batch."""
        e = tables.entities
        for record, change in self._entities:
            if isinstance(change, EntityOpened):
                row = {
                    "cid": record.cid, "id": change.entity_id, "feature_id": change.feature_id,
                    "status": "active", "applied": True, "created_at": record.ms,
                }
                statement = dialects.insert(self._conn, e).on_conflict_do_update(
                    index_elements=[e.c.cid, e.c.id],
                    set_={"status": case((e.c.status == "closing", "closing"), else_="active"), "applied": True},
                )
                self._conn.execute(statement, row)
            elif isinstance(change, (EntityClosed, EntityRefused)):
                which = (e.c.cid == record.cid, e.c.id == change.entity_id)
                if isinstance(change, EntityClosed):  # one that is not closing was made again meanwhile
                    self._conn.execute(delete(e).where(*which, e.c.status == "closing"))
                    self._conn.execute(update(e).where(*which).values(applied=False))
                else:
                    self._conn.execute(delete(e).where(*which, e.c.status == "pending", e.c.applied.is_(False)))

    def _flush_customers(self) -> None:
        c = tables.customers
        rows = [
            {
                "b_cid": cid, "applied_version": self.versions[cid], "last_ms": self.last_ms[cid],
                "log_gen": entry.gen, "log_seq": entry.seq,
            }
            for cid, entry in sorted(self.last_entry.items())
        ]
        self._many(update(c).where(c.c.cid == bindparam("b_cid")), rows)
        for cid, ms in self.deleted.items():
            self._conn.execute(
                update(c).where(c.c.cid == cid, c.c.deleted_at.is_(None)).values(deleted_at=ms)
            )

    def _delete(self, table: Table, names: tuple[str, ...], keys: Sequence[tuple[Any, ...]]) -> None:
        where = [table.c[name] == bindparam(f"b_{name}") for name in names]
        rows = [{f"b_{name}": part for name, part in zip(names, key)} for key in keys]
        self._many(delete(table).where(*where), rows)

    def _delete_customer(self, cid: int) -> None:
        for table in CUSTOMER_TABLES:
            self._conn.execute(delete(table).where(table.c.cid == cid))

    def _many(self, statement: Any, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._conn.execute(statement, rows)


def _sql_text(value: str | None) -> str | None:
    """PostgreSQL keeps no NUL in a text; a caller's may not make the entry unwritable."""
    return None if value is None else value.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _chunks(keys: Iterable[Any]) -> Iterable[list[Any]]:
    found = sorted(keys)
    for at in range(0, len(found), KEYS_PER_QUERY):
        yield found[at : at + KEYS_PER_QUERY]
