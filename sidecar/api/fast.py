"""The short way of check and track: answered from Redis' reply, with no task and no ASGI between.

A subclass of uvicorn's `httptools` protocol. A request for one of the two routes that is in every
way usual is decoded as soon as its body is there, sent to Redis, and answered from the reply's
callback; every other request goes the ordinary way to Starlette, where the same routes exist over
the same functions. A usual request whose head came before, byte for byte, is not even parsed. The
order of pipelined requests and shutdown stay uvicorn's: a stand-in takes the place of its request
cycle. So does keep-alive, with one timer a connection in place of one a request.

uvicorn's members used here are private: pyproject.toml pins its minor version, `usable` checks for
them, and without them the short way stays off.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Sized

import msgspec
import structlog
import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from . import wire
from .endpoint import Reply
from .fast_calls import FastService
from .heads import END, Head

log = structlog.get_logger()
STATE = "fast"
"""Where the lifespan state has the `FastService`."""

STATUS_LINE = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
SIZES_MAX = 2_000

METHODS = (
    "connection_made", "data_received", "connection_lost", "on_message_begin", "on_headers_complete", "on_message_complete", "_start_asgi_task",
    "on_response_complete", "resume_writing", "_unset_keepalive_if_required", "timeout_keep_alive_handler",
)
PROTOCOL_MEMBERS = frozenset((
    "parser", "app", "app_state", "loop", "cycle", "pipeline", "flow", "transport", "url", "headers", "expect_100_continue",
    "limit_concurrency", "server_state", "tasks", "timeout_keep_alive", "timeout_keep_alive_task",
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
        and {"read_paused", "write_paused"}.issubset(_names(getattr(flow, "__init__", None)))
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


class FastCycle(msgspec.Struct, eq=False):
    """One request on the short way, with the members that uvicorn looks at in its own cycle. One made with
    its whole body is at its turn already, and launched by who makes it."""

    protocol: FastProtocol
    head: Head
    keep_alive: bool
    body: bytes | bytearray
    more_body: bool = False
    waits: bool = False
    started: bool = False
    disconnected: bool = False
    response_complete: bool = False

    @property
    def message_event(self) -> FastCycle:
        """What uvicorn sets when more of the request is there, or the connection has ended. (As an
        attribute it would be a cycle, left to the garbage collector.)"""
        return self

    def start(self) -> None:
        """It is this request's turn."""
        self.started = True
        self.set()

    def set(self) -> None:
        """Launches the call once its turn has come, its body is whole and the client reads."""
        if not self.waits or not self.started or self.more_body or self.disconnected:
            return
        if self.protocol.flow.write_paused:
            return  # a client that does not read gets nothing more done; `resume_writing` comes back
        self.waits = False
        self.protocol.service.launch(self)

    def respond(self, reply: Reply) -> None:
        """Answers, unless that is done already."""
        body, content_type = wire.encode(reply.body, self.head.form)
        if reply.status == 200 and not reply.headers:
            self.respond_ok(body)
            return
        parts = [STATUS_LINE[reply.status]]
        for name, value in self.protocol.server_state.default_headers:
            parts += [name, b": ", value, b"\r\n"]
        for header, text in reply.headers.items():
            parts.append(f"{header.lower()}: {text}\r\n".encode("latin-1"))
        parts.append(b"content-length: %d\r\ncontent-type: %b\r\n\r\n" % (len(body), content_type.encode()))
        self._send(b"".join(parts), body)

    def respond_ok(self, body: bytes) -> None:
        """As `respond`, a 200 whose body is ready."""
        headers, size = self.protocol.server_state.default_headers, len(body)
        heads = OK_PACKED_HEADS if self.head.packed else OK_HEADS
        head = heads.of_size.get(size) if heads.headers is headers else None
        self._send(head or heads.make(headers, size), body)

    def _send(self, head: bytes, body: bytes) -> None:
        """Writes an answer; only drops it if there is one already, or the client has gone."""
        if self.response_complete:
            return
        self.response_complete = True
        protocol = self.protocol
        transport = protocol.transport
        if self.disconnected or transport.is_closing():
            return
        if self.keep_alive:
            transport.write(head + body)
        else:
            transport.write(head[:-2] + b"connection: close\r\n\r\n" + body)
            transport.close()
        protocol.on_response_complete()


