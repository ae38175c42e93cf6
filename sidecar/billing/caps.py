"""The caps of a customer by SQL: what its controls ask for now, and what is decided already.

Read in the transaction that decides, under the customer's row lock, and without the catalog in memory:
a cap must not be missing because a process has yet to hear of a feature.
"""

from __future__ import annotations

from typing import Iterable

from sqlalchemy import Connection, select

from ..catalog.controls import Controls
from ..store import caps, outbox
from ..store.tables import buckets, customer_plans, entities, features, plans
from .controls import Key, Sources, effective
from .steps import Op


def wanted(conn: Connection, cid: int, own: Controls, ops: Iterable[Op]) -> dict[Key, bytes]:
    """The caps that the customer's `own` controls, its entities' and its plans' amount to, with the
    buckets that `ops` are about to add."""
    sources = _sources(conn, cid, own)
    if sources.is_empty:
        return {}
    held: set[str] = set()
    if sources.speak_of_all:
        of_customer = select(buckets.c.feature_id).where(buckets.c.cid == cid, buckets.c.removed_at.is_(None))
        held.update(conn.execute(of_customer.distinct()).scalars())
        held.update(op[1] for op in [*_pending(conn, cid), *ops] if op[0] == "add")
    counted = select(features.c.id, features.c.precision, features.c.type).where(
        features.c.id.in_(held | sources.feature_ids()), features.c.type != "boolean"
    )
    rows = conn.execute(counted).all()
    systems = {row.id for row in rows if row.type == "credit_system"}
    return effective(sources, {row.id: row.precision for row in rows}, held, systems)


def decided(conn: Connection, cid: int) -> dict[Key, bytes]:
    """The caps after the last decided step."""
    found: dict[Key, bytes] = {(feature_id, entity_id): data for feature_id, entity_id, data in caps.of(conn, cid)}
    for op in _pending(conn, cid):
        if op[0] == "caps":
            key = op[1], op[2]
            if op[3]:
                found[key] = op[3]
            else:
                found.pop(key, None)
    return found


def _sources(conn: Connection, cid: int, own: Controls) -> Sources:
    of_plans = (
        select(customer_plans.c.entity_id, plans.c.billing_controls)
        .join(plans, plans.c.uid == customer_plans.c.plan_uid)
        .where(customer_plans.c.cid == cid, customer_plans.c.ended_at.is_(None), plans.c.billing_controls.is_not(None))
        .order_by(customer_plans.c.uid)
    )
    of_entities = select(entities.c.id, entities.c.billing_controls).where(
        entities.c.cid == cid, entities.c.billing_controls.is_not(None), entities.c.status != "closing"
    )
    return Sources(
        own,
        [(entity_id or "", Controls.from_json(stored)) for entity_id, stored in conn.execute(of_plans)],
        {entity_id: Controls.from_json(stored) for entity_id, stored in conn.execute(of_entities)},
    )


def _pending(conn: Connection, cid: int) -> list[Op]:
    """The operations of the steps that SQL does not have yet, oldest first."""
    return [op for step in outbox.after(conn, cid, -1) for op in outbox.operations(step)]
