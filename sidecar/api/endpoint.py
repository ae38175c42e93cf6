"""What every route shares: one call decoded, one reply encoded, every refusal in one shape.

A handler is `async def create(call: Call) -> Reply | dict | list`; `@endpoint` makes it a Starlette
endpoint. Errors become `{"message", "code", "env"}` here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Mapping

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError, TimeoutError as PoolTimeout
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..engine.errors import PartitionRefused, ReplyLost, StoreUnavailable
from ..errors import ApiError, invalid
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


def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """The Starlette endpoint of a handler: decodes, calls, encodes, and answers every failure."""

    async def respond(request: Request) -> Response:
        accept = request.headers.get("accept", wire.JSON)
        env = getattr(request.state, "env", "sandbox")
        try:
            call = await _decode(request, env)
            reply = await handler(call)
            if not isinstance(reply, Reply):
                reply = Reply(reply)
        except ApiError as error:
            body = {"message": error.message, "code": error.code, "env": env}
            reply = Reply(body, error.status, error.headers)
        except (StoreUnavailable, PartitionRefused) as problem:
            body = {"message": f"not done, nothing changed: {problem}", "code": "unavailable", "env": env}
            reply = Reply(body, 503, {"Retry-After": "1"})
        except ReplyLost as problem:
            body = {"message": f"it may have been done: {problem}", "code": "outcome_unknown", "env": env}
            reply = Reply(body, 504)
        except (OperationalError, InterfaceError, PoolTimeout) as problem:
            reply = _sql_away(problem, request.method, env)
        except ClientDisconnect:
            raise
        except Exception:
            log.exception("request_failed", path=request.url.path)
            body = {"message": "internal error; the server's log has the details", "code": "internal_error", "env": env}
            reply = Reply(body, 500)
        data, content_type = wire.encode(reply.body, accept)
        return Response(data, reply.status, reply.headers, content_type)

    respond.__name__ = handler.__name__
    respond.__doc__ = handler.__doc__
    return respond


def _sql_away(problem: SQLAlchemyError, method: str, env: str) -> Reply:
    """SQL could not be reached, or its connection was cut under a call, perhaps as it committed."""
    log.warning("sql_unavailable", error=str(problem).splitlines()[0])
    if method != "GET" and getattr(problem, "connection_invalidated", False):
        body = {"message": "it may have been done: the connection to SQL was cut", "code": "outcome_unknown", "env": env}
        return Reply(body, 504)
    body = {"message": "not done, nothing changed: SQL does not answer", "code": "unavailable", "env": env}
    return Reply(body, 503, {"Retry-After": "1"})


async def _decode(request: Request, env: str) -> Call:
    version = wire.version_of(request.headers.get("x-api-version"))
    data = await read_body(request)
    return Call(
        ctx=request.app.state.context,
        body=wire.decode(data, request.headers.get("content-type", wire.JSON)),
        path=request.path_params,
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
