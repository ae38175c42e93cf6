"""Many tracks or checks in one call: each for itself, those that fail beside those that do not.

Calls that nothing stands in the way of leave together, those of one customer in order, in one write to
Redis. The others are made as ordinary calls, those of one customer one after another.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Iterator

import structlog
from starlette.routing import Route

from ..catalog.snapshot import Catalog
from ..engine import scripts, spend
from ..engine.errors import ReplyLost
from ..engine.spend import Refused, Result
from ..errors import ApiError, invalid
from . import check_track, quick
from .answers import amount_of, answer_check
from .completion import complete
from .decode import Decoded, check_fields, decode_check, decode_track, product_of
from .endpoint import Call, Context, Reply, answered, endpoint

log = structlog.get_logger()
ITEMS_MAX = 1000
CUSTOMERS_AT_ONCE = 32
"""How many customers' calls are made at once where they need more than the script."""

UNUSUAL = ("lock", "refund_of", "product_id", "customer_data", "entity_data")
"""Fields of calls that are more than one script."""


@dataclass(slots=True)
class Item:
    """One call of a batch: `body` as it came, `decoded` unless it asks about a plan, and in the
    end its `outcome`: a result, a whole answer, or the error it met."""

    body: dict[str, Any]
    decoded: Decoded | None = None
    outcome: Result | dict[str, Any] | ApiError | ReplyLost | None = None
    is_usual: bool = True
    """Whether one script makes it."""

    @property
    def is_unfinished(self) -> bool:
        """Whether it still is to be made, or its reply was lost."""
        return self.outcome is None or isinstance(self.outcome, ReplyLost)


@endpoint
async def batch_track(call: Call) -> Reply:
    """Tracks each item, in order for each customer."""
    started = time.perf_counter()
    items = await _made(call, "track")
    results = [_tracked(call.ctx, item, started) for item in items]
    return Reply({"success": True, "results": results}, 202)


@endpoint
async def batch_check(call: Call) -> dict[str, Any]:
    """Answers each item as a check of its own."""
    started = time.perf_counter()
    items = await _made(call, "check")
    return {"results": [_checked(call, item, started) for item in items]}


def _tracked(ctx: Context, item: Item, started: float) -> dict[str, Any]:
    result, decoded = item.outcome, item.decoded
    if isinstance(result, ApiError):
        ctx.metrics.refused("track", result.code)
        value = decoded.amount if decoded is not None else None
        return {"status": result.status, "event_id": None, "value": value, "code": result.code, "message": result.message}
    assert isinstance(result, Result) and decoded is not None
    check_track.count_track(ctx, result, started)
    return {"status": 200, "event_id": result.event_id, "value": amount_of(decoded, result)}


def _checked(call: Call, item: Item, started: float) -> dict[str, Any]:
    result = item.outcome
    if isinstance(result, dict):
        return result
    if isinstance(result, ApiError):
        call.ctx.metrics.refused("check", result.code)
        return {"code": result.code, "message": result.message}
    assert isinstance(result, Result) and item.decoded is not None
    check_track.count_check(call.ctx, result, started)
    return answer_check(item.decoded, result, call.ctx.catalog.current, call.version)


async def _made(call: Call, verb: str) -> list[Item]:
    """The items of a batch, each with its outcome. Raises ApiError where the body is no batch."""
    body, ctx = call.body, call.ctx
    if not isinstance(body, list) or not 1 <= len(body) <= ITEMS_MAX:
        raise invalid("body", f"must be an array of 1 to {ITEMS_MAX} items")
    check_track.require_built(call.version)
    if verb == "track":
        check_track.refuse_when_full(ctx)
    items = [Item(one) for one in body]
    of_customer: dict[str, list[Item]] = defaultdict(list)
    usual = quick.track_of if verb == "track" else quick.check_of
    for item in items:
        try:
            item.decoded = usual(item.body, ctx.catalog.current)
            if item.decoded is None:
                item.decoded = await _decoded(call, item.body, verb)
                item.is_usual = item.decoded is not None and all(item.body.get(name) is None for name in UNUSUAL)
        except ApiError as error:
            item.outcome = error
            continue
        of_customer[item.body["customer_id"]].append(item)
    together = Together(verb)
    for theirs in of_customer.values():
        if not ctx.health.log_full and all(item.is_usual for item in theirs):
            for item in _in_one_go(theirs):
                together.start(ctx, item)
    await together.done()
    turns = asyncio.Semaphore(CUSTOMERS_AT_ONCE)

    async def finish(theirs: list[Item]) -> None:
        async with turns:
            for item in theirs:
                if item.is_unfinished:
                    await _finish(call, verb, item)

    unfinished = [theirs for theirs in of_customer.values() if any(item.is_unfinished for item in theirs)]
    await asyncio.gather(*map(finish, unfinished))
    return items


