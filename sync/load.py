"""Reads from SQL what a batch of records touches: a few bulk queries, none of a whole table."""

from __future__ import annotations

from typing import Any, Iterable, Sequence

from sqlalchemy import BigInteger, Connection, Select, String, Table, and_, column, select, values

from sidecar.domain import layout
from sidecar.store import bulk, holds, outbox, tables

from .changes import HeldChanged, HoldMade, HoldSettled, SlotChanged, WindowUsed
from .records import STEP, BucketPart, Record, SlotPart
from .rows import Bucket, Customer, Hold, Rows, Slot, Window

BUCKET_COLUMNS = ("cid", "feature_id", "archived", *layout.Row._fields)


def load(conn: Connection, records: Sequence[Record], whole: set[int], lock: bool) -> Rows:
    """What these records touch, and all of the customers in `whole`; `lock` for who will write."""
    cids, all_of, named = set(whole), set(whole), set[tuple[int, int]]()
    slots, changed = set[tuple[int, int, str]](), list[Record]()
    for record in records:
        cid = record.cid
        cids.add(cid)
        for use in record.uses:
            for part in use.parts:
                if isinstance(part, BucketPart):
                    named.add((cid, part.no))
                elif isinstance(part, SlotPart):
                    named.add((cid, part.no))
                    slots.add((cid, part.no, part.entity_id))
        for reset in record.resets:
            named.add((cid, reset.no))
        if record.changes:
            changed.append(record)
            all_of.add(cid)
    loader = _Loader(conn)
    loader.customers(cids, lock)
    loader.buckets_of(all_of)
    loader.buckets({key for key in named if key[0] not in all_of} if all_of else named)
    loader.whole(whole)
    loader.slots(slots | {
        (r.cid, change.no, change.entity_id)
        for r in changed for change in r.changes if isinstance(change, (HeldChanged, SlotChanged)) and change.entity_id
    })
    loader.holds({
        (r.cid, change.lock_id) for r in changed for change in r.changes if isinstance(change, (HoldMade, HoldSettled))
    })
    loader.windows({
        (r.cid, change.feature_id, change.entity_id)
        for r in changed for change in r.changes if isinstance(change, WindowUsed)
    })
    loader.plan_uids({(r.cid, r.version) for r in records if r.kind == STEP})
    loader.precisions({use.feature_id for r in records if r.kind == STEP or r.info.of_another for use in r.uses})
    return loader.rows