class _OkHeads:
    """The heads of 200s of one content type, by the size of the body, for as long as uvicorn's own
    headers are the same: it makes a new list of them each second."""

    def __init__(self, content_type: str) -> None:
        self._content_type = content_type.encode()
        self.headers: list[tuple[bytes, bytes]] = []
        self.of_size: dict[int, bytes] = {}

    def make(self, headers: list[tuple[bytes, bytes]], size: int) -> bytes:
        """The head for those headers and that size; kept while there are not too many."""
        if self.headers is not headers or len(self.of_size) >= SIZES_MAX:
            self.headers, self.of_size = headers, {}
        text = b"".join(b"%b: %b\r\n" % header for header in headers)
        made = STATUS_LINE[200] + text + b"content-length: %d\r\ncontent-type: %b\r\n\r\n" % (size, self._content_type)
        self.of_size[size] = made
        return made


OK_HEADS, OK_PACKED_HEADS = _OkHeads(wire.JSON), _OkHeads(wire.MSGPACK)


class _Flow(getattr(httptools_impl, "FlowControl", object)):  # type: ignore[misc]
    """uvicorn's, which reads on whenever an application asks for a body: with requests waiting that would be
    the next ones, and without end."""

    pipeline: Sized = ()

    def resume_reading(self) -> None:
        """Reads on, if nothing that was read waits for its turn."""
        if not self.pipeline:
            super().resume_reading()


class FastProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the short way, where the application's lifespan state has a service
    for it under `STATE`."""

    def __init__(self, *args: Any, **kw: Any):
        super().__init__(*args, **kw)
        self.service: FastService = self.app_state.get(STATE)  # type: ignore[assignment]
        self._turn: FastCycle | None = None
        """The request whose turn it is, if it goes the short way; `cycle` is the one read last."""
        self._between = self.service is not None and self.limit_concurrency is None
        """Whether the parser is at the beginning of a request, and has met only usual ones lately."""
        self._idle_since: float | None = None
        """When the last answer was given, if nothing has come since."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport)
        self.flow.pipeline = self.pipeline

    def data_received(self, data: bytes) -> None:
        """As uvicorn's; a request that is alone in its chunk, with a head seen before, is not parsed."""
        before = self.cycle
        if not self._between or (before is not None and not before.response_complete) or self.flow.write_paused:
            super().data_received(data)
            return
        end = data.find(END) + len(END)
        head = self.service.heads.known.get(data[:end])
        if head is not None and len(data) == end + head.length:
            self._idle_since = None
            self.cycle = self._turn = cycle = FastCycle(self, head, True, data[end:])  # type: ignore[assignment]
            self.service.launch(cycle)
            return
        super().data_received(data)
        made: Any = self.cycle
        if self._between and made is not before and made.keep_alive:
            self.service.heads.remember(data, end, made.head, made.body)

    def on_message_begin(self) -> None:
        self._between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._between = type(self.cycle) is FastCycle

    def on_headers_complete(self) -> None:
        """Decides which way a request goes."""
        head = None
        if self.service is not None:
            try:
                head = self._usual()
            except Exception:  # it would become uvicorn's 400
                log.exception("fast_call_failed")
        if head is None:
            super().on_headers_complete()
            return
        made = FastCycle(self, head, self.parser.should_keep_alive(), bytearray(), more_body=True, waits=True)
        existing, self.cycle = self.cycle, made  # type: ignore[assignment]
        if existing is None or existing.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def _usual(self) -> Head | None:
        """What the head of a request says that may go the short way."""
        parser = self.parser
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or parser.should_upgrade():
            return None
        if self.expect_100_continue or self.limit_concurrency is not None:
            return None
        return self.service.heads.read(self.url, self.headers)

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
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self.flow.pause_reading() if self.pipeline else self.flow.resume_reading()
            self._start_asgi_task(cycle, app)
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self._end_if_idle)

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
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    # Idle connections. uvicorn makes and cancels a timer for each request; here one looks when it fires.

    def _unset_keepalive_if_required(self) -> None:
        """Something has come: the connection is not idle."""
        self._idle_since = None

    def _end_if_idle(self) -> None:
        """Ends the connection if it has been idle for long enough, else looks again when it may have been."""
        now = self.loop.time()
        due = (now if self._idle_since is None else self._idle_since) + self.timeout_keep_alive
        if due <= now and self._idle_since is not None:
            self.timeout_keep_alive_handler()
        else:
            self.timeout_keep_alive_task = self.loop.call_at(due, self._end_if_idle)
