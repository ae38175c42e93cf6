"""What playing a batch leaves to write into SQL, beside the rows themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Mapping

from sidecar.store import events, idempotency

from .amounts import text
from .changes import Change, HoldMade
from .records import STEP, Record, Use
from .rows import Bucket, Entry, Hold, Place, SlotKey, WindowKey

EntryId = tuple[int, int, int]


@dataclass
class Written:
    """Collected in the order of the log. Sets hold the keys of rows that changed."""

    events: list[dict[str, Any]] = field(default_factory=list)
    ledger: list[dict[str, Any]] = field(default_factory=list)
    keys: dict[tuple[int, bytes], dict[str, Any]] = field(default_factory=dict)
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
        for line, use in enumerate(record.uses):
            self.events.append({
                "p": p, "gen": gen, "seq": seq, "line": line, "cid": record.cid, "customer_id": customer_id,
                "entity_id": record.entity_id, "feature_id": use.feature_id, "event_name": _sql_text(info.event_name),
                "value": _sql_text(_value(record, use, precisions)), "requested": use.requested,
                "applied": use.applied, "timestamp": record.ms if info.timestamp is None else info.timestamp,
                "recorded_at": record.ms, "properties": info.properties, "idempotency_key": _sql_text(info.key),
                "parts": use.packed, "refund_of": events.event_id(p, *info.refunded) if info.refunded else None,
            })
        if record.idempotency is not None:
            assert info.key is not None  # `decode` refused it otherwise
            key = idempotency.digest(customer_id, info.key)
            self.keys[record.cid, key] = {
                "cid": record.cid, "digest": key, "p": p, "gen": gen, "seq": seq,
                "expires_at": record.idempotency.end_ms, "record": record.idempotency.record,
            }

    def line(
        self, entry: Entry, record: Record, kind: str, bucket: Bucket | None, delta: int, over_units: int,
        period_end: int | None, entity_id: str | None,
    ) -> None:
        """A ledger line. `_item` tells what its overage costs, and is not written."""
        self.ledger.append({
            "p": entry.p, "gen": entry.gen, "seq": entry.seq, "line": 0, "cid": record.cid,
            "no": bucket.no if bucket else 0, "feature_id": bucket.feature_id if bucket else None,
            "entity_id": entity_id or (bucket.entity_id if bucket else record.entity_id), "kind": kind,
            "delta": delta, "over_units": over_units, "units": None, "price": None, "billing_units": None,
            "amount": None, "period_end": period_end, "at": record.ms, "_item": bucket.item if bucket else 0,
        })

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
