"""Composition: settings in, a Starlette application out. The only place that knows every part."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from .api import (
    balances, batch, billing, catalog, check_track, customers, entities, events, explain, fast, fast_calls, holds, operate,
    pages, rpc, wire,
)
from .api.auth import Keys
from .api.endpoint import Context, routing_path
from .api.metrics import Metrics
from .catalog.snapshot import CatalogCache
from .clock import Clock
from .engine.engine import Engine
from .engine.health import Health
from .errors import ApiError
from .settings import Settings
from .store import partitions, settings_kv
from .store.db import Store


def build(settings: Settings) -> Starlette:
    """The application. Its lifespan connects the stores and ends them again."""

    keys = Keys(settings.secret_keys)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with running(settings) as context:
            app.state.context = context
            short_way = fast_calls.FastService(context, keys)
            yield {fast.STATE: short_way} if settings.fast_path else {}
            short_way.close()

    routes = [
        route
        for module in (
            operate, check_track, holds, batch, customers, entities, balances, billing, catalog, rpc, events, explain, pages,
        )
        for route in module.routes
    ]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_error})
    app.add_middleware(Authorized, keys=keys)
    return app


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Context]:
    """Everything a process needs to answer calls, started and in the end stopped in order."""
    store = Store(settings.database_address)

    async def read_offset() -> int:
        return await store.read(settings_kv.clock_offset_ms)

    clock = Clock(read_offset if settings.test_clock else None)
    await store.write(partitions.ensure, settings.partitions)
    engine = Engine(settings, store, clock)
    await engine.start()
    cache = CatalogCache(store)
    await cache.refresh()
    health = Health(engine)
    metrics = Metrics()
    background = [asyncio.create_task(work) for work in (cache.poll_forever(), health.poll_forever(), metrics.fold_forever())]
    try:
        yield Context(settings, store, engine, cache, clock, metrics, health)
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await engine.close()
        metrics.fold()
        store.close()


class Authorized:
    """Lets a request through when its key may make it; notes the environment it belongs to."""

    def __init__(self, app: ASGIApp, keys: Keys):
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        authorization = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        try:
            env = self._keys.authorize(
                authorization.decode("latin-1") if authorization else None, scope["method"], scope["path"]
            )
        except ApiError as error:
            await _refusal(error.status, error.code, error.message)(scope, receive, send)
            return
        scope.setdefault("state", {})["env"] = env
        scope["path"] = routing_path(scope)
        await self._app(scope, receive, send)


async def _http_error(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    if problem.status_code == 404:
        return _refusal(404, "invalid_request", "there is no such route here")
    if problem.status_code == 405:
        return _refusal(405, "invalid_request", "this route does not take that method")
    return _refusal(problem.status_code, "invalid_request", str(problem.detail))


def _refusal(status: int, code: str, message: str) -> Response:
    data, content_type = wire.encode({"message": message, "code": code, "env": "sandbox"})
    return Response(data, status, media_type=content_type)
