"""Putting a customer into Redis as SQL has it, and bringing its structure up to date there.

A load is fenced: it carries the log cursor of the SQL snapshot it was read in, and the script
refuses one behind the last eviction; then the snapshot is read again. Steps of structure are
applied by version, each once, whoever brings them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack

from ..domain import layout
from ..store import customers
from ..store.customers import Snapshot
from ..store.holds import Hold
from . import keys, scripts
from .errors import StoreUnavailable

if TYPE_CHECKING:
    from .engine import Engine

ATTEMPTS_MAX = 20
STEPS_PER_CALL = 100
BEHIND_MAX = 2
"""Snapshots refused as of the past before the partition itself is looked at."""


@dataclass(frozen=True)
class StepOutcome:
    """What became of one step. `refused`: 0, or why live usage did not allow it: 1 no seat for an
    entity, 2 its buckets are gone, 3 out of the range of exact numbers, 4 too many entities' shares."""

    version: int
    refused: int


async def project(engine: Engine, customer_id: str, cid: int | None = None) -> list[StepOutcome] | None:
    """Makes Redis hold the customer with every decided step applied; what became of the steps this
    call applied. None if SQL knows no such customer.

    Raises StoreUnavailable, ReplyLost or PartitionRefused."""
    if cid is None:  # an earlier customer of that name leaves Redis first
        for earlier in await engine.store.read(customers.pending_deletions, customer_id):
            await project(engine, customer_id, earlier)
    p = engine.partition_of(customer_id)
    meta, state, log, entities = keys.of_customer(p, customer_id)
    locks, holds = keys.locks(p, customer_id), keys.holds(p)
    outcomes: list[StepOutcome] = []
    for attempt in range(ATTEMPTS_MAX):
        snapshot = await engine.store.read(customers.load_snapshot, customer_id, cid)
        if snapshot is None:
            return None
        customer = snapshot.customer
        if customer.deleted_at is not None and not snapshot.steps:
            return outcomes
        code, *rest = await engine.run(scripts.LOAD, p, (meta, state, entities, locks, holds), _load_args(snapshot))
        if code == b"BEHIND":
            if attempt >= BEHIND_MAX:
                await engine.verify(p)
            continue
        if code == b"OTHER":
            if rest[0] > customer.cid:  # a later customer of that name: this one is gone
                return outcomes
            await project(engine, customer_id, rest[0])
            continue
        version = rest[0] if code == b"EXISTS" else customer.applied_version
        steps = [step for step in snapshot.steps if step.version > version]
        if not steps:
            return outcomes
        for at in range(0, len(steps), STEPS_PER_CALL):
            batch = steps[at : at + STEPS_PER_CALL]
            code, *rest = await engine.run(
                scripts.PROJECT, p, (meta, state, log, entities, locks, holds),
                (engine.carry_debts, customer.cid, customer.id, *(step.data for step in batch)),
            )
            if code != b"OK":
                break
            refused = rest[1]
            first = rest[0] - len(refused) + 1
            outcomes += [StepOutcome(first + i, flag) for i, flag in enumerate(refused)]
        else:
            return outcomes
    raise StoreUnavailable(f"customer {customer_id!r} could not be loaded in {ATTEMPTS_MAX} attempts")


def _load_args(snapshot: Snapshot) -> tuple[Any, ...]:
    customer = snapshot.customer
    members = [f"{feature_id}\0{entity_id}" for entity_id, feature_id in snapshot.entities]
    locks = [part for hold in snapshot.holds for part in (hold.lock_id, hold.expires_at)]
    fields = state_fields(snapshot)
    header = fields.pop(b"h")
    flat = [part for field in fields.items() for part in field]
    return (
        snapshot.generation, *snapshot.cursor, customer.cid, customer.id, msgpack.packb(members),
        msgpack.packb(locks), header, *flat,
    )


def state_fields(snapshot: Snapshot) -> dict[bytes, bytes]:
    """The state that Redis holds for a customer who is as in `snapshot`, field by field, before
    the snapshot's steps. What was given back of single events comes with the event."""
    customer = snapshot.customer
    header = layout.Header(
        customer.cid, customer.applied_version, *snapshot.cursor, customer.last_ms,
        (layout.CAPS if snapshot.caps else 0) | (layout.LOADING if snapshot.steps else 0), customer.next_roll_no,
    )
    return {
        b"h": layout.pack_header(header), **_bucket_fields(snapshot), **_entity_fields(snapshot), **_cap_fields(snapshot),
        **{b"l:" + hold.lock_id.encode(): _packed_hold(hold) for hold in snapshot.holds},
    }


def _bucket_fields(snapshot: Snapshot) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    rows: dict[tuple[str, str], list[layout.Row]] = defaultdict(list)
    slots: dict[tuple[str, str], list[layout.Slot]] = defaultdict(list)
    archived = {(feature_id, entity_id): sums for feature_id, entity_id, sums in snapshot.archived}
    feature_of = {row.no: feature_id for feature_id, row in snapshot.rows}
    attached: dict[str, set[str]] = defaultdict(set)
    per_entity: set[str] = set()
    for feature_id, row in snapshot.rows:
        rows[feature_id, row.entity_id].append(row)
        if row.entity_id:
            attached[feature_id].add(row.entity_id)
        if row.per_entity:
            per_entity.add(feature_id)
    for entity_id, slot in snapshot.slots:
        if slot.no in feature_of:
            slots[feature_of[slot.no], entity_id].append(slot)
    for feature_id, entity_id in {*rows, *slots, *archived}:
        ordered = sorted(rows[feature_id, entity_id], key=layout.spending_key)
        name = keys.entity_field(feature_id, entity_id) if entity_id else b"b:" + feature_id.encode()
        fields[name] = layout.pack(
            ordered, slots[feature_id, entity_id], archived.get((feature_id, entity_id), layout.Archived())
        )
    for feature_id, ids in attached.items():
        fields[b"a:" + feature_id.encode()] = msgpack.packb(sorted(ids))
    if per_entity:
        fields[b"p"] = msgpack.packb(sorted(per_entity))
    if attached:
        fields[b"q"] = msgpack.packb(sorted(attached))
    return fields


def _entity_fields(snapshot: Snapshot) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    counts: dict[str, int] = defaultdict(int)
    for entity_id, feature_id in snapshot.entities:
        fields[b"e:" + entity_id.encode()] = feature_id.encode()
        counts[feature_id] += 1
    for feature_id, count in counts.items():
        fields[b"n:" + feature_id.encode()] = b"%d" % count
    return fields


def _cap_fields(snapshot: Snapshot) -> dict[bytes, bytes]:
    fields = {_place(b"k:", feature_id, entity_id): data for feature_id, entity_id, data in snapshot.caps}
    counters: dict[bytes, list[int]] = defaultdict(lambda: [layout.FORMAT])
    for window in snapshot.windows:
        counters[_place(b"w:", window.feature_id, window.entity_id)] += window[2:]
    return fields | {name: msgpack.packb(flat) for name, flat in counters.items()}


def _packed_hold(hold: Hold) -> bytes:
    return msgpack.packb([hold.gen, hold.seq, hold.receipt], use_bin_type=False)


def _place(kind: bytes, feature_id: str, entity_id: str) -> bytes:
    return kind + feature_id.encode() + (b"\0" + entity_id.encode() if entity_id else b"")
