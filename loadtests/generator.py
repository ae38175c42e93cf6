"""The benchmark's load generator, in a process of its own: keep-alive connections over raw sockets,
each of which sends its next request when the last one is answered.

`python -m loadtests.generator` reads one JSON object from stdin ({"host", "port", "connections",
"seconds", "warm_up_s", "requests": [text, …]}) and prints one: {"requests_per_s", "p50_us", "p99_us",
"count"}. Any answer but a 200, and any broken connection, ends it with an error.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from typing import Any, cast

import uvloop

LENGTH_HEADER = b"content-length:"


class Connection(asyncio.Protocol):
    """One connection: sends `requests[offset], requests[offset + step], …` around and around."""

    def __init__(self, requests: list[bytes], offset: int, step: int):
        self._requests, self._next, self._step = requests, offset, step
        self._buffer = b""
        self._missing = 0
        self._sent_at_ns = 0
        self._measuring = self._stopping = False
        self.latencies_ns: list[int] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._send()

    def measure(self) -> None:
        """Latencies count from here on."""
        self.latencies_ns.clear()
        self._measuring = True

    def stop(self) -> None:
        """Sends nothing more; what is in flight is not counted."""
        self._measuring, self._stopping = False, True

    def _send(self) -> None:
        self._next = (self._next + self._step) % len(self._requests)
        self._sent_at_ns = time.perf_counter_ns()
        self._transport.write(self._requests[self._next])

    def data_received(self, data: bytes) -> None:
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
            self._answered()

    def _content_length(self, end: int) -> int:
        head = self._buffer[:end].lower()
        if not head.startswith(b"http/1.1 200"):
            self._fail(f"not a 200: {self._buffer!r}")
        at = head.index(LENGTH_HEADER) + len(LENGTH_HEADER)
        return int(head[at:].split(b"\r\n", 1)[0])

    def _answered(self) -> None:
        if self._measuring:
            self.latencies_ns.append(time.perf_counter_ns() - self._sent_at_ns)
        if not self._stopping:
            self._send()
        elif not self.ended.done():
            self.ended.set_result(None)
            self._transport.close()

    def _fail(self, message: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(message))
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(f"the connection was closed: {exc}"))


async def run(job: dict[str, Any]) -> dict[str, Any]:
    """Drives the job's connections for its time. Raises RuntimeError on any answer but a 200."""
    requests = [text.encode() for text in job["requests"]]
    many = job["connections"]
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(lambda k=k: Connection(requests, k, many), job["host"], job["port"]))[1]
        for k in range(many)
    ]
    gc.collect()
    gc.disable()  # a collection here would show as the server's latency
    await asyncio.sleep(job["warm_up_s"])
    for connection in connections:
        connection.measure()
    began_at = time.perf_counter()
    await asyncio.sleep(job["seconds"])
    took_s = time.perf_counter() - began_at
    for connection in connections:
        connection.stop()
    await asyncio.wait_for(asyncio.gather(*(connection.ended for connection in connections)), 30)
    latencies_ns = sorted(latency for connection in connections for latency in connection.latencies_ns)
    return {
        "count": len(latencies_ns),
        "requests_per_s": len(latencies_ns) / took_s,
        "p50_us": percentile(latencies_ns, 0.50) / 1000,
        "p99_us": percentile(latencies_ns, 0.99) / 1000,
    }


def percentile(ordered: list[int], share: float) -> int:
    """The smallest value that at least `share` of the sorted list does not exceed."""
    return ordered[max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1)]


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(json.load(sys.stdin)))))
