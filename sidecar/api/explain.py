"""Where did the credits go: who would pay for a feature now, what limits it, and what changed lately.

The same answer at every API version: this route is the sidecar's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Iterable, NamedTuple, Sequence

from sqlalchemy import Connection
from starlette.routing import Route

from ..billing.controls import ANCHORS, OFF, ON
from ..catalog.controls import NO_CONTROLS, Controls
from ..catalog.snapshot import Catalog
from ..domain.intervals import INTERVALS
from ..domain.quantities import unscale
from ..engine import explain as engine_explain
from ..engine.explain import Bucket, Cap, Explanation
from ..engine.spend import CustomerMissing, EntityMissing
from ..errors import not_found
from ..store import customers, history, partitions
from ..store.events import event_id
from ..store.history import BucketLabel, Entry
from ..store.tables import entities
from . import fields
from .bucket_views import public_id
from .endpoint import Call, Reply, endpoint
from .events import event_value

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..store.db import Store

CHANGES_MAX = 50

Number = Callable[[str, int], Any]
"""A scaled quantity of a feature as it is shown."""


@endpoint
async def of_customer(call: Call) -> Reply | dict[str, Any]:
    """`GET /v1/customers/{id}/explain?feature_id=…&entity_id=…`, or the same fields in a body."""
    asked = {**dict(call.query), **call.fields}
    feature_id, entity_id = fields.identifier(asked, "feature_id"), fields.optional_id(asked, "entity_id")
    catalog = await call.ctx.catalog.refresh()
    return await explained(call.ctx.engine, call.ctx.store, catalog, call.path["customer_id"], feature_id, entity_id or "")


async def explained(
    engine: Engine, store: Store, catalog: Catalog, customer_id: str, feature_id: str, entity_id: str = ""
) -> dict[str, Any]:
    """The whole explanation, as the route answers it. Raises ApiError 404 for an unknown customer,
    entity or feature, and the stores' errors."""
    feature = catalog.features.get(feature_id)
    if feature is None:
        raise not_found("feature", feature_id)
    try:
        now = await engine_explain.explain(engine, catalog, customer_id, feature, entity_id)
    except CustomerMissing:
        raise not_found("customer", customer_id) from None
    except EntityMissing:
        raise not_found("entity", entity_id) from None
    ids = [feature_id, *(system.feature_id for system in catalog.systems_of.get(feature_id, ()))]
    past = await store.read(_past, engine.partition_of(customer_id), customer_id, ids, entity_id, now.last_entry)

    def number(of: str, scaled: int) -> Any:
        return unscale(scaled, catalog.features[of].precision)

    buckets = [bucket for bucket in now.buckets if not bucket.rollover]
    rollovers = [bucket for bucket in now.buckets if bucket.rollover and (bucket.balance or bucket.granted)]
    return {
        "customer_id": customer_id,
        "feature_id": feature_id,
        "entity_id": entity_id or None,
        "now": now.now_ms,
        "allowed": now.allowed,
        "reason": now.reason or None,
        "accepts": None if now.accepts is None else number(feature_id, now.accepts),
        "truncated": now.truncated,
        "buckets": [_bucket(bucket, number, feature_id) for bucket in buckets],
        "rollovers": [_rollover(bucket, number, feature_id) for bucket in rollovers],
        "caps": [shown for cap in now.caps for shown in _caps(cap, past, number)],
        "holds": _holds(now, number),
        "changes": [_change(entry, past.labels, ids, number) for entry in past.entries],
        "changes_pending": past.behind,
    }


class _Past(NamedTuple):
    """What SQL knows of it. `behind`: it does not have the customer's last log entry yet."""

    customer: Controls
    entity: Controls
    entries: Sequence[Entry]
    labels: dict[int, BucketLabel]
    behind: bool


