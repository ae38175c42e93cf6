"""Routes for whoever runs the sidecar: is it alive, is it ready, what does it count; and the test
clock."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..billing import customers
from ..clock import real_now_ms
from ..engine import holds
from ..errors import ApiError, invalid
from ..store import settings_kv
from . import fields
from .endpoint import Call, Context, Reply, endpoint

AHEAD_MAX_MS = 100 * 366 * 86_400_000


@endpoint
async def home(call: Call) -> dict[str, Any]:
    """Says what answers here."""
    return {"service": "sidecar", "status": "ok"}


async def livez(_request: Request) -> Response:
    """200 while the process runs; touches nothing."""
    return Response(b'{"status":"alive"}', media_type="application/json")


@endpoint
async def readyz(call: Call) -> Reply:
    """200 when calls are answered, else 503; either way with the state of Redis, SQL and sync."""
    await call.ctx.health.poll()
    ready, detail = call.ctx.health.report()
    return Reply(detail, 200 if ready else 503)


async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    ctx = request.app.state.context
    counted = ctx.metrics
    counted.log_entries.set(ctx.health.log.entries)
    counted.sync_lag.set(ctx.health.log.behind)
    counted.sync_lag_seconds.set(ctx.health.log.behind_s)
    counted.sync_rejected.set(ctx.health.log.rejected)
    counted.lost_acknowledged.set(ctx.engine.partitions.lost_acknowledged)
    return Response(counted.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@endpoint
async def test_clock(call: Call) -> dict[str, Any]:
    """Moves the test clock forward, for scripts and worker alike, before it answers."""
    ctx, body = call.ctx, call.fields
    _require_test_clock(ctx)
    given = [name for name in ("now_ms", "advance_ms") if body.get(name) is not None]
    if len(given) != 1:
        raise invalid("now_ms", "give either now_ms or advance_ms")
    name = given[0]
    value, now_ms = _whole_ms(body[name], name), await ctx.clock.now_ms()
    await _move(ctx, now_ms, value if name == "now_ms" else now_ms + value, name)
    return {"now_ms": await ctx.clock.now_ms()}


@endpoint
async def advance_test_clock(call: Call) -> dict[str, Any]:
    """The same as 2.4 asks for it, by a customer's id: there is one clock, which is everybody's."""
    ctx, body = call.ctx, call.fields
    _require_test_clock(ctx)
    customer = await customers.find(ctx, fields.identifier(body, "customer_id"))
    frozen_time = _whole_ms(body.get("frozen_time"), "frozen_time")
    await _move(ctx, await ctx.clock.now_ms(), frozen_time, "frozen_time")
    return {"customer_id": customer.id, "frozen_time": frozen_time, "status": "ready"}


def _require_test_clock(ctx: Context) -> None:
    if not ctx.clock.is_test_clock:
        raise ApiError(404, "invalid_request", "there is no test clock: start with SIDECAR_TEST_CLOCK=1 and a test key")


def _whole_ms(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or value != int(value):
        raise invalid(name, "must be whole milliseconds")
    return int(value)


async def _move(ctx: Context, now_ms: int, target_ms: int, name: str) -> None:
    """Moves the clock from now to a moment, and ends the holds that are over then. Raises ApiError 400
    naming the field."""
    if target_ms < now_ms:
        raise invalid(name, f"the test clock only moves forward; it is at {now_ms}")
    if target_ms - real_now_ms() > AHEAD_MAX_MS:
        raise invalid(name, "is more than a hundred years ahead")
    offset_ms = await ctx.store.write(settings_kv.move_clock, target_ms - real_now_ms())
    await ctx.engine.move_clock(offset_ms)
    await holds.expire_due(ctx.engine)


routes = [
    Route("/", home, methods=["GET"]),
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
    Route("/v1/test_clock", test_clock, methods=["POST"]),
    Route("/v1/customers.advance_test_clock", advance_test_clock, methods=["POST"]),
]
