"""What every route shares: one call decoded, one reply encoded, every refusal in one shape.

A handler is `async def create(call: Call) -> Reply | dict | list`; `@endpoint` makes it a Starlette
endpoint. Errors become `{"message", "code", "env"}` here and nowhere else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Mapping
from urllib.parse import unquote

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError, TimeoutError as PoolTimeout
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from ..engine.errors import PartitionRefused, ReplyLost, StoreUnavailable
from ..errors import ApiError, NotSupported, invalid
from . import wire

if TYPE_CHECKING:
    from ..catalog.snapshot import CatalogCache
    from ..clock import Clock
    from ..engine.engine import Engine
    from ..engine.health import Health
    from ..settings import Settings
    from ..store.db import Store
    from .metrics import Metrics

log = structlog.get_logger()

SLASH_MARK = "\x1f"
"""Stands for an encoded slash while a route is looked for; no id holds a control character."""


@dataclass
class Context:
    """What handlers work with, made once per process by `app.build`."""

    settings: Settings
    store: Store
    engine: Engine
    catalog: CatalogCache
    clock: Clock
    metrics: Metrics
    health: Health


@dataclass
class Reply:
    """An answer with a status other than 200, or with headers."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Call:
    """One decoded request: `body` is the decoded value ({} when empty), numbers exact."""

    ctx: Context
    body: Any
    path: Mapping[str, str]
    query: Mapping[str, Any]
    headers: Mapping[str, str]
    version: tuple[int, int]
    env: str
    base_url: str

    @property
    def fields(self) -> dict[str, Any]:
        """The body as an object. Raises ApiError 400 for anything else."""
        if not isinstance(self.body, dict):
            raise invalid("body", "must be an object")
        return self.body


Handler = Callable[[Call], Awaitable[Reply | dict[str, Any] | list[Any]]]


def endpoint(handler: Handler, keyed: bool = False) -> Callable[[Request], Awaitable[Response]]:
    """The Starlette endpoint of a handler: decodes, calls, encodes, and answers every failure. One
    that is not `keyed` refuses an Idempotency-Key: a caller who sends it counts on its effect."""

    async def respond(request: Request) -> Response:
        env = getattr(request.state, "env", "sandbox")

        async def called() -> Reply | dict[str, Any] | list[Any]:
            call = await _decode(request, env)
            if not keyed and request.method != "GET" and call.headers.get("idempotency-key"):
                raise NotSupported("Idempotency-Key", "is supported on checks, tracks, holds and balances only, for now")
            return await handler(call)

        reply = await answered(called(), request.method, request.url.path, env)
        data, content_type = wire.encode(reply.body, request.headers.get("accept", wire.JSON))
        return Response(data, reply.status, reply.headers, content_type)

    respond.handler = handler  # type: ignore[attr-defined]
    respond.__name__ = handler.__name__
    respond.__doc__ = handler.__doc__
    return respond


async def answered(
    work: Awaitable[Reply | dict[str, Any] | list[Any]], method: str, path: str, env: str
) -> Reply:
    """The reply of a handler, or of whatever it raised."""
    try:
        reply = await work
        return reply if isinstance(reply, Reply) else Reply(reply)
    except ApiError as error:
        return error_reply(error, env)
    except (StoreUnavailable, PartitionRefused) as problem:
        body = {"message": f"not done, nothing changed: {problem}", "code": "unavailable", "env": env}
        return Reply(body, 503, {"Retry-After": "1"})
    except ReplyLost as problem:
        return Reply({"message": f"it may have been done: {problem}", "code": "outcome_unknown", "env": env}, 504)
    except (OperationalError, InterfaceError, PoolTimeout) as problem:
        return _sql_away(problem, method, env)
    except ClientDisconnect:
        raise
    except Exception:
        log.exception("request_failed", path=path)
        return internal_error(env)


def error_reply(error: ApiError, env: str) -> Reply:
    """The answer that an error stands for."""
    return Reply({"message": error.message, "code": error.code, "env": env}, error.status, error.headers)


def internal_error(env: str) -> Reply:
    """The answer to a fault of ours."""
    message = "internal error; the server's log has the details"
    return Reply({"message": message, "code": "internal_error", "env": env}, 500)


def _sql_away(problem: SQLAlchemyError, method: str, env: str) -> Reply:
    """SQL could not be reached, or its connection was cut under a call, perhaps as it committed."""
    log.warning("sql_unavailable", error=str(problem).splitlines()[0])
    if method != "GET" and getattr(problem, "connection_invalidated", False):
        body = {"message": "it may have been done: the connection to SQL was cut", "code": "outcome_unknown", "env": env}
        return Reply(body, 504)
    body = {"message": "not done, nothing changed: SQL does not answer", "code": "unavailable", "env": env}
    return Reply(body, 503, {"Retry-After": "1"})


def routing_path(scope: Scope) -> str:
    """The path to find a route by: decoded, but for a slash that a caller encoded, which is part of
    an id and does not divide the path."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%2f" not in raw.lower():
        return str(scope["path"])
    return unquote(re.sub(b"%2[fF]", SLASH_MARK.encode(), raw).decode("ascii"))


async def _decode(request: Request, env: str) -> Call:
    version = wire.version_of(request.headers.get("x-api-version"))
    data = await read_body(request)
    return Call(
        ctx=request.app.state.context,
        body=wire.decode(data, request.headers.get("content-type", wire.JSON)),
        path={name: value.replace(SLASH_MARK, "/") for name, value in request.path_params.items()},
        query=request.query_params,
        headers=request.headers,
        version=version,
        env=env,
        base_url=str(request.base_url).rstrip("/"),
    )


async def read_body(request: Request) -> bytes:
    """The whole body. Raises ApiError 413 past `wire.BODY_BYTES_MAX`, before reading it all."""
    too_large = ApiError(413, "invalid_request", f"body: larger than {wire.BODY_BYTES_MAX} bytes")
    if int(request.headers.get("content-length") or 0) > wire.BODY_BYTES_MAX:
        raise too_large
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > wire.BODY_BYTES_MAX:
            raise too_large
        parts.append(part)
    return b"".join(parts)
