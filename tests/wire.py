"""Requests with next to nothing in between: to an app in memory, and to a server on a Unix socket.

An httpx client takes several times the processor time that the app takes to answer, mostly for what no
test needs. What comes back is an `httpx.Response`, so a test can be given an httpx client instead.
"""

from __future__ import annotations

import asyncio
import functools
import time
from typing import Any, Mapping, Protocol
from urllib.parse import unquote

import httpx
import httptools

BASE_URL = httpx.URL("http://sidecar.test")
TIMEOUT_S = 60
IDLE_MAX_S = 30
"""Longer than that a connection is not kept for another request: soon the server would end it."""

Headers = Mapping[str, str | bytes]


class Client(Protocol):
    """Who makes requests."""

    async def request(self, method: str, path: str, *, content: bytes | None = None, headers: Headers | None = None) -> httpx.Response:
        """One request's answer. `path` may be a URL, whose host is then only a header."""

    async def aclose(self) -> None:
        """Ends what connections there are; the next request makes another."""


@functools.lru_cache(maxsize=10_000)
def _target(path: str) -> tuple[bytes, bytes, bytes, str]:
    """The host, the path and the query as they are sent, and the path as it is meant."""
    url = BASE_URL.join(path)
    raw_path, _, query = url.raw_path.partition(b"?")
    return url.netloc, raw_path, query, unquote(raw_path)


def _response(status: int, headers: Any, body: list[bytes]) -> httpx.Response:
    """What came, and no header more; given as `content`, a body would get its length."""
    response = httpx.Response(status, headers=headers, stream=httpx.ByteStream(b"".join(body)))
    response.read()
    return response


class _Caller:
    """Headers that every request has, unless it is given them otherwise."""

    def __init__(self, headers: Headers | None = None):
        self._headers = {"accept": "*/*", "connection": "keep-alive", "user-agent": "tests", **(headers or {})}

    def _all_headers(self, method: str, host: bytes, content: bytes | None, given: Headers | None) -> list[tuple[bytes, bytes]]:
        headers: dict[str, str | bytes] = {"host": host, **self._headers}
        if content is not None or method in ("POST", "PUT", "PATCH"):
            headers["content-length"] = str(len(content or b""))
        for name, value in (given or {}).items():
            headers[name.lower()] = value
        return [(name.encode("ascii"), value.encode("ascii") if isinstance(value, str) else value) for name, value in headers.items()]


class InMemory(_Caller):
    """Calls an ASGI app directly. What it raises is raised."""

    def __init__(self, app: Any, headers: Headers | None = None):
        super().__init__(headers)
        self._app = app

    async def request(self, method: str, path: str, *, content: bytes | None = None, headers: Headers | None = None) -> httpx.Response:
        host, raw_path, query, meant = _target(path)
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": meant,
            "raw_path": raw_path, "query_string": query, "root_path": "", "server": (host.decode(), None),
            "client": ("127.0.0.1", 123), "headers": self._all_headers(method, host, content, headers),
        }
        answered, asked = asyncio.Event(), False
        start: dict[str, Any] = {}
        body: list[bytes] = []

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": content or b"", "more_body": False}
            await answered.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                assert not start
                start.update(message)
            elif message["type"] == "http.response.body":
                assert start and not answered.is_set()
                body.append(message.get("body", b""))
                if not message.get("more_body", False):
                    answered.set()

        await self._app(scope, receive, send)
        assert answered.is_set()
        return _response(start["status"], start["headers"], body)

    async def aclose(self) -> None:
        pass


class OverSocket(_Caller):
    """Calls a server on a Unix socket: on a connection that is free, or else a new one."""

    def __init__(self, path: str, headers: Headers | None = None):
        super().__init__(headers)
        self._path = path
        self._free: list[_Connection] = []

    async def request(self, method: str, path: str, *, content: bytes | None = None, headers: Headers | None = None) -> httpx.Response:
        host, raw_path, query, _ = _target(path)
        lines = [b"%b %b%b HTTP/1.1\r\n" % (method.encode(), raw_path, b"?" + query if query else b"")]
        lines += [b"%b: %b\r\n" % header for header in self._all_headers(method, host, content, headers)]
        async with asyncio.timeout(TIMEOUT_S):
            connection = await self._connection()
            try:
                answer = await connection.exchanged(b"".join([*lines, b"\r\n", content or b""]))
            finally:
                if connection.usable():
                    self._free.append(connection)
                else:
                    connection.close()
        return answer

    async def _connection(self) -> _Connection:
        while self._free:
            connection = self._free.pop()
            if connection.usable():
                return connection
            connection.close()
        _, made = await asyncio.get_running_loop().create_unix_connection(_Connection, self._path)
        return made

    async def aclose(self) -> None:
        while self._free:
            self._free.pop().close()


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._parser: Any
        self._answer: asyncio.Future[httpx.Response] | None = None
        self._headers: list[tuple[bytes, bytes]]
        self._body: list[bytes]
        self._kept = False
        self._free_since = 0.0

    async def exchanged(self, request: bytes) -> httpx.Response:
        """Sends a request; its answer. Raises ConnectionError if the server ends the connection before."""
        if self._transport.is_closing():
            raise ConnectionError("the server ended the connection before the request")
        self._parser, self._headers, self._body = httptools.HttpResponseParser(self), [], []
        self._answer, self._kept = asyncio.get_running_loop().create_future(), False
        self._transport.write(request)
        return await self._answer

    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._kept and not self._transport.is_closing() and time.monotonic() - self._free_since < IDLE_MAX_S

    def close(self) -> None:
        """Ends the connection."""
        self._transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, problem: Exception | None) -> None:
        self._kept = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(problem or ConnectionError("the server ended the connection without an answer"))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        self._kept, self._free_since = self._parser.should_keep_alive(), time.monotonic()
        if self._answer is not None and not self._answer.done():  # whoever waited for it may have given up
            self._answer.set_result(_response(self._parser.get_status_code(), self._headers, self._body))
