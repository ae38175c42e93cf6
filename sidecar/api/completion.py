"""check and track, between decoding and the call: what the body alone does not tell."""

from __future__ import annotations

import msgpack

from ..domain.quantities import QuantityError, scale
from ..engine import refunds
from ..engine.spend import CustomerMissing
from ..errors import invalid, not_found
from .decode import Decoded
from .endpoint import Context

CREATES_BELOW = (2, 1)
"""API versions below this one create an unknown customer in check and track."""

CLOCK_SKEW_MS = 60_000


async def complete(ctx: Context, decoded: Decoded, version: tuple[int, int]) -> None:
    """What decoding cannot know: whether the times that a call gives may be, and which event it
    gives back. Raises ApiError."""
    timestamp, lock = decoded.timestamp, decoded.spend.lock
    if timestamp is not None or (lock is not None and lock.expires_at):
        now_ms = await ctx.clock.now_ms()
        if timestamp is not None and timestamp > now_ms + CLOCK_SKEW_MS:
            raise invalid("timestamp", "is in the future")
        if lock is not None and lock.expires_at:
            life_ms = ctx.settings.hold_max_s * 1000
            if not now_ms < lock.expires_at <= now_ms + life_ms:
                raise invalid("lock.expires_at", f"must be in the future, at most {life_ms} ms ahead")
    if decoded.refund_of:
        await _find_refunded(ctx, decoded, version)


async def _find_refunded(ctx: Context, decoded: Decoded, version: tuple[int, int]) -> None:
    """Looks for the event that a track gives back, and makes it a call on that event's features."""
    call = decoded.spend
    try:
        event = await refunds.find(ctx.engine, call.customer_id, decoded.refund_of)
    except CustomerMissing:
        raise not_found("customer" if version >= CREATES_BELOW else "event", call.customer_id) from None
    except refunds.EventMissing:
        raise not_found("event", decoded.refund_of) from None
    except refunds.NotRefundable as problem:
        raise invalid("refund_of", str(problem)) from None
    names = [line.feature_id for line in event.lines]
    if decoded.feature_id is not None and decoded.feature_id not in names:
        raise invalid("feature_id", f"the event is one of {', '.join(map(repr, names))}")
    if call.entity_id and call.entity_id != event.entity_id:
        raise invalid("entity_id", f"the event is one of {event.entity_id!r}" if event.entity_id else "the event is the customer's")
    known = ctx.catalog.current.features
    if any(name not in known for name in names):
        known = (await ctx.catalog.refresh()).features
    features = []
    for name in names:
        if name not in known:
            raise not_found("feature", name)
        try:
            features.append((known[name], 0 if decoded.amount is None else scale(decoded.amount, known[name].precision)))
        except QuantityError as problem:
            raise invalid("value", str(problem)) from problem
    call.entity_id, call.features, call.refunded = event.entity_id, tuple(features), event.refunded
    call.info = msgpack.packb({**msgpack.unpackb(call.info), "r": [event.gen, event.seq]})
    if decoded.event_name is None and len(names) == 1:
        decoded.feature_id = names[0]
