"""Routes for whoever runs the sidecar: is it alive, is it ready, what does it count; and the test
clock."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ..clock import real_now_ms
from ..engine import holds
from ..errors import ApiError, invalid
from ..store import settings_kv
from .endpoint import Call, Reply, endpoint

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
    if not ctx.clock.is_test_clock:
        raise ApiError(404, "invalid_request", "there is no test clock: start with SIDECAR_TEST_CLOCK=1 and a test key")
    given = [name for name in ("now_ms", "advance_ms") if body.get(name) is not None]
    if len(given) != 1:
        raise invalid("now_ms", "give either now_ms or advance_ms")
    value = body[given[0]]
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or value != int(value):
        raise invalid(given[0], "must be whole milliseconds")
    now_ms = await ctx.clock.now_ms()
    target = int(value) if given[0] == "now_ms" else now_ms + int(value)
    if target < now_ms:
        raise invalid(given[0], f"the test clock only moves forward; it is at {now_ms}")
    if target - real_now_ms() > AHEAD_MAX_MS:
        raise invalid(given[0], "is more than a hundred years ahead")
    offset_ms = await ctx.store.write(settings_kv.move_clock, target - real_now_ms())
    await ctx.engine.move_clock(offset_ms)
    await holds.expire_due(ctx.engine)
    return {"now_ms": await ctx.clock.now_ms()}


routes = [
    Route("/", home, methods=["GET"]),
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
    Route("/v1/test_clock", test_clock, methods=["POST"]),
]