def _past(
    conn: Connection, p: int, customer_id: str, feature_ids: list[str], entity_id: str, last: tuple[int, int]
) -> _Past:
    customer = customers.by_id(conn, customer_id)
    if customer is None:  # deleted since
        raise not_found("customer", customer_id)
    own = NO_CONTROLS
    if entity_id:
        of_entity = entities.select().where(entities.c.cid == customer.cid, entities.c.id == entity_id)
        row = conn.execute(of_entity).mappings().one_or_none()
        own = Controls.from_json(row["billing_controls"] if row is not None else None)
    entries = history.newest(conn, customer.cid, feature_ids, entity_id, CHANGES_MAX)
    numbers = sorted({line.no for entry in entries for line in entry.lines})
    _, cursor = partitions.places(conn, [p])[p]
    return _Past(
        Controls.from_json(customer.billing_controls), own, entries, history.labels(conn, customer.cid, numbers),
        (cursor.gen, cursor.seq) < last,
    )


def _bucket(bucket: Bucket, number: Number, asked: str) -> dict[str, Any]:
    of = bucket.feature_id
    return {
        "id": public_id(bucket.no),
        "feature_id": of,
        "plan_id": bucket.plan_id or None,
        "entity_id": bucket.entity_id or None,
        "balance": number(of, bucket.balance),
        "granted": number(of, bucket.granted),
        "gives": None if bucket.gives is None else number(asked, bucket.gives),
        "floor": None if bucket.floor is None else number(of, bucket.floor),
        "expires_at": bucket.expires_at or None,
    }


def _rollover(bucket: Bucket, number: Number, asked: str) -> dict[str, Any]:
    shown = _bucket(bucket, number, asked)
    del shown["floor"]
    return {**shown, "rolled_over_from": public_id(bucket.parent)}


def _caps(cap: Cap, past: _Past, number: Number) -> Iterable[dict[str, Any]]:
    """The caps in force for one feature, each with where it comes from."""
    of = cap.feature_id

    def source(name: str, own: bool | None) -> str:
        """An entity's field holds its own entries, and what plans of its own say; without one the
        customer's hide the plans'."""
        tiers = [("entity", past.entity, own is not False), ("customer", past.customer, not own)]
        for tier, controls, possible in tiers:
            if possible and any(entry.feature_id in (None, of) for entry in getattr(controls, name)):
                return tier
        return "plan"

    if cap.spend_limit is not None:
        yield {
            "kind": "spend_limit", "feature_id": of, "limit": number(of, cap.spend_limit),
            "used": number(of, cap.overage), "source": source("spend_limits", cap.own_spends),
        }
    for window in cap.windows:
        yield {
            "kind": "usage_limit", "feature_id": of, "limit": number(of, window.limit), "used": number(of, window.used),
            "interval": INTERVALS[window.interval], "anchor": ANCHORS[window.anchor], "starts_at": window.start,
            "ends_at": window.end, "source": source("usage_limits", cap.own_windows),
        }
    if cap.control in (OFF, ON):
        yield {
            "kind": "overage_allowed", "feature_id": of, "enabled": cap.control == ON, "limit": None, "used": None,
            "source": source("overage_allowed", None),
        }


def _holds(now: Explanation, number: Number) -> list[dict[str, Any]]:
    return [
        {
            "lock_id": hold.lock_id, "feature_id": hold.feature_id, "entity_id": hold.entity_id or None,
            "held": number(hold.feature_id, hold.held), "expires_at": hold.expires_at,
        }
        for hold in now.holds
    ]


def _change(entry: Entry, labels: dict[int, BucketLabel], feature_ids: Sequence[str], number: Number) -> dict[str, Any]:
    """One log entry. Of an event that fed several features, the one that was asked for."""
    event = min(entry.events, key=lambda event: feature_ids.index(event.feature_id), default=None)
    shown: dict[str, Any] = {
        "id": event_id(entry.p, entry.gen, entry.seq),
        "at": entry.at,
        "kind": entry.lines[0].kind if event is None else "refund" if event.refund_of else "event",
    }
    if event is not None:
        shown.update(
            feature_id=event.feature_id, entity_id=event.entity_id or None, value=event_value(event),
            applied=number(event.feature_id, event.applied), refund_of=event.refund_of,
        )
    shown["deltas"] = [
        {
            "balance_id": public_id(line.no), "feature_id": line.feature_id, "plan_id": labels[line.no].plan_id or None,
            "entity_id": line.entity_id or None, "kind": line.kind, "value": number(line.feature_id, line.delta),
        }
        for line in entry.lines if line.feature_id is not None and line.no in labels
    ]
    return shown


routes = [Route("/v1/customers/{customer_id}/explain", of_customer, methods=["GET"])]
