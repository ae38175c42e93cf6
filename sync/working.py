"""Plays log records on the rows they touch, in memory and in order.

`Working` reads the rows of a batch, `play` applies each record, `flush` (flush.py) writes everything
in a few bulk statements. The caller holds the partitions' cursor locks, so nobody else writes these
rows; every new value is a value read here plus what the log says.

Within a record: first the resets, then new buckets, then the rollovers and slots that the resets
left, then what the event took part by part, then the other changes in their order.
"""

from __future__ import annotations

from typing import Any, Callable, Iterable, Sequence

from sqlalchemy import Connection

from sidecar.domain import layout

from . import changes as c
from .billed import Billed
from .load import load
from .records import STEP, BucketPart, Record, RecordError, Reset, SlotPart, Use
from .rows import Bucket, Entry, Hold, Slot, Window
from .written import Written

OUTCOMES = {c.CONFIRMED: "confirmed", c.RELEASED: "released", c.EXPIRED: "expired"}
BEFORE_PARTS = (c.RolloverChanged, c.SlotSet, c.SlotChanged)


class SqlBehind(RuntimeError):
    """Redis has a structure version that SQL never gave: SQL was rolled back."""

    def __init__(self, p: int, message: str):
        super().__init__(message)
        self.p = p


class Working:
    """See the module. One instance is good for one batch inside one transaction."""

    def __init__(self, conn: Connection, batch: Sequence[tuple[Entry, Record]], whole: Iterable[int] | None = None):
        """`whole`: customers to read whole, whatever the batch touches; given, nothing is written."""
        self._batch = batch
        self.rows = load(conn, [record for _, record in batch], set(whole or ()), lock=whole is None)
        self.written = Written()
        self._billed = Billed(conn)
        self.last_entry: dict[int, Entry] = {}
        self.deleted: dict[int, int] = {}
        self._entry = Entry(0, 0, 0, b"")
        self._record: Record
        self._lines_before = 0

    def play(self) -> None:
        """Plays every record of the batch. Raises RecordError for one that contradicts what SQL
        has, SqlBehind if SQL is older than Redis."""
        for entry, record in self._batch:
            self.play_one(entry, record)

    def play_one(self, entry: Entry, record: Record) -> None:
        """As `play`, one record of the batch; after an error its customer is good for nothing."""
        rows, cid = self.rows, record.cid
        customer = rows.customers.get(cid)
        if customer is None or customer.p != entry.p:
            raise RecordError(f"customer {cid} does not exist in partition {entry.p}")
        if record.version > customer.structure_version:
            raise SqlBehind(
                entry.p, f"customer {cid} is at version {record.version} in the log and at "
                f"{customer.structure_version} in SQL"
            )
        if record.kind == STEP and record.version <= rows.versions[cid]:
            raise RecordError(f"step {record.version} was applied before")
        self._entry, self._record = entry, record
        self._lines_before = len(self.written.ledger)
        for reset in record.resets:
            self._reset(reset)
        changes = record.changes
        if changes:
            self._each([change for change in changes if isinstance(change, c.BucketAdded)])
            self._each([change for change in changes if isinstance(change, BEFORE_PARTS)])
        for use in record.uses:
            self._use(use)
        if changes:
            self._each([one for one in changes if not isinstance(one, (c.BucketAdded, *BEFORE_PARTS))])
        if record.kind == STEP:
            rows.versions[cid] = record.version
            self.written.steps_done.append((cid, record.version))
            if len(self.written.ledger) == self._lines_before:
                self._line("step", None, 0)
        if record.ms > rows.last_ms[cid]:
            rows.last_ms[cid] = record.ms
        self.last_entry[cid] = entry
        self.written.record(entry, record, customer.id, rows.precisions)

    def _each(self, some: Iterable[c.Change]) -> None:
        for change in some:
            _PLAYERS[type(change)](self, change)

    def _bucket(self, no: int) -> Bucket:
        """A bucket that is about to change."""
        bucket = self.rows.buckets.get((self._record.cid, no))
        if bucket is None or bucket.removed_at is not None:
            raise RecordError(f"customer {self._record.cid} has no bucket {no}")
        bucket.dirty = True
        return bucket

    def _slot(self, bucket: Bucket, entity_id: str) -> Slot:
        """A slot that is about to change, as its bucket's period has it."""
        key = (bucket.cid, bucket.no, entity_id)
        slot = self.rows.slots.get(key)
        if slot is None or slot.period != bucket.next_reset_at:
            raise RecordError(f"slot {key} is changed and does not exist in this period")
        self.written.slots.add(key)
        return slot

    # -- resets and what an event took -------------------------------------------------------------

    def _reset(self, reset: Reset) -> None:
        bucket = self._bucket(reset.no)
        if not reset.period_end_ms == bucket.next_reset_at < reset.next_reset_ms:
            raise RecordError(
                f"bucket {reset.no} was due at {reset.period_end_ms} and will be at {reset.next_reset_ms}, "
                f"SQL has {bucket.next_reset_at}"
            )
        if not reset.period_end_ms <= reset.reset_ms < reset.next_reset_ms:
            raise RecordError(f"bucket {reset.no} was reset at {reset.reset_ms}, outside what was due")
        delta, over_units = reset.delta, reset.over_units
        if bucket.unlimited:  # its usage has two parts, and owes nothing
            delta, over_units = delta + over_units * layout.USED_HIGH_UNIT, 0
        bucket.total += delta
        bucket.over = bucket.held = 0
        bucket.next_reset_at = reset.next_reset_ms
        bucket.reset_at, bucket.reset_over = reset.reset_ms, reset.reset_over
        self._line("reset", bucket, delta, over_units, reset.period_end_ms)

    def _use(self, use: Use) -> None:
        for part in use.parts:
            if isinstance(part, BucketPart):
                bucket = self._bucket(part.no)
                bucket.total += part.delta
                self._line("use", bucket, part.delta)
            elif isinstance(part, SlotPart):
                self._slot_part(part)

    def _slot_part(self, part: SlotPart) -> None:
        bucket = self._bucket(part.no)
        key = (bucket.cid, part.no, part.entity_id)
        if part.period != bucket.next_reset_at:
            raise RecordError(f"slot {key} of period {part.period}, its bucket's is {bucket.next_reset_at}")
        if part.base >= 0:
            slot = self.rows.slots[key] = Slot(part.base, part.period)
            self.written.slots.add(key)
        else:
            slot = self._slot(bucket, part.entity_id)
        before = slot.balance
        slot.balance += part.delta
        bucket.total += part.delta
        if not bucket.read.rollover:  # which never is below zero, only here on the way: trimmed before what it got back
            bucket.over += max(0, -slot.balance) - max(0, -before)
        self._line("use", bucket, part.delta, entity_id=part.entity_id)

    # -- changes of buckets ------------------------------------------------------------------------

    def _add(self, change: c.BucketAdded) -> None:
        cid, row = self._record.cid, change.row
        if (cid, row.no) in self.rows.buckets:
            raise RecordError(f"customer {cid} has, or had, a bucket {row.no}")
        bucket = self.rows.buckets[cid, row.no] = Bucket(cid, change.feature_id, row, added=True)
        if row.no >= layout.ROLLOVER_NO_MIN:
            self.rows.next_roll[cid] = max(self.rows.next_roll[cid], row.no + 1)
        self._line("rollover" if row.rollover else "grant", bucket, bucket.total)

    def _drop(self, change: c.BucketDropped) -> None:
        bucket, cid = self._bucket(change.no), self._record.cid
        if not bucket.unlimited and bucket.total != change.balance:
            raise RecordError(f"bucket {change.no} was dropped at {change.balance}, SQL has {bucket.total}")
        owed = change.owed_units
        self._line("remove", bucket, -bucket.total, owed, self._record.ms if owed else None)
        bucket.total = bucket.over = bucket.slots = bucket.held = 0
        bucket.removed_at = self._record.ms
        self._drop_slots(lambda key: key[:2] == (cid, change.no))
        self.written.dropped_slots.append((cid, change.no))

    def _sums(self, change: c.SumsChanged) -> None:
        bucket = self._bucket(change.no)
        bucket.total += change.balance
        bucket.granted += change.granted
        bucket.slots += change.slots
        bucket.over += change.over
        if change.balance or change.slots or change.granted:
            self._line("entity" if change.slots else "set", bucket, change.balance)

    def _set(self, change: c.BucketSet) -> None:
        bucket = self._bucket(change.row.no)
        if bucket.feature_id != change.feature_id:
            raise RecordError(f"bucket {bucket.no} is of {bucket.feature_id!r}, not of {change.feature_id!r}")
        self._line("set", bucket, bucket.replace(change.row))

    def _rollover(self, change: c.RolloverChanged) -> None:
        bucket = self._bucket(change.no)
        if not bucket.read.rollover:
            raise RecordError(f"bucket {change.no} is not a rollover")
        bucket.total += change.balance
        if bucket.per_entity:
            bucket.prepaid += change.granted
        else:
            bucket.granted += change.granted
        self._line("rollover", bucket, change.balance)

    def _archive(self, change: c.BucketArchived) -> None:
        bucket = self._bucket(change.no)
        if bucket.archived == change.archived or bucket.total:
            raise RecordError(f"bucket {change.no} at {bucket.total} cannot leave or enter the hot state")
        bucket.archived = change.archived

    def _set_slot(self, change: c.SlotSet) -> None:
        key = (self._bucket(change.no).cid, change.no, change.entity_id)
        self.rows.slots[key] = Slot(change.balance, change.period, change.granted, change.held)
        self.written.slots.add(key)

    def _change_slot(self, change: c.SlotChanged) -> None:
        slot = self._slot(self._bucket(change.no), change.entity_id)
        slot.balance += change.balance
        slot.granted += change.granted

    def _held(self, change: c.HeldChanged) -> None:
        bucket = self._bucket(change.no)
        if change.entity_id:
            self._slot(bucket, change.entity_id).held += change.held
        else:
            bucket.held += change.held

    def _credit(self, change: c.OverageCredited) -> None:
        """Never more than was billed: what a period owes does not go below nothing. Overage that
        was carried, not billed, is only remembered."""
        bucket = self._bucket(change.no)
        if change.period_end_ms == bucket.reset_at:
            bucket.reset_over -= change.units
        units = min(change.units, self._billed.owed(bucket, change.period_end_ms, self.written.ledger))
        if units > 0:
            self._line("credit", bucket, 0, -units, change.period_end_ms)

    # -- changes of the customer -------------------------------------------------------------------

    def _make_hold(self, change: c.HoldMade) -> None:
        key, entry = (self._record.cid, change.lock_id), self._entry[:3]
        if key in self.rows.holds:
            raise RecordError(f"the hold {change.lock_id!r} is open already")
        self.rows.holds[key] = Hold(entry, change.expires_ms, change.receipt)
        self.written.make_hold(entry, self._record, change)

    def _settle_hold(self, change: c.HoldSettled) -> None:
        hold = self.rows.holds.pop((self._record.cid, change.lock_id), None)
        if hold is None:
            raise RecordError(f"no hold {change.lock_id!r} is open")
        self.written.settle_hold(hold, OUTCOMES[change.outcome], change.final, self._record.ms)

    def _window(self, change: c.WindowUsed) -> None:
        key = (self._record.cid, change.feature_id, change.entity_id, change.interval, change.anchor)
        window = self.rows.windows.get(key)
        used = window.used if window is not None and window.start_ms == change.start_ms else 0
        self.rows.windows[key] = Window(change.start_ms, change.end_ms, used + change.delta)
        self.written.windows.add(key)

    def _caps(self, change: c.CapsSet) -> None:
        place = (self._record.cid, change.feature_id, change.entity_id)
        self.rows.caps.pop(place, None)
        if change.data:
            self.rows.caps[place] = change.data
        elif change.entity_id:  # an entity without caps of its own has no counters of its own
            self.written.windows -= {key for key in self.rows.windows if key[:3] == place}
            self.rows.windows = {key: one for key, one in self.rows.windows.items() if key[:3] != place}
            self.written.dropped_windows.add(place)
        self.written.caps.add(place)

    def _returned(self, change: c.EventReturned) -> None:
        key = (self._record.cid, change.gen, change.seq)
        self.rows.returned[key] = change.returned
        self.written.returned.add(key)

    def _entity(self, change: c.EntityOpened | c.EntityClosed | c.EntityRefused) -> None:
        cid = self._record.cid
        if isinstance(change, c.EntityOpened):
            self.rows.entities[cid, change.entity_id] = change.feature_id
        elif isinstance(change, c.EntityClosed):
            self._drop_slots(lambda key: key[0] == cid and key[2] == change.entity_id)
            self._drop_archived(change.entity_id)
            self.rows.entities.pop((cid, change.entity_id), None)
            self.written.closed.append((cid, change.entity_id))
        self.written.entities.append((self._record, change))

    def _drop_archived(self, entity_id: str) -> None:
        """What had left the hot state of an entity goes with it: no script names it one by one."""
        for bucket in self.rows.buckets.values():
            mine = bucket.cid == self._record.cid and bucket.entity_id == entity_id
            if mine and bucket.archived and bucket.removed_at is None:
                bucket.removed_at, bucket.dirty = self._record.ms, True

    def _delete(self, _change: c.CustomerDeleted) -> None:
        cid = self._record.cid
        self.deleted[cid] = self._record.ms
        for bucket in [b for b in self.rows.buckets.values() if b.cid == cid and b.removed_at is None]:
            self._line("remove", bucket, -bucket.total)
            bucket.removed_at = self._record.ms

    def _drop_slots(self, which: Callable[[tuple[int, int, str]], bool]) -> None:
        for key in [key for key in self.rows.slots if which(key)]:
            del self.rows.slots[key]
            self.written.slots.discard(key)

    def _line(
        self, kind: str, bucket: Bucket | None, delta: int, over_units: int = 0, period_end: int | None = None,
        entity_id: str | None = None,
    ) -> None:
        number = len(self.written.ledger) - self._lines_before
        self.written.line(self._entry, number, self._record, kind, bucket, delta, over_units, period_end, entity_id)


_PLAYERS: dict[type, Callable[[Working, Any], None]] = {
    c.BucketAdded: Working._add, c.BucketDropped: Working._drop, c.SumsChanged: Working._sums,
    c.BucketSet: Working._set, c.RolloverChanged: Working._rollover, c.BucketArchived: Working._archive,
    c.SlotSet: Working._set_slot, c.SlotChanged: Working._change_slot, c.HeldChanged: Working._held, c.OverageCredited: Working._credit,
    c.HoldMade: Working._make_hold, c.HoldSettled: Working._settle_hold, c.WindowUsed: Working._window,
    c.CapsSet: Working._caps, c.EventReturned: Working._returned, c.EntityOpened: Working._entity,
    c.EntityClosed: Working._entity, c.EntityRefused: Working._entity, c.CustomerDeleted: Working._delete,
}
