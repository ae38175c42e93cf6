"""The short way of check and track: answered from Redis' reply, with no task and no ASGI between.

A subclass of uvicorn's `httptools` protocol. A request for one of the two routes that is in every
way usual is decoded as soon as its body is there, sent to Redis, and answered from the reply's
callback; every other request goes the ordinary way to Starlette, where the same routes exist over
the same functions. Keep-alive, the order of pipelined requests, time-outs and shutdown stay
uvicorn's: a stand-in takes the place of its request cycle.

uvicorn's members used here are private: pyproject.toml pins its minor version, `usable` checks for
them, and without them the short way stays off.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import Any, Coroutine

import structlog
import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..engine import spend
from ..engine.errors import ReplyLost
from ..engine.spend import Refused, Result
from ..errors import ApiError
from . import check_track, decode, quick, wire
from .auth import Keys
from .decode import Decoded
from .endpoint import Call, Context, Reply, answered, error_reply, internal_error

log = structlog.get_logger()
STATE = "fast"
"""Where the lifespan state has the `FastService`."""

BODY_BYTES_MAX = 64 * 1024
"""A longer body goes the ordinary way."""

STATUS_LINE = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
OK = STATUS_LINE[200]
ROUTES = {
    path.encode(): verb
    for verb, paths in (("check", check_track.CHECK_PATHS), ("track", check_track.TRACK_PATHS))
    for path in paths
}
METHODS = (
    "connection_lost", "on_message_begin", "on_headers_complete", "_start_asgi_task", "on_response_complete", "resume_writing"
)
PROTOCOL_MEMBERS = frozenset((
    "parser", "app", "app_state", "loop", "cycle", "pipeline", "flow", "transport", "url", "headers", "expect_100_continue",
    "limit_concurrency", "server_state", "tasks",
))
CYCLE_MEMBERS = frozenset(("response_complete", "disconnected", "keep_alive", "message_event", "body", "more_body"))
FLOW_MEMBERS = ("pause_reading", "resume_reading", "pause_writing", "resume_writing")


def usable() -> bool:
    """Whether this uvicorn has what the short way is built on, each thing where it is looked for."""
    made = getattr(getattr(httptools_impl, "RequestResponseCycle", None), "__init__", None)
    flow = getattr(httptools_impl, "FlowControl", None)
    return (
        all(name in vars(HttpToolsProtocol) for name in METHODS)
        and PROTOCOL_MEMBERS.issubset((*_names(HttpToolsProtocol.__init__), *_names(HttpToolsProtocol.on_message_begin)))
        and CYCLE_MEMBERS.issubset(_names(made))
        and all(hasattr(flow, name) for name in FLOW_MEMBERS)
        and "write_paused" in _names(getattr(flow, "__init__", None))
    )


def _names(function: Any) -> tuple[str, ...]:
    """The names of attributes that a function uses, those it sets among them."""
    code = getattr(function, "__code__", None)
    return () if code is None else tuple(code.co_names)


def protocol(wanted: bool) -> Any:
    """What uvicorn is to speak HTTP with, for `Config(http=…)`."""
    if wanted and not usable():
        log.warning("fast_path_off", problem=f"uvicorn {uvicorn.__version__} is not built as it expects")
        wanted = False
    return FastProtocol if wanted else "httptools"


class FastCycle:
    """One request on the short way, with the members that uvicorn looks at in its own cycle."""

    def __init__(self, protocol: FastProtocol, verb: str, version: tuple[int, int], env: str, key: str | None, keep_alive: bool):
        self.protocol = protocol
        self.verb, self.version, self.env, self.key = verb, version, env, key
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.body = bytearray()
        self.more_body = True
        self._started = False
        self._launched = False

    @property
    def message_event(self) -> FastCycle:
        """What uvicorn sets when more of the request is there, or the connection has ended. (As an
        attribute it would be a cycle, left to the garbage collector.)"""
        return self

    def start(self) -> None:
        """It is this request's turn."""
        self._started = True
        self.set()

    def set(self) -> None:
        """Launches the call once its turn has come, its body is whole and the client reads. Nothing
        leaves this: an exception here would become uvicorn's 400, perhaps after the effect."""
        if not self._started or self._launched or self.more_body or self.disconnected:
            return
        if self.protocol.flow.write_paused:
            return  # a client that does not read gets nothing more done; `resume_writing` comes back
        self._launched = True
        try:
            self.protocol.service.launch(self)
        except Exception:
            log.exception("fast_call_failed", verb=self.verb)
            self.respond(internal_error(self.env))

    def respond(self, reply: Reply) -> None:
        """Answers, unless that is done already."""
        if self.response_complete:
            return
        body, content_type = wire.encode(reply.body)
        parts = [STATUS_LINE[reply.status]]
        for name, value in self.protocol.server_state.default_headers:
            parts += [name, b": ", value, b"\r\n"]
        for header, text in reply.headers.items():
            parts.append(f"{header.lower()}: {text}\r\n".encode("latin-1"))
        parts.append(b"content-length: %d\r\ncontent-type: %b\r\n" % (len(body), content_type.encode()))
        self._send(parts, body)

    def respond_ok(self, body: bytes) -> None:
        """As `respond`, a 200 whose JSON is ready."""
        if self.response_complete:
            return
        parts = [OK]
        for name, value in self.protocol.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"content-length: %d\r\ncontent-type: application/json\r\n" % len(body))
        self._send(parts, body)

    def _send(self, parts: list[bytes], body: bytes) -> None:
        """Writes an answer; only drops it once the client has gone."""
        self.response_complete = True
        protocol = self.protocol
        if self.disconnected or protocol.transport.is_closing():
            return
        parts.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        parts.append(body)
        protocol.transport.write(b"".join(parts))
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


class FastProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the short way, where the application's lifespan state has a service
    for it under `STATE`."""

    def __init__(self, *args: Any, **kw: Any):
        super().__init__(*args, **kw)
        self.service: FastService = self.app_state.get(STATE)  # type: ignore[assignment]
        self._turn: FastCycle | None = None
        """The request whose turn it is, if it goes the short way; `cycle` is the one read last."""

    def on_headers_complete(self) -> None:
        """Decides which way a request goes."""
        usual = None
        if self.service is not None:
            try:
                usual = self._usual()
            except Exception:  # it would become uvicorn's 400
                log.exception("fast_call_failed")
        if usual is None:
            super().on_headers_complete()
            return
        existing, self.cycle = self.cycle, FastCycle(self, *usual, self.parser.should_keep_alive())  # type: ignore[assignment]
        if existing is None or existing.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        if not isinstance(cycle, FastCycle):
            self._turn = None
            super()._start_asgi_task(cycle, app)
            return
        self._turn = cycle
        if cycle.more_body:
            cycle.start()
        else:  # its turn comes from the answer before it: not inside that, or a thousand would nest
            self.loop.call_soon(cycle.start)

    def on_response_complete(self) -> None:
        """As uvicorn's; but while read requests wait, no more are read, or a client that sends them
        faster than they are answered would fill the memory with them."""
        super().on_response_complete()
        if self.pipeline and not self.transport.is_closing():
            self.flow.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again: what was held back goes on."""
        super().resume_writing()
        if self._turn is not None:
            self.loop.call_soon(self._turn.set)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: what has not been started is not, and answers are dropped."""
        if self._turn is not None:
            self._turn.disconnected = True
        super().connection_lost(exc)

    def _usual(self) -> tuple[str, tuple[int, int], str, str | None] | None:
        """(verb, version, environment, idempotency key) of a request that may go the short way."""
        verb = ROUTES.get(self.url)
        if verb is None or self.parser.get_method() != b"POST" or self.expect_100_continue:
            return None
        if self.parser.get_http_version() != "1.1" or self.parser.should_upgrade() or self.limit_concurrency is not None:
            return None
        env = key = None
        version = wire.DEFAULT_VERSION
        length = content_type = None
        seen = set()
        for name, value in self.headers:
            if name not in LOOKED_AT:
                if name in UNUSUAL:
                    return None
                continue
            if name in seen:
                return None
            seen.add(name)
            if name == b"authorization":
                env = self.service.env_of(value)
            elif name == b"content-length":
                length = int(value) if len(value) < 7 and value.isdigit() else None
            elif name == b"content-type":
                content_type = value
            elif name == b"accept":
                if b"msgpack" in value:
                    return None
            elif name == b"x-api-version":
                known = self.service.version_of(value)
                if known is None:
                    return None
                version = known
            else:
                key = value.decode("latin-1")
        if env is None or length is None or not 0 < length <= BODY_BYTES_MAX:
            return None
        if content_type is not None and not content_type.startswith(b"application/json"):
            return None
        return verb, version, env, key


LOOKED_AT = frozenset(
    (b"authorization", b"content-length", b"content-type", b"accept", b"x-api-version", b"idempotency-key")
)
UNUSUAL = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"content-encoding"))


class FastService:
    """What every connection of a process shares: the application's parts, and small caches."""

    def __init__(self, ctx: Context, keys: Keys):
        self._ctx = ctx
        self._keys = keys
        self._versions: dict[bytes, tuple[int, int]] = {}
        self._closed = False

    def close(self) -> None:
        """The process ends: calls that lose their reply from now on are answered without another try."""
        self._closed = True

    def env_of(self, authorization: bytes) -> str | None:
        """The environment of a secret key that is accepted, else None."""
        return self._keys.secret_env(authorization.decode("latin-1"))

    def version_of(self, header: bytes) -> tuple[int, int] | None:
        """The version a header names, None if the ordinary way has something to say about it."""
        known = self._versions.get(header)
        if known is None:
            try:
                known = wire.version_of(header.decode("latin-1"))
            except ApiError:
                return None
            if len(self._versions) < 100:
                self._versions[header] = known
        return known

    def launch(self, cycle: FastCycle) -> None:
        """Decodes the request and makes its call; the cycle gets the answer, now or later. What is
        not a plain success is the ordinary way's to answer: it comes to the same."""
        ctx = self._ctx
        started = time.perf_counter()
        try:
            decoded = self._decoded(cycle)
        except ApiError:
            decoded = None
        if decoded is None:
            self._ordinary(cycle)
            return

        def done(outcome: Result | Exception | None) -> None:
            try:
                if isinstance(outcome, Result):
                    self._conclude(cycle, decoded, outcome, started)
                elif isinstance(outcome, Refused):
                    self._refuse(cycle, check_track.refused(outcome, decoded.spend, cycle.verb))
                elif isinstance(outcome, ReplyLost):
                    self._find_out(cycle, decoded, outcome, started)
                elif outcome is not None:
                    raise outcome
                else:
                    self._ordinary(cycle)
            except Exception:
                log.exception("fast_call_failed", verb=cycle.verb)
                cycle.respond(internal_error(cycle.env))

        if not spend.start(ctx.engine, ctx.catalog.current, decoded.spend, done):
            self._ordinary(cycle)

    def _conclude(self, cycle: FastCycle, decoded: Decoded, result: Result, started: float) -> None:
        ctx, version = self._ctx, cycle.version
        if cycle.verb == "track":
            cycle.respond(check_track.track_reply(ctx, decoded, result, version, started))
            return
        body = quick.answer_check(decoded, result, ctx.catalog.current) if version < (2, 0) else None
        if body is None or result.replayed:
            cycle.respond(check_track.check_reply(ctx, decoded, result, version, started))
            return
        check_track.count_check(ctx, result, started)
        cycle.respond_ok(body)

    def _decoded(self, cycle: FastCycle) -> Decoded | None:
        """The call, None when it is not of the usual kind."""
        if cycle.version < wire.DEFAULT_VERSION or self._ctx.health.log_full:
            return None
        catalog, data = self._ctx.catalog.current, bytes(cycle.body)
        decoder = quick.decode_check if cycle.verb == "check" else quick.decode_track
        decoded = decoder(data, cycle.key, cycle.version, catalog)
        if decoded is not None:
            return decoded
        body = wire.decode(data, wire.JSON)
        if type(body) is not dict or any(body.get(name) is not None for name in UNUSUAL_FIELDS):
            return None
        if cycle.verb == "track":
            return decode.decode_track(body, cycle.key, cycle.version, catalog)
        return decode.decode_check(body, cycle.key, catalog)

    def _refuse(self, cycle: FastCycle, error: ApiError) -> None:
        self._ctx.metrics.refused(cycle.verb, error.code)
        cycle.respond(error_reply(error, cycle.env))

    def _find_out(self, cycle: FastCycle, decoded: Decoded, lost: ReplyLost, started: float) -> None:
        """Makes a call again whose reply did not come, where a key tells whether it ran or nothing
        depends on that."""
        call = decoded.spend
        if self._closed or not (call.key or call.changes_nothing):
            self._refuse(cycle, check_track.lost(lost, call))
            return

        async def called() -> Any:
            body = wire.decode(bytes(cycle.body), wire.JSON)
            return await check_track.make(self._ctx, cycle.verb, decoded, body, cycle.version, started, resent=True)

        self._with_task(cycle, called())

    def _ordinary(self, cycle: FastCycle) -> None:
        """Makes the call by the ordinary route's handler."""

        async def called() -> Any:
            call = Call(
                ctx=self._ctx, body=wire.decode(bytes(cycle.body), wire.JSON), path={}, query={},
                headers={"idempotency-key": cycle.key} if cycle.key else {}, version=cycle.version, env=cycle.env,
                base_url="",
            )
            return await HANDLERS[cycle.verb](call)

        self._with_task(cycle, called())

    def _with_task(self, cycle: FastCycle, work: Coroutine[Any, Any, Any]) -> None:
        """Answers with what a coroutine comes to. Its task is one of uvicorn's, which waits for them
        when it stops, and in the end cancels them."""

        async def answer() -> None:
            try:
                cycle.respond(await answered(work, "POST", cycle.verb, cycle.env))
            except asyncio.CancelledError:
                stopped = "it may have been done: the server stops"
                cycle.respond(Reply({"message": stopped, "code": "outcome_unknown", "env": cycle.env}, 504))
                raise
            except Exception:
                log.exception("fast_call_failed", verb=cycle.verb)
                cycle.respond(internal_error(cycle.env))

        tasks = cycle.protocol.tasks
        task = asyncio.get_running_loop().create_task(answer())
        tasks.add(task)
        task.add_done_callback(tasks.discard)


HANDLERS: dict[str, Any] = {"check": check_track.check.handler, "track": check_track.track.handler}  # type: ignore[attr-defined]
UNUSUAL_FIELDS = ("timestamp", "product_id", "customer_data", "entity_data", "lock", "refund_of")
"""Fields that have something awaited or created."""
