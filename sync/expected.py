"""What Redis must hold of a customer, by SQL with the unread log played on it."""

from __future__ import annotations

from collections import defaultdict

from sidecar.domain import layout
from sidecar.engine.state import OpenHold, Place, Window

from .compare import Expected
from .working import Working


def expected_of(working: Working, cid: int) -> Expected | None:
    """The state of a customer that was read whole; None if Redis must not have it."""
    rows = working.rows
    row = rows.customers.get(cid)
    if row is None or cid in working.deleted or (row.deleted_at is not None and row.applied_version == row.structure_version):
        return None
    entry = working.last_entry.get(cid)
    live = [b for (owner, _), b in rows.buckets.items() if owner == cid and b.removed_at is None]
    archived: dict[Place, layout.Archived] = {}
    for bucket in live:
        if bucket.archived:
            count, granted, prepaid = archived.get((bucket.feature_id, bucket.entity_id), layout.Archived())
            archived[bucket.feature_id, bucket.entity_id] = layout.Archived(
                count + 1, granted + bucket.granted, prepaid + bucket.prepaid
            )
    windows: dict[Place, set[Window]] = defaultdict(set)
    for (owner, feature, entity_id, interval, anchor), one in rows.windows.items():
        if owner == cid:
            windows[feature, entity_id].add(Window(interval, anchor, one.start_ms, one.end_ms, one.used))
    return Expected(
        cid=cid,
        version=rows.versions[cid],
        last_ms=rows.last_ms[cid],
        next_roll=rows.next_roll[cid],
        rows={b.no: (b.feature_id, b.row()) for b in live if not b.archived},
        slots={
            (no, entity_id): layout.Slot(no, slot.balance, slot.period, slot.granted, slot.held)
            for (owner, no, entity_id), slot in rows.slots.items() if owner == cid
        },
        entities={entity_id: feature for (owner, entity_id), feature in rows.entities.items() if owner == cid},
        archived=archived,
        caps={(feature, entity_id): data for (owner, feature, entity_id), data in rows.caps.items() if owner == cid},
        windows={place: frozenset(found) for place, found in windows.items()},
        holds={
            lock_id: OpenHold(hold.expires_ms, hold.receipt, *hold.entry[1:])
            for (owner, lock_id), hold in rows.holds.items() if owner == cid
        },
        returned={(gen, seq): data for (owner, gen, seq), data in rows.returned.items() if owner == cid},
        unread_entry=(entry.gen, entry.seq) if entry else None,
        synced_entry=(row.log_gen, row.log_seq),
    )
