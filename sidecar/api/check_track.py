"""check and track over HTTP: decode, one trip through the engine, answer."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Callable, Mapping

from sqlalchemy import Connection
from starlette.routing import Route

from ..billing.change import plan_rows
from ..billing.customers import ensure_customer, get_or_create
from ..billing.entities import ensure_entity, entity_feature, open_entity_row
from ..catalog.snapshot import Catalog
from ..engine import holds, spend
from ..engine.errors import PartitionRefused, ReplyLost, StoreUnavailable
from ..engine.call import Spend
from ..engine.spend import Refused, Result
from ..errors import ApiError, NotSupported, invalid, not_found
from ..store import customers
from .answers import answer_check, answer_track
from .completion import CREATES_BELOW, complete
from .decode import Decoded, check_fields, decode_check, decode_track, product_of
from .endpoint import Call, Context, Reply, endpoint
from .request_data import customer_data_of, entity_data_of

async def run(
    ctx: Context, decoded: Decoded, body: Mapping[str, Any], version: tuple[int, int], resent: bool = False,
    verb: str = "track",
) -> Result:
    """Makes the call; below 2.1 an unknown customer (and an entity that the body describes) is
    created on the way. `resent`: it was sent already and got no reply. Raises ApiError."""
    call = decoded.spend
    customer_data, entity = customer_data_of(body, ctx), entity_data_of(body)
    made_entity = False
    while True:
        try:
            started = time.perf_counter()
            make = spend.run if call.lock is None else holds.hold
            result = await make(ctx.engine, ctx.catalog.current, call, resent)
            ctx.metrics.round_trip(time.perf_counter() - started)
            return result
        except spend.CustomerMissing:
            if version >= CREATES_BELOW:
                raise not_found("customer", call.customer_id) from None
            if call.entity_id and entity is None:  # refused anyway, so nobody is made
                raise not_found("entity", call.entity_id) from None
            if call.entity_id and entity is not None:
                entity_feature(await ctx.catalog.refresh(), entity.feature_id)
            await ensure_customer(ctx, call.customer_id, customer_data)
        except spend.EntityMissing:
            if call.refunded is not None:  # deleted since: what it had is gone, the plain rule follows
                call.entity_id = ""
                continue
            if version >= CREATES_BELOW or entity is None or made_entity:
                raise not_found("entity", call.entity_id) from None
            await ensure_entity(ctx, call.customer_id, entity)
            made_entity = True
        except Refused as refusal:
            raise refused(refusal, call, verb) from None
        except (StoreUnavailable, PartitionRefused) as problem:
            raise ApiError(503, "unavailable", f"not decided, nothing changed: {problem}", {"Retry-After": "1"}) from problem
        except ReplyLost as problem:
            raise lost(problem, call) from problem


def lost(problem: ReplyLost, call: Spend) -> ApiError:
    """The error of a call whose reply did not come."""
    if call.changes_nothing:
        return ApiError(503, "unavailable", f"not decided: {problem}", {"Retry-After": "1"})
    advice = "Repeat it with the same idempotency_key" if call.key else "An idempotency_key would make it safe to repeat it"
    return ApiError(504, "outcome_unknown", f"it may have been applied: {problem}. {advice}")


def refused(refusal: Refused, call: Spend, verb: str = "track") -> ApiError:
    """The error that a script's refusal stands for."""
    feature = call.features[min(refusal.feature, len(call.features) - 1)][0]
    if refusal.code == "CONFLICT":
        return ApiError(409, "duplicate_idempotency_key", "idempotency_key: was used for another call of this customer")
    if refusal.code == "FULL":
        return ApiError(
            503, "idempotency_full", "no room to remember another idempotency_key; see SIDECAR_IDEMPOTENCY_BYTES_MAX",
            {"Retry-After": "60"},
        )
    if refusal.code == "RANGE":
        return invalid(
            "value" if verb == "track" else "required_balance", f"takes a balance of {feature.id!r} out of the range of exact numbers at precision {feature.precision}"
        )
    if refusal.code == "SLOTS":
        return ApiError(422, "too_many_entities", f"would spend more than 1,000 entities' shares of {feature.id!r} at once")
    if refusal.code == "LOCKED" and call.lock is not None:
        return ApiError(409, "lock_already_exists", f"lock.lock_id: {call.lock.lock_id!r} is the name of an open hold")
    if refusal.code == "MANY":
        return ApiError(422, "too_many_holds", f"lock: the customer has {holds.OPEN_MAX} open holds; nothing was applied")
    if call.refunded is not None:
        if refusal.code == "OPEN":
            return invalid("refund_of", f"is the event of the open hold {call.refunded.lock_id!r}: finalize that")
        told = f"value: less than that is left of {feature.id!r} in the event; nothing was given back"
        return ApiError(400, "insufficient_balance", told)
    return not_covered(feature.id, refusal.reason)


