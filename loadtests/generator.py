"""A load generator in a process of its own: keep-alive connections over raw sockets, TCP or Unix.

`python -m loadtests.generator` reads one job from stdin, as JSON in a line: {"address": "host:port" or
"unix:path", "connections", "warm_up_s", "seconds", "requests": [text in Latin-1, …], "offset", "rate_per_s"}. It
connects, prints a line, and waits for a line: then it sends, counts once it is warm, and prints {"answered"
(in all), "latencies": [[us, count], …], "late": [[us, count], …]}.

With `rate_per_s` 0 the loop is closed: each connection sends its next request when the last is
answered. Otherwise requests come at that rate whatever the answers do (an open loop): one that finds
no connection free waits for one, and its latency counts from when it was due. "late" says how long after
it was due a request was sent; where a connection was free that is the generator's own fault.
Any answer but a 2xx, and any broken connection, ends it with an error.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import deque
from typing import Any, Callable, cast

import uvloop

from .histogram import Histogram

LENGTH_HEADER = b"content-length:"
END_TIMEOUT_S = 30


class Connection(asyncio.Protocol):
    """One connection, one request at a time; `load` is told of each answer, and if anything goes wrong."""

    load: Load

    def __init__(self) -> None:
        self._buffer = b""
        self._missing = 0
        self.due_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def send(self, request: bytes, due_ns: int) -> None:
        """Sends a request that was due then."""
        self.due_ns = due_ns
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Reads on in the answer."""
        if self._missing:
            self._missing -= len(data)
        else:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._missing = end + 4 + self._content_length(end) - len(self._buffer)
            self._buffer = b""
        if self._missing == 0:
            self.load.done(self)

    def _content_length(self, end: int) -> int:
        head = self._buffer[:end].lower()
        if not head.startswith(b"http/1.1 2"):
            self.load.failed(f"not a 2xx: {self._buffer!r}")
        at = head.index(LENGTH_HEADER) + len(LENGTH_HEADER)
        return int(head[at:].split(b"\r\n", 1)[0])

    def connection_lost(self, exc: Exception | None) -> None:
        """A server has no reason to close one."""
        self.load.failed(f"the connection was closed: {exc}")


class Load:
    """The job's requests, one after another, and what became of them."""

    def __init__(self, job: dict[str, Any]):
        self._requests = [text.encode("latin-1") for text in job["requests"]]
        self._next = job["offset"]
        self._rate_per_s = job["rate_per_s"]
        self._begin_ns = time.monotonic_ns() + int(job["warm_up_s"] * 1e9)
        self._end_ns = self._begin_ns + int(job["seconds"] * 1e9)
        self._free: list[Connection] = []
        self._waiting: deque[int] = deque()
        self._in_flight = 0
        self._all_sent = False
        self.answered = 0
        self.latencies_ns: list[int] = []
        self.late_ns: list[int] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, connections: list[Connection]) -> None:
        """Begins on these."""
        self._loop = asyncio.get_running_loop()
        for connection in connections:
            connection.load = self
        if self._rate_per_s:
            self._free = list(connections)
            self._due_ns = time.monotonic_ns()
            self._arrive()
        else:
            for connection in connections:
                self._send(connection, time.monotonic_ns())

    def failed(self, message: str) -> None:
        """Ends the whole load with an error."""
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(message))

    def done(self, connection: Connection) -> None:
        """A connection has its answer."""
        now_ns = time.monotonic_ns()
        self.answered += 1
        self._in_flight -= 1
        if self._counts(connection, now_ns):
            self.latencies_ns.append(now_ns - connection.due_ns)
        if self._rate_per_s:
            if self._waiting:
                self._send(connection, self._waiting.popleft())
            else:
                self._free.append(connection)
        elif now_ns < self._end_ns:
            self._send(connection, now_ns)
        else:
            self._all_sent = True
        self._end_if_answered()

    def _end_if_answered(self) -> None:
        if self._all_sent and self._in_flight == 0 and not self.ended.done():
            self.ended.set_result(None)

    def _counts(self, connection: Connection, now_ns: int) -> bool:
        """Open: what was due in the window. Closed: what was answered in it."""
        return self._begin_ns <= (connection.due_ns if self._rate_per_s else now_ns) < self._end_ns

    def _send(self, connection: Connection, due_ns: int) -> None:
        self._next = (self._next + 1) % len(self._requests)
        self._in_flight += 1
        connection.send(self._requests[self._next], due_ns)
        if self._rate_per_s and due_ns >= self._begin_ns:
            self.late_ns.append(time.monotonic_ns() - due_ns)

    def _arrive(self) -> None:
        """Sends what has become due. Looks without a pause: the loop's timers are a millisecond coarse."""
        now_ns = time.monotonic_ns()
        while self._due_ns <= now_ns and self._due_ns < self._end_ns:
            if self._free:
                self._send(self._free.pop(), self._due_ns)
            else:
                self._waiting.append(self._due_ns)
            self._due_ns += int(1e9 / self._rate_per_s)
        if self._due_ns < self._end_ns:
            self._loop.call_soon(self._arrive)
        else:
            self._all_sent = True
            self._end_if_answered()


async def run(job: dict[str, Any], wait: Callable[[], object]) -> dict[str, Any]:
    """Drives the job's connections for its time, once they are made and `wait` has returned. Raises
    RuntimeError on any answer but a 2xx."""
    loop, address = asyncio.get_running_loop(), str(job["address"])
    connections = []
    for _ in range(job["connections"]):
        if address.startswith("unix:"):
            _, connection = await loop.create_unix_connection(Connection, address.removeprefix("unix:"))
        else:
            host, _, port = address.rpartition(":")
            _, connection = await loop.create_connection(Connection, host, int(port))
        connections.append(connection)
    wait()
    load = Load(job)
    gc.collect()
    gc.disable()  # a collection here would show as the server's latency
    load.start(connections)
    await asyncio.wait_for(load.ended, job["warm_up_s"] + job["seconds"] + END_TIMEOUT_S)
    return {
        "answered": load.answered, "latencies": Histogram.of_ns(load.latencies_ns).pairs(),
        "late": Histogram.of_ns(load.late_ns).pairs(),
    }


def main() -> None:
    """The command."""
    job = json.loads(sys.stdin.readline())

    def wait() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(job, wait))))


if __name__ == "__main__":
    main()