async def _decoded(call: Call, body: Any, verb: str) -> Decoded | None:
    """The call in an item; None for a check of a plan. Raises ApiError."""
    if not isinstance(body, dict):
        raise invalid("item", "must be an object")
    if verb == "check" and product_of(body) is not None:
        check_fields(body, None)
        return None

    def decode(catalog: Catalog) -> Decoded:
        return decode_track(body, None, call.version, catalog) if verb == "track" else decode_check(body, None, catalog)

    decoded = await check_track.decode_with(call.ctx, decode)
    decoded.spend.brief = decoded.spend.script is scripts.TRACK
    if decoded.spend.lock is None and not decoded.refund_of:
        await complete(call.ctx, decoded, call.version)
    return decoded


def _in_one_go(theirs: list[Item]) -> Iterator[Item]:
    """A customer's first items that may leave together and are done in order: a call that asks for
    something first (a key that may be in SQL, a bucket that left the hot state) must not be overtaken."""
    keyed = False
    for item in theirs:
        assert item.decoded is not None
        call = item.decoded.spend
        if keyed and not call.key:
            return
        yield item
        keyed = keyed or bool(call.key)
        if any(amount < 0 for _, amount in call.features):
            return


class Together:
    """Usual calls that are made together, and waited for together."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._under_way = 0
        self._all_replied: asyncio.Future[None] | None = None

    def start(self, ctx: Context, item: Item) -> None:
        """Makes an item's call, unless something is in its way: then it gets no outcome here."""
        assert item.decoded is not None
        call = item.decoded.spend

        def replied(outcome: Result | Exception | None) -> None:
            if isinstance(outcome, (Result, ReplyLost)):
                item.outcome = outcome
            elif isinstance(outcome, Refused):
                item.outcome = check_track.refused(outcome, call, self._verb)
            elif outcome is not None:
                log.error("batch_item_failed", exc_info=outcome)
                item.outcome = ApiError(500, "internal_error", "internal error; the server's log has the details")
            self._under_way -= 1
            if not self._under_way and self._all_replied is not None and not self._all_replied.done():
                self._all_replied.set_result(None)

        self._under_way += 1
        if not spend.start(ctx.engine, ctx.catalog.current, call, replied):
            self._under_way -= 1

    async def done(self) -> None:
        """Every call has its outcome. To be awaited once, after the last was started."""
        if self._under_way:
            self._all_replied = asyncio.get_running_loop().create_future()
            await self._all_replied


async def _finish(call: Call, verb: str, item: Item) -> None:
    """Makes a call in the ordinary way, or again if its reply was lost and that does no harm."""
    ctx, decoded, resent = call.ctx, item.decoded, isinstance(item.outcome, ReplyLost)

    async def outcome() -> Result | dict[str, Any]:
        if decoded is None:
            return await check_track.check_product(ctx, item.body, None, call.version, str(item.body["product_id"]))
        if isinstance(item.outcome, ReplyLost) and not (decoded.spend.key or decoded.spend.changes_nothing):
            raise check_track.lost(item.outcome, decoded.spend)
        if not item.is_usual:
            await complete(ctx, decoded, call.version)
        if not decoded.spend.changes_nothing:
            check_track.refuse_when_full(ctx)
        result = await check_track.run(ctx, decoded, item.body, call.version, resent)
        if verb == "track":
            check_track.require_applied(decoded, result)
        return result

    async def made() -> dict[str, Any]:
        item.outcome = await outcome()
        return {}

    reply = await answered(made(), "POST", f"/v1/balances.batch_{verb}", call.env)
    if reply.status >= 400:
        item.outcome = ApiError(reply.status, reply.body["code"], reply.body["message"])


routes = [
    Route("/v1/balances.batch_track", batch_track, methods=["POST"]),
    Route("/v1/balances.batch_check", batch_check, methods=["POST"]),
]
