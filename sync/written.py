"""What playing a batch leaves to write into SQL, beside the rows themselves."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Mapping, NamedTuple

from sidecar.store import events, idempotency
from sidecar.store.events import LedgerLine

from .amounts import text
from .changes import Change, HoldMade
from .records import STEP, Record, Use
from .rows import Bucket, Entry, Hold, Place, SlotKey, WindowKey

EntryId = tuple[int, int, int]
NO_PROPERTIES = json.dumps(None)


class EventRow(NamedTuple):
    """A row of `events`, in the order of its columns; `properties` are JSON text."""

    p: int
    gen: int
    seq: int
    line: int
    cid: int
    customer_id: str
    entity_id: str
    feature_id: str
    event_name: str | None
    value: str
    requested: int
    applied: int
    timestamp: int
    recorded_at: int
    properties: str
    idempotency_key: str | None
    parts: bytes
    refund_of: str | None


class KeyRow(NamedTuple):
    """A row of `idempotency`, in the order of its columns."""

    cid: int
    digest: bytes
    p: int
    gen: int
    seq: int
    expires_at: int
    record: bytes


@dataclass
class Written:
    """Collected in the order of the log. Sets hold the keys of rows that changed."""

    events: list[EventRow] = field(default_factory=list)
    ledger: list[LedgerLine] = field(default_factory=list)
    owing: list[tuple[int, int]] = field(default_factory=list)
    """Where in the ledger there is a line with overage, and the plan item that tells its price."""
    keys: dict[tuple[int, bytes], KeyRow] = field(default_factory=dict)
    slots: set[SlotKey] = field(default_factory=set)
    dropped_slots: list[tuple[int, int]] = field(default_factory=list)
    windows: set[WindowKey] = field(default_factory=set)
    dropped_windows: set[Place] = field(default_factory=set)
    caps: set[Place] = field(default_factory=set)
    returned: set[tuple[int, int, int]] = field(default_factory=set)
    closed: list[tuple[int, str]] = field(default_factory=list)
    entities: list[tuple[Record, Change]] = field(default_factory=list)
    steps_done: list[tuple[int, int]] = field(default_factory=list)
    holds_made: dict[EntryId, dict[str, Any]] = field(default_factory=dict)
    holds_settled: list[dict[str, Any]] = field(default_factory=list)

    def record(self, entry: Entry, record: Record, customer_id: str, precisions: Mapping[str, int]) -> None:
        """The event of a record, a line for each feature, and what is remembered of its call."""
        p, gen, seq, _ = entry
        info = record.info
        properties = NO_PROPERTIES if info.properties is None else json.dumps(info.properties)
        timestamp = record.ms if info.timestamp is None else info.timestamp
        for line, use in enumerate(record.uses):
            self.events.append(EventRow(
                p, gen, seq, line, record.cid, customer_id, record.entity_id, use.feature_id, _sql_text(info.event_name),
                _sql_text(_value(record, use, precisions)), use.requested, use.applied, timestamp, record.ms, properties,
                _sql_text(info.key), use.packed, events.event_id(p, *info.refunded) if info.refunded else None,
            ))
        if record.idempotency is not None:
            assert info.key is not None  # `decode` refused it otherwise
            key = idempotency.digest(customer_id, info.key)
            self.keys[record.cid, key] = KeyRow(
                record.cid, key, p, gen, seq, record.idempotency.end_ms, record.idempotency.record
            )

    def line(
        self, entry: Entry, line: int, record: Record, kind: str, bucket: Bucket | None, delta: int, over_units: int,
        period_end: int | None, entity_id: str | None,
    ) -> None:
        """A ledger line, the `line`th of its entry. What its overage costs is found out before it is
        written."""
        no, feature_id, owner = (bucket.no, bucket.feature_id, bucket.entity_id) if bucket else (0, None, record.entity_id)
        if over_units:
            self.owing.append((len(self.ledger), bucket.item if bucket else 0))
        self.ledger.append(LedgerLine(
            entry.p, entry.gen, entry.seq, line, record.cid, no, feature_id, entity_id or owner, kind, delta, over_units,
            None, None, None, None, period_end, record.ms,
        ))

    def make_hold(self, entry: EntryId, record: Record, change: HoldMade) -> None:
        """A new open hold."""
        p, gen, seq = entry
        self.holds_made[entry] = {
            "p": p, "gen": gen, "seq": seq, "cid": record.cid, "lock_id": change.lock_id, "made_at": record.ms,
            "expires_at": change.expires_ms, "status": "open", "final": None, "settled_at": None,
            "receipt": change.receipt,
        }

    def settle_hold(self, hold: Hold, status: str, final: int, at_ms: int) -> None:
        """The end of a hold, made in this batch or before."""
        outcome = {"status": status, "final": final, "settled_at": at_ms}
        if hold.entry in self.holds_made:
            self.holds_made[hold.entry] |= outcome
        else:
            p, gen, seq = hold.entry
            self.holds_settled.append(outcome | {"b_p": p, "b_gen": gen, "b_seq": seq})


def _value(record: Record, use: Use, precisions: Mapping[str, int]) -> str:
    """As it was sent; of an event that no caller sent a value for, what it asked for."""
    if record.kind == STEP or (record.info.value is None and record.info.of_another):
        return text(Fraction(use.requested, 10 ** precisions.get(use.feature_id, 0)))
    return "1" if record.info.value is None else record.info.value


def _sql_text(value: str | None) -> str | None:
    """PostgreSQL keeps no NUL in a text; a caller's may not make the entry unwritable."""
    return None if value is None else value.replace("\0", "\N{REPLACEMENT CHARACTER}")