def not_covered(feature_id: str, reason: str) -> ApiError:
    """The error of a track that does not fit, for that reason."""
    told = f" ({reason})" if reason else ""
    if reason == "usage_limit":
        return ApiError(400, "usage_limit_exceeded", f"value: a window of {feature_id!r} does not allow it{told}; nothing was applied")
    return ApiError(400, "insufficient_balance", f"value: the balance of {feature_id!r} does not cover it{told}; nothing was applied")


@partial(endpoint, keyed=True)
async def track(call: Call) -> Reply:
    """Takes usage off a customer's balance."""
    ctx, body = call.ctx, call.fields
    started = time.perf_counter()
    decoded = await decode_with(ctx, lambda catalog: decode_track(body, call.headers.get("idempotency-key"), call.version, catalog))
    require_built(call.version)
    await complete(ctx, decoded, call.version)
    return await make(ctx, "track", decoded, body, call.version, started)


@partial(endpoint, keyed=True)
async def check(call: Call) -> Reply:
    """Tells whether a customer may use so much of a feature, and with `send_event` takes it off."""
    ctx, body = call.ctx, call.fields
    started = time.perf_counter()
    if (product_id := product_of(body)) is not None:
        require_built(call.version)
        return Reply(await check_product(ctx, body, call.headers.get("idempotency-key"), call.version, product_id))
    decoded = await decode_with(ctx, lambda catalog: decode_check(body, call.headers.get("idempotency-key"), catalog))
    require_built(call.version)
    await complete(ctx, decoded, call.version)
    return await make(ctx, "check", decoded, body, call.version, started)


async def make(
    ctx: Context, verb: str, decoded: Decoded, body: Mapping[str, Any], version: tuple[int, int], started: float,
    resent: bool = False,
) -> Reply:
    """Makes a decoded check or track and answers it, counted; see `run`. Raises ApiError."""
    try:
        if not decoded.spend.changes_nothing:
            refuse_when_full(ctx)
        result = await run(ctx, decoded, body, version, resent, verb)
        if verb == "track":
            require_applied(decoded, result)
    except ApiError as error:
        ctx.metrics.refused(verb, error.code)
        raise
    return (track_reply if verb == "track" else check_reply)(ctx, decoded, result, version, started)


def require_applied(decoded: Decoded, result: Result) -> None:
    """Refuses a track with a lock that does not fit. Raises ApiError 400."""
    if not result.allowed:
        raise not_covered(decoded.spend.features[0][0].id, result.reason)


def track_reply(ctx: Context, decoded: Decoded, result: Result, version: tuple[int, int], started: float) -> Reply:
    """The answer of a track that was applied, counted; `started` by `time.perf_counter`."""
    reply = Reply(
        answer_track(decoded, result, ctx.catalog.current, version), 202 if decoded.asynchronous else 200, _headers(result)
    )
    count_track(ctx, result, started)
    return reply


def count_track(ctx: Context, result: Result, started: float) -> None:
    """Counts an application."""
    ctx.metrics.decided("track", "replayed" if result.replayed else "applied", "", time.perf_counter() - started)


