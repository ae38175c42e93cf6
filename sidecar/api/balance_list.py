"""What balances.list shows: every bucket of a view by itself, in the shape of an API version."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from ..domain.quantities import unscale
from ..errors import not_found
from ..store import balance_ids, customers
from .balance_views import balance_v12
from .balance_views_v2 import balance_v20, balance_v21, bucket_id, rollover_v21
from .bucket_views import FeatureView, Part, view_of
from .customer_views import HeldFeature, held_by_customer, held_by_entity
from .endpoint import Call


async def listed(call: Call, customer_id: str, feature_id: str | None, entity_id: str | None) -> list[dict[str, Any]]:
    """The breakdown entries of the customer's view (or an entity's), each with feature_id, held and
    overage. Raises ApiError 404 for an unknown customer, feature or entity."""
    ctx = call.ctx
    names = await ctx.store.read(_names, customer_id)
    catalog = await ctx.catalog.refresh()
    if feature_id is not None and feature_id not in catalog.features:
        raise not_found("feature", feature_id)
    state = await ctx.engine.view(customer_id)
    if state is None or names is None:
        raise not_found("customer", customer_id)
    if entity_id is not None and entity_id not in state.entity_features:
        raise not_found("entity", entity_id)
    held = held_by_customer(state, catalog) if entity_id is None else held_by_entity(state, entity_id, catalog)
    return [
        entry
        for one in held if feature_id in (None, one.feature.id)
        for entry in _entries(call, one, names, customer_id)
    ]


def _entries(call: Call, one: HeldFeature, names: dict[int, str], customer_id: str) -> list[dict[str, Any]]:
    view = view_of(one.rows, one.slots, one.archived)
    if view is None or view.boolean:
        return []
    precision = one.feature.precision
    shown: dict[str, Any] | None
    if call.version < (2, 0):
        shown = balance_v12(one.feature, one.rows, one.slots, one.archived)
    elif call.version == (2, 0):
        shown = balance_v20(one.feature, one.rows, one.slots, one.archived)
    else:
        shown = balance_v21(one.feature, one.rows, call.ctx.catalog.current, one.slots, one.archived)
    assert shown is not None
    return [
        {
            **entry, "id": names.get(part.row.no) or bucket_id(part.row), "plan_id": part.row.plan_id or None,
            "feature_id": one.feature.id, "held": unscale(part.held, precision), "overage": unscale(part.overage, precision),
            **(_owner(part, view, customer_id, precision) if call.version >= (2, 1) else {}),
        }
        for entry, part in zip(shown["breakdown"], view.entries, strict=True)
    ]


def _owner(part: Part, view: FeatureView, customer_id: str, precision: int) -> dict[str, Any]:
    """What the newest clients want to know of each entry: whose it is, since when, and what rolled
    over from it. Only what can be spent is listed, so that all are active."""
    return {
        "customer_id": customer_id, "entity_id": part.row.entity_id or None, "status": "active",
        "created_at": part.row.created_at,
        "rollovers": [rollover_v21(precision, kept) for kept in view.rollovers if kept.row.parent == part.row.no],
    }


def _names(conn: Connection, customer_id: str) -> dict[int, str] | None:
    """How buckets were named, by number; None without such a customer."""
    customer = customers.by_id(conn, customer_id)
    return None if customer is None else {no: name for name, no in balance_ids.of(conn, customer.cid).items()}
