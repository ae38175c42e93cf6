"""HTTP by hand, over a socket: requests as bytes, answers taken apart as they came."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any, AsyncIterator, Iterator

from sidecar.api import fast, fast_calls
from tests.http import KEY

AUTHORIZATION = f"authorization: Bearer {KEY}".encode()
TIMEOUT_S = 20


@dataclass(frozen=True)
class Answer:
    """One answer, `before` it what came of informational ones."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    before: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    body: Any, path: str = "/v1/check", *headers: bytes, chunked: bool = False, method: str = "POST", http: str = "1.1"
) -> bytes:
    """One request's bytes; `body` is JSON unless it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % len(data)
    lines = [f"{method} {path} HTTP/{http}".encode(), b"host: x", AUTHORIZATION, framing, *headers]
    if chunked:
        half = len(data) // 2
        data = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (data[:half], data[half:]) if part) + b"0\r\n\r\n"
    return b"\r\n".join(lines) + b"\r\n\r\n" + data


def check(required: int = 1, **fields: Any) -> dict[str, Any]:
    """A check's body; the answer repeats `required`."""
    return {"customer_id": "c", "feature_id": "msg", "required_balance": required, **fields}


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer

    async def answer(self, has_body: bool = True) -> Answer:
        """The next answer. Raises IncompleteReadError when the connection ended."""
        async with asyncio.timeout(TIMEOUT_S):
            before = b""
            while True:
                head = await self.reader.readuntil(b"\r\n\r\n")
                status = int(head.split(b" ", 2)[1])
                if status >= 200:
                    break
                before += head
            pairs = (line.split(b": ", 1) for line in head[:-4].split(b"\r\n")[1:])
            headers = tuple((name, value) for name, value in pairs)
            size = int(dict(headers).get(b"content-length", 0)) if has_body else 0
            return Answer(status, headers, await self.reader.readexactly(size), before)

    async def call(self, data: bytes) -> Answer:
        """Sends one request; its answer."""
        self.writer.write(data)
        return await self.answer()

    async def ended(self) -> bool:
        """Whether the server has ended the connection with nothing more to say."""
        async with asyncio.timeout(TIMEOUT_S):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


@contextlib.asynccontextmanager
async def connected(path: str, limit: int = 1 << 20) -> AsyncIterator[Client]:
    """A connection to a Unix socket."""
    reader, writer = await asyncio.open_unix_connection(path, limit=limit)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


@contextlib.contextmanager
def counted() -> Iterator[list[fast.FastCycle]]:
    """The requests that went the short way within."""
    seen: list[fast.FastCycle] = []
    launch = fast_calls.FastService.launch

    def counting(service: fast_calls.FastService, cycle: fast.FastCycle) -> None:
        seen.append(cycle)
        launch(service, cycle)

    fast_calls.FastService.launch = counting  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        fast_calls.FastService.launch = launch  # type: ignore[method-assign]


@contextlib.contextmanager
def parsed() -> Iterator[list[fast.FastProtocol]]:
    """The requests that were parsed, on connections made within."""
    seen: list[fast.FastProtocol] = []
    begin = fast.FastProtocol.on_message_begin

    def counting(protocol: fast.FastProtocol) -> None:
        seen.append(protocol)
        begin(protocol)

    fast.FastProtocol.on_message_begin = counting  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        fast.FastProtocol.on_message_begin = begin  # type: ignore[method-assign]
