"""Routes of events: what was tracked, from SQL, which the sync worker keeps within a second of it."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, Mapping

import msgpack
from starlette.routing import Route

from ..billing.customers import find
from ..catalog.model import Feature
from ..domain.quantities import PRECISION_MAX, unscale
from ..errors import NotSupported, invalid
from ..store.events import NO_PARTS, Event
from ..store.history import BucketLabel, labels
from ..store.listings import EventFilter, event_place, events_page
from . import fields
from .answers import moved
from .balance_views_v2 import reset_of
from .bucket_views import public_id
from .endpoint import Call, Reply, endpoint
from .paging import CURSORS_FROM, paging_of

FEATURES_MAX = 100


@endpoint
async def list_events(call: Call) -> Reply | dict[str, Any]:
    """A page of a customer's events, newest first: one entry for each feature that an event fed."""
    fields.refuse_old(call.version)
    asked = call.fields
    if asked.get("customer_id") is None:
        raise NotSupported("customer_id", "events are listed of one customer at a time; name it")
    wanted, paging = filter_of(asked), paging_of(call.version, asked, "e", 4)
    customer = await find(call.ctx, fields.identifier(asked, "customer_id"))
    features = (await call.ctx.catalog.refresh()).features
    found, more = await call.ctx.store.read(
        events_page, customer.cid, paging.limit, paging.offset, paging.after, wanted
    )
    payers: Mapping[int, BucketLabel] = {}
    if call.version >= CURSORS_FROM:
        paid = {no for event in found for no, _ in _paid(event)}
        payers = await call.ctx.store.read(labels, customer.cid, sorted(paid))
    shown = [event_json(event, features, call.version, payers) for event in found]
    return paging.answer(shown, more, event_place(found[-1]) if found else None)


@endpoint
async def aggregate(call: Call) -> Reply | dict[str, Any]:
    """Sums over time: not built."""
    raise NotSupported("events.aggregate", "is not supported yet; events.list has the single events")


def filter_of(asked: Mapping[str, Any]) -> EventFilter:
    """Which events a body asks for. Raises ApiError 400."""
    raw = asked.get("feature_id")
    ids = raw if isinstance(raw, list) else [] if raw is None else [raw]
    if isinstance(raw, list) and not 1 <= len(raw) <= FEATURES_MAX:
        raise invalid("feature_id", f"must be an id, or a list of 1 to {FEATURES_MAX}")
    span = fields.json_object(asked, "custom_range") or {}
    start, end = (_moment(span.get(name), f"custom_range.{name}") for name in ("start", "end"))
    if start is not None and end is not None and end < start:
        raise invalid("custom_range.end", "is before custom_range.start")
    names = tuple(fields.checked_id(each, "feature_id") for each in ids)
    return EventFilter(names, fields.optional_id(asked, "entity_id"), start, end)


def event_json(
    event: Event, features: Mapping[str, Feature], version: tuple[int, int], payers: Mapping[int, BucketLabel]
) -> dict[str, Any]:
    """One feature's line of an event: what was asked for, and beside it what was applied; where a
    version has it, also what each bucket paid (negative: got back). `payers` names the buckets."""
    feature = features.get(event.feature_id)
    shown: dict[str, Any] = {
        "id": event.id,
        "timestamp": event.timestamp,
        "feature_id": event.feature_id,
        "customer_id": event.customer_id,
        "entity_id": event.entity_id or None,
        "event_name": event.event_name,
        "value": event_value(event),
        "applied": unscale(event.applied, feature.precision if feature else _precision(event, Decimal(event.value))),
        "properties": event.properties or {},
    }
    if version >= CURSORS_FROM:
        shown["deductions"] = [
            _deduction(payers[no], features[payers[no].feature_id], delta) for no, delta in _paid(event)
            if no in payers and payers[no].feature_id in features
        ]
    return shown


def event_value(event: Event) -> int | Decimal:
    """The value as it was sent."""
    value = Decimal(event.value)
    return int(value) if value == value.to_integral_value() else value


def _paid(event: Event) -> list[tuple[int, int]]:
    """(bucket number, what was added to its balance), each bucket once, in the order of paying."""
    sums: dict[int, int] = {}
    for no, delta in moved(msgpack.unpackb(event.parts or NO_PARTS)):
        sums[no] = sums.get(no, 0) + delta
    return list(sums.items())


def _deduction(payer: BucketLabel, feature: Feature, delta: int) -> dict[str, Any]:
    """One bucket's part; its reset date is the present one."""
    return {
        "balance_id": public_id(payer.no), "feature_id": feature.id, "plan_id": payer.plan_id or None,
        "reset": reset_of(payer), "value": unscale(-delta, feature.precision),
    }


def _precision(event: Event, value: Decimal) -> int:
    """The precision of a feature that is gone: what makes the value sent the quantity recorded."""
    if not event.requested or not value:
        return 0
    return max(0, min(PRECISION_MAX, round(math.log10(Decimal(event.requested) / value))))


def _moment(raw: Any, path: str) -> int | None:
    """A time in milliseconds, None for none."""
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, (int, float)) or not 0 <= raw < 1 << 53:
        raise invalid(path, "must be milliseconds since 1970")
    return int(raw)


routes = [
    *(Route(path, list_events, methods=["POST"]) for path in ("/v1/events/list", "/v1/events.list")),
    *(Route(path, aggregate, methods=["POST"]) for path in ("/v1/events/aggregate", "/v1/events.aggregate", "/v1/query")),
]