class _Loader:
    def __init__(self, conn: Connection):
        self._conn = conn
        self.rows = Rows()

    def customers(self, cids: Iterable[int], lock: bool) -> None:
        """`lock`: first a customer's own row, as whoever changes structure does."""
        rows = self.rows
        for found in bulk.select(self._conn, tables.customers, Customer._fields, ("cid",), [(cid,) for cid in cids], lock=lock):
            customer = Customer._make(found)
            cid = customer.cid
            rows.customers[cid] = customer
            rows.versions[cid] = customer.applied_version
            rows.last_ms[cid] = customer.last_ms
            rows.next_roll[cid] = customer.next_roll_no

    def buckets_of(self, cids: Iterable[int]) -> None:
        """All buckets of these customers."""
        self._buckets(("cid",), [(cid,) for cid in cids])

    def buckets(self, keys: Iterable[tuple[int, int]]) -> None:
        """These buckets: usage and resets have to do with no others of a customer."""
        self._buckets(("cid", "no"), keys)

    def _buckets(self, names: Sequence[str], keys: Iterable[tuple[int, ...]]) -> None:
        rows = self.rows.buckets
        for found in bulk.select(self._conn, tables.buckets, BUCKET_COLUMNS, names, keys, where="removed_at IS NULL"):
            cid, feature_id, archived = found[:3]
            row = layout.Row._make(found[3:])
            rows[cid, row.no] = Bucket(cid, feature_id, row, archived=bool(archived))

    def slots(self, keys: Iterable[tuple[int, int, str]]) -> None:
        s = tables.slots
        for some in _chunks(keys):
            self._slots(_wanted(_slot_query(), s, ("cid", "no", "entity_id"), some))

    def _slots(self, query: Select[Any]) -> None:
        for cid, no, entity_id, *slot in self._conn.execute(query):
            self.rows.slots[cid, no, entity_id] = Slot(*slot)

    def holds(self, keys: Iterable[tuple[int, str]]) -> None:
        for some in _chunks(keys):
            self._holds(_wanted(_hold_query(), tables.holds, ("cid", "lock_id"), some))

    def _holds(self, query: Select[Any]) -> None:
        for cid, lock_id, p, gen, seq, expires_at, receipt in self._conn.execute(query):
            self.rows.holds[cid, lock_id] = Hold((p, gen, seq), expires_at, bytes(receipt))

    def windows(self, keys: Iterable[tuple[int, str, str]]) -> None:
        for some in _chunks(keys):
            self._windows(_wanted(_window_query(), tables.windows, ("cid", "feature_id", "entity_id"), some))

    def _windows(self, query: Select[Any]) -> None:
        for cid, feature_id, entity_id, interval, anchor, *window in self._conn.execute(query):
            self.rows.windows[cid, feature_id, entity_id, interval, anchor] = Window(*window)

    def whole(self, cids: Iterable[int]) -> None:
        """Everything else that a customer's state in Redis has."""
        e, k, r = tables.entities.c, tables.caps.c, tables.refunds.c
        for some in _chunks(cids):
            self._slots(_slot_query().where(tables.slots.c.cid.in_(some)))
            self._holds(_hold_query().where(tables.holds.c.cid.in_(some)))
            self._windows(_window_query().where(tables.windows.c.cid.in_(some)))
            for cid, entity_id, feature_id in self._conn.execute(
                select(e.cid, e.id, e.feature_id).where(e.cid.in_(some), e.applied.is_(True))
            ):
                self.rows.entities[cid, entity_id] = feature_id
            for cid, feature_id, entity_id, data in self._conn.execute(
                select(k.cid, k.feature_id, k.entity_id, k.data).where(k.cid.in_(some))
            ):
                self.rows.caps[cid, feature_id, entity_id] = bytes(data)
            for cid, gen, seq, returned in self._conn.execute(
                select(r.cid, r.gen, r.seq, r.returned).where(r.cid.in_(some))
            ):
                self.rows.returned[cid, gen, seq] = bytes(returned)

    def plan_uids(self, keys: set[tuple[int, int]]) -> None:
        """Which purchase each new bucket belongs to: the step says it, the log does not."""
        o = tables.outbox.c
        for some in _chunks({cid for cid, _ in keys}):
            for cid, version, data in self._conn.execute(select(o.cid, o.version, o.step).where(o.cid.in_(some))):
                if (cid, version) not in keys:
                    continue
                for op in outbox.operations(outbox.Step(version, bytes(data))):
                    if op[0] == "add" and len(op) > 5 and op[5]:
                        self.rows.plan_uids[cid, op[2][0]] = op[5]

    def precisions(self, feature_ids: Iterable[str]) -> None:
        """What the value of an event is told in that no caller sent."""
        f = tables.features.c
        for some in _chunks(feature_ids):
            for feature_id, precision in self._conn.execute(select(f.id, f.precision).where(f.id.in_(some))):
                self.rows.precisions[feature_id] = precision


def _slot_query() -> Select[Any]:
    s = tables.slots.c
    return select(s.cid, s.no, s.entity_id, s.balance, s.period, s.granted, s.held)


def _hold_query() -> Select[Any]:
    h = tables.holds.c
    return select(h.cid, h.lock_id, h.p, h.gen, h.seq, h.expires_at, h.receipt).where(holds.STILL_OPEN)


def _window_query() -> Select[Any]:
    w = tables.windows.c
    return select(w.cid, w.feature_id, w.entity_id, w.interval, w.anchor, w.start, w.end, w.used)


def _wanted(query: Select[Any], table: Table, names: tuple[str, ...], keys: Sequence[Any]) -> Select[Any]:
    """The rows of a query that have one of these keys, by a join: SQLite would look for a list of
    tuples in the whole table."""
    columns = [column(name, BigInteger if isinstance(table.c[name].type, BigInteger) else String) for name in names]
    wanted = values(*columns, name="wanted").data(list(keys)).cte("wanted")
    return query.join_from(wanted, table, and_(*(table.c[name] == wanted.c[name] for name in names)))


def _chunks(keys: Iterable[Any]) -> Iterable[list[Any]]:
    found = sorted(keys)
    for at in range(0, len(found), bulk.KEYS_PER_QUERY):
        yield found[at : at + bulk.KEYS_PER_QUERY]