def check_reply(ctx: Context, decoded: Decoded, result: Result, version: tuple[int, int], started: float) -> Reply:
    """The answer of a check that was decided, counted; `started` by `time.perf_counter`."""
    reply = Reply(answer_check(decoded, result, ctx.catalog.current, version), 200, _headers(result))
    count_check(ctx, result, started)
    return reply


def count_check(ctx: Context, result: Result, started: float) -> None:
    """Counts a decision."""
    ctx.metrics.decided("check", "allowed" if result.allowed else "denied", result.reason, time.perf_counter() - started)


async def check_product(
    ctx: Context, body: Mapping[str, Any], key_header: str | None, version: tuple[int, int], product_id: str
) -> dict[str, Any]:
    """Whether the customer (with `entity_id`, that entity) holds a plan now. Raises ApiError."""
    asked = check_fields(body, key_header)
    if asked.lock is not None:
        raise invalid("lock", "a hold is on a feature: give feature_id")
    customer_id, customer_data, entity = asked.customer_id, customer_data_of(body, ctx), entity_data_of(body)
    if product_id not in ctx.catalog.current.plans and product_id not in (await ctx.catalog.refresh()).plans:
        raise not_found("product", product_id)
    customer = await ctx.store.read(customers.by_id, customer_id)
    if customer is None and version >= CREATES_BELOW:
        raise not_found("customer", customer_id)
    if customer is None:
        if asked.entity_id and entity is None:  # refused anyway, so nobody is made
            raise not_found("entity", asked.entity_id)
        if entity is not None:
            entity_feature(ctx.catalog.current, entity.feature_id)
        customer = await get_or_create(ctx, customer_id, customer_data)
    if entity is not None and version < CREATES_BELOW:
        await ensure_entity(ctx, customer_id, entity)
    held = await ctx.store.read(_plans_of, customer.cid, asked.entity_id)
    statuses = [row["status"] for row in held if row["plan_id"] == product_id]
    answer: dict[str, Any] = {"allowed": bool(statuses), "customer_id": customer_id, "product_id": product_id}
    if version >= (2, 0):
        return {**answer, "balance": None, "flag": None}
    return {**answer, "code": "product_found", **({"status": statuses[0]} if statuses else {})}


def _plans_of(conn: Connection, cid: int, entity_id: str) -> list[Mapping[str, Any]]:
    """The plans of a customer itself, or of one of its entities. Raises ApiError 404."""
    if entity_id:
        open_entity_row(conn, cid, entity_id)
    return [row for row in plan_rows(conn, [cid]) if (row["entity_id"] or "") == entity_id]


def require_built(version: tuple[int, int]) -> None:
    """Refuses API versions older than any client still sends."""
    if version < (1, 2):
        raise NotSupported("x-api-version", f"answers of {version[0]}.{version[1]} are not supported; send 1.2 or later")


def refuse_when_full(ctx: Context) -> None:
    """Refuses what would write when the log is as long as it may get. Raises ApiError 503."""
    if ctx.health.log_full:
        raise ApiError(
            503, "log_full", "SQL is too far behind: the log has reached SIDECAR_LOG_ENTRIES_MAX; nothing was applied",
            {"Retry-After": "5"},
        )


async def decode_with(ctx: Context, decode: Callable[[Catalog], Decoded]) -> Decoded:
    """Decodes with the catalog in memory; a feature it does not know is looked for in SQL once."""
    try:
        return decode(ctx.catalog.current)
    except ApiError as error:
        if error.code != "feature_not_found":
            raise
    return decode(await ctx.catalog.refresh())


def _headers(result: Result) -> dict[str, str]:
    return {"Idempotency-Replayed": "true"} if result.replayed else {}


CHECK_PATHS = ("/v1/check", "/v1/entitled", "/v1/balances.check")
TRACK_PATHS = ("/v1/track", "/v1/events", "/v1/balances.track")
routes = [
    Route(path, handler, methods=["POST"])
    for handler, paths in ((check, CHECK_PATHS), (track, TRACK_PATHS))
    for path in paths
]
