"""Writes a played batch into SQL: everything in a few bulk statements."""

from __future__ import annotations

from typing import Any, Sequence

from sqlalchemy import Connection, Table, bindparam, case, delete, insert, update

from sidecar.store import bulk, dialects, holds, tables

from .amounts import Prices
from .changes import EntityClosed, EntityOpened, EntityRefused
from .rows import PLACE, SUMS
from .working import Working

CUSTOMER_TABLES = (
    tables.buckets, tables.slots, tables.entities, tables.customer_plans, tables.idempotency, tables.outbox,
    tables.caps, tables.windows, tables.refunds,
)
"""What goes with a customer whose deletion is applied, and its open holds. Events, ledger and settled
holds stay."""


def flush(conn: Connection, working: Working) -> None:
    """Writes what was played."""
    _Flush(conn, working).run()


class _Flush:
    def __init__(self, conn: Connection, working: Working):
        self._conn = conn
        self._rows = working.rows
        self._written = working.written
        self._last_entry = working.last_entry
        self._deleted = working.deleted

    def run(self) -> None:
        written = self._written
        self._price_ledger()
        bulk.insert(self._conn, tables.events, written.events)
        bulk.insert(self._conn, tables.ledger, written.ledger)
        self._entities()
        self._buckets()
        self._slots()
        self._holds()
        self._caps_and_windows()
        self._upsert(tables.refunds, [
            {"cid": cid, "gen": gen, "seq": seq, "returned": self._rows.returned[cid, gen, seq]}
            for cid, gen, seq in sorted(written.returned) if cid not in self._deleted
        ])
        bulk.upsert(self._conn, tables.idempotency, [row for row in written.keys.values() if row.cid not in self._deleted])
        self._delete(tables.outbox, ("cid", "version"), written.steps_done)
        for cid in sorted(self._deleted):
            for table in CUSTOMER_TABLES:
                self._conn.execute(delete(table).where(table.c.cid == cid))
            self._conn.execute(delete(tables.holds).where(tables.holds.c.cid == cid, holds.STILL_OPEN))
        self._customers()

    def _price_ledger(self) -> None:
        ledger, owing = self._written.ledger, self._written.owing
        if not owing:
            return
        prices = Prices(self._conn, [(item, ledger[at].feature_id or "") for at, item in owing])
        for at, item in owing:
            charge = prices.charge(item, ledger[at].feature_id or "", ledger[at].over_units)
            ledger[at] = ledger[at]._replace(
                units=charge.units, price=charge.price, billing_units=charge.billing_units, amount=charge.amount
            )

    def _buckets(self) -> None:
        added: list[dict[str, Any]] = []
        replaced: list[dict[str, Any]] = []
        moved: list[tuple[Any, ...]] = []
        counted: list[tuple[Any, ...]] = []
        for bucket in self._rows.buckets.values():
            if not bucket.dirty or bucket.cid in self._deleted:
                continue
            which = bucket.cid, bucket.no
            if bucket.added:
                added.append(bucket.row()._asdict() | {
                    "cid": bucket.cid, "feature_id": bucket.feature_id, "archived": bucket.archived,
                    "removed_at": bucket.removed_at, "customer_plan_uid": self._rows.plan_uids.get(which),
                })
            elif bucket.replaced:
                replaced.append(bucket.row()._asdict() | {
                    "archived": bucket.archived, "removed_at": bucket.removed_at, "b_cid": bucket.cid, "b_no": bucket.no,
                })
            elif bucket.moved:
                moved.append((*bucket.sums(), *bucket.place(), *which))
            else:
                counted.append((*bucket.sums(), *which))
        b = tables.buckets
        self._many(insert(b), added)
        self._many(update(b).where(b.c.cid == bindparam("b_cid"), b.c.no == bindparam("b_no")), replaced)
        bulk.update(self._conn, b, (*SUMS, *PLACE), ("cid", "no"), moved)
        # Nearly all of them, and none of the indexes has to be looked at.
        bulk.update(self._conn, b, SUMS, ("cid", "no"), counted)

    def _slots(self) -> None:
        written = self._written
        self._delete(tables.slots, ("cid", "no"), written.dropped_slots)
        self._delete(tables.slots, ("cid", "entity_id"), written.closed)
        slots = [(key, self._rows.slots[key]) for key in sorted(written.slots) if key[0] not in self._deleted]
        self._upsert(tables.slots, [
            {"cid": cid, "no": no, "entity_id": entity_id, "balance": slot.balance, "period": slot.period,
             "granted": slot.granted, "held": slot.held}
            for (cid, no, entity_id), slot in slots
        ])

    def _holds(self) -> None:
        h = tables.holds
        self._many(insert(h), list(self._written.holds_made.values()))
        self._many(
            update(h).where(h.c.p == bindparam("b_p"), h.c.gen == bindparam("b_gen"), h.c.seq == bindparam("b_seq")),
            self._written.holds_settled,
        )

    def _caps_and_windows(self) -> None:
        rows, written = self._rows, self._written
        places = [place for place in sorted(written.caps) if place[0] not in self._deleted]
        self._delete(tables.caps, ("cid", "feature_id", "entity_id"), [p for p in places if p not in rows.caps])
        self._upsert(tables.caps, [
            {"cid": cid, "feature_id": feature_id, "entity_id": entity_id, "data": rows.caps[cid, feature_id, entity_id]}
            for cid, feature_id, entity_id in places if (cid, feature_id, entity_id) in rows.caps
        ])
        self._delete(tables.windows, ("cid", "feature_id", "entity_id"), sorted(written.dropped_windows))
        self._upsert(tables.windows, [
            {"cid": key[0], "feature_id": key[1], "entity_id": key[2], "interval": key[3], "anchor": key[4],
             "start": rows.windows[key].start_ms, "end": rows.windows[key].end_ms, "used": rows.windows[key].used}
            for key in sorted(written.windows) if key[0] not in self._deleted
        ])

    def _entities(self) -> None:
        """One by one and in order: an entity may be closed and opened again in one batch."""
        e = tables.entities
        for record, change in self._written.entities:
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
                else:  # one of a later step is another try
                    not_later = e.c.version <= record.version
                    self._conn.execute(delete(e).where(*which, not_later, e.c.status == "pending", e.c.applied.is_(False)))

    def _customers(self) -> None:
        c, rows = tables.customers, self._rows
        bulk.update(self._conn, c, ("applied_version", "last_ms", "next_roll_no", "log_gen", "log_seq"), ("cid",), [
            (rows.versions[cid], rows.last_ms[cid], rows.next_roll[cid], entry.gen, entry.seq, cid)
            for cid, entry in sorted(self._last_entry.items())
        ])
        for cid, ms in self._deleted.items():
            self._conn.execute(
                update(c).where(c.c.cid == cid, c.c.deleted_at.is_(None)).values(deleted_at=ms)
            )

    def _delete(self, table: Table, names: tuple[str, ...], keys: Sequence[tuple[Any, ...]]) -> None:
        if keys:
            where = [table.c[name] == bindparam(f"b_{name}") for name in names]
            self._conn.execute(delete(table).where(*where), [{f"b_{name}": part for name, part in zip(names, key)} for key in keys])

    def _upsert(self, table: Table, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._conn.execute(dialects.upsert(self._conn, table), rows)

    def _many(self, statement: Any, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._conn.execute(statement, rows)
