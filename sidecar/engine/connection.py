"""One connection to Redis, thin: hiredis over an asyncio protocol.

A call made while none is under way leaves at once, others made in the same turn of the event loop
leave in one write. Nothing here reconnects or sends a call twice: a connection knows the run_id of
the server process it was made to, and ends with it. Every call has a deadline; one whose reply never
comes closes the connection.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, Callable

import hiredis
import structlog
from redis.asyncio.connection import parse_url

from . import preflight
from .errors import ReplyLost, StoreUnavailable
from .scripts import SCRIPTS, Script

log = structlog.get_logger()
Done = Callable[[Any], None]
WRITE_BUFFER_BYTES_MAX = 8 << 20
LOOKS = 4
"""How often within the time-out a connection looks whether a reply is overdue."""


class Connection(asyncio.Protocol):
    """A connection that is up, or has ended for good (`closed`)."""

    def __init__(self, timeout_ms: int):
        self.run_id = b""
        self.closed = False
        self.replicas = 0
        """How many replicas must have a write before its answer is handed over."""
        self._timeout_s = timeout_ms / 1000
        self._reader = hiredis.Reader(replyError=hiredis.ReplyError)
        self._waiting: deque[Done] = deque()
        self._held: list[tuple[Done, Any]] = []
        self._out: list[bytes] = []
        """What the turn's calls have to say to Redis; a flush is due while there is any."""
        self._flushed = 0
        """How many commands were written."""
        self._marks: deque[int] = deque()
        """How many commands there had been, the last few times the connection looked."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- calls -----------------------------------------------------------------------------------

    def send(self, parts: tuple[Any, ...], done: Done) -> None:
        """Sends one command; `done` gets its reply, or an exception: hiredis.ReplyError as Redis
        said it, ReplyLost when the connection ended after it was written."""
        self.send_packed(hiredis.pack_command(parts), done)

    def send_packed(self, command: bytes, done: Done) -> None:
        """As `send`, a command that is in Redis' protocol already. One that runs a script by its hash
        asks `run_forgotten` about a reply that is an exception."""
        if self.closed:
            done(StoreUnavailable("the connection to Redis is closed"))
            return
        waiting, out = self._waiting, self._out
        if not waiting and not self.replicas and self._transport is not None:  # nothing to go together with
            waiting.append(done)
            self._flushed += 1
            self._transport.write(command)
            return
        if not out:
            self._loop.call_soon(self._flush)
        out.append(command)
        waiting.append(done)

    def call(self, *parts: Any) -> asyncio.Future[Any]:
        """One command's reply. Raises what `send` would hand over as an exception."""
        future = self._loop.create_future()

        def done(reply: Any) -> None:
            if future.done():
                return
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

        self.send(parts, done)
        return future

    def run_script(self, script: Script, keys: tuple[bytes, ...], args: tuple[Any, ...], done: Done) -> None:
        """Runs a script, also one that Redis has forgotten."""

        def check(reply: Any) -> None:
            if not (isinstance(reply, Exception) and self.run_forgotten(reply, script, keys, args, done)):
                done(reply)

        self.send(("EVALSHA", script.sha, len(keys), *keys, *args), check)

    def run_forgotten(
        self, reply: Exception, script: Script, keys: tuple[bytes, ...], args: tuple[Any, ...], done: Done
    ) -> bool:
        """Whether that reply says that Redis has forgotten the script. Then nothing has run: it is
        loaded and run, by its text, so that someone who empties the script cache just then does no
        harm; `done` gets the reply of that."""
        if not (isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")):
            return False
        self.send(("SCRIPT", "LOAD", script.source), _ignore)
        self.send(("EVAL", script.source, len(keys), *keys, *args), done)
        return True

    async def script(self, script: Script, keys: tuple[bytes, ...], args: tuple[Any, ...]) -> Any:
        """As `run_script`, awaited."""
        future = self._loop.create_future()

        def done(reply: Any) -> None:
            if not future.done():
                future.set_exception(reply) if isinstance(reply, Exception) else future.set_result(reply)

        self.run_script(script, keys, args, done)
        return await future

    def close(self) -> None:
        """Ends the connection; calls without a reply get ReplyLost."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._timer = self._loop.call_later(self._timeout_s / LOOKS, self._look_for_overdue)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        next_reply, next_waiting = self._reader.gets, self._waiting.popleft
        if self.replicas:
            while (reply := next_reply()) is not False:
                self._hold(next_waiting(), reply)
            return
        while (reply := next_reply()) is not False:
            next_waiting()(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._timer:
            self._timer.cancel()
        lost = ReplyLost(f"the connection to Redis ended before its answer: {exc or 'closed'}")
        waiting, self._waiting = self._waiting, deque()
        held, self._held = self._held, []
        for done, _ in held:
            done(lost)
        for done in waiting:
            if done is not _wait_marker:
                done(lost)

    # -- within ----------------------------------------------------------------------------------

    def _flush(self) -> None:
        if self.closed or self._transport is None:
            return
        size = sum(map(len, self._out))
        if self._transport.get_write_buffer_size() + size > WRITE_BUFFER_BYTES_MAX:
            refused = [self._waiting.pop() for _ in self._out]
            self._out.clear()
            for done in reversed(refused):
                done(StoreUnavailable("Redis reads more slowly than calls come"))
            return
        if self.replicas:  # one WAIT ends each pipelined write
            self._waiting.append(_wait_marker)
            self._out.append(hiredis.pack_command(("WAIT", self.replicas, int(self._timeout_s * 500))))
        self._flushed += len(self._out)
        data = b"".join(self._out)
        self._out.clear()
        self._transport.write(data)

    def _hold(self, done: Done, reply: Any) -> None:
        if done is not _wait_marker:
            self._held.append((done, reply))
            return
        held, self._held = self._held, []
        enough = isinstance(reply, int) and reply >= self.replicas
        for caller, kept in held:
            caller(kept if enough else ReplyLost(f"only {reply} of {self.replicas} replicas have it in time"))

    def _look_for_overdue(self) -> None:
        """Ends the connection if a command that was there a whole time-out ago has no reply yet. Looks
        are counted, not calls timed: that costs a call nothing, and none is overdue because this very
        process stood still."""
        commands = self._flushed + len(self._out)
        self._marks.append(commands)
        if len(self._marks) > LOOKS and commands - len(self._waiting) < self._marks.popleft() and self._transport:
            self._transport.abort()
            return
        self._timer = self._loop.call_later(self._timeout_s / LOOKS, self._look_for_overdue)


def _ignore(_reply: Any) -> None:
    """The reply of a command that is sent for its effect; the next one tells whether it worked."""


def _wait_marker(_reply: Any) -> None:
    """Marks the place of a WAIT among the calls that wait."""


def redis_scheme(url: str) -> str:
    """The URL as Redis' client knows it: `valkey` and `valkeys` are other names of its schemes."""
    scheme, rest = url.split("://", 1)
    return {"valkey": "redis", "valkeys": "rediss"}.get(scheme, scheme) + "://" + rest


async def connect(url: str, timeout_ms: int, replicas: int = 0) -> Connection:
    """A connection that is ready: authenticated, its server's run_id known, every script there by its
    hash. Raises StoreUnavailable."""
    options = parse_url(redis_scheme(url))
    loop = asyncio.get_running_loop()
    connection = Connection(timeout_ms)
    try:
        async with asyncio.timeout(timeout_ms / 1000 * 2):
            if path := options.get("path"):
                await loop.create_unix_connection(lambda: connection, path)
            else:
                tls = ssl.create_default_context() if "connection_class" in options else None
                await loop.create_connection(
                    lambda: connection, options.get("host", "localhost"), options.get("port", 6379), ssl=tls
                )
            if password := options.get("password"):
                await connection.call("AUTH", *filter(None, (options.get("username"), password)))
            if options.get("db"):
                await connection.call("SELECT", options["db"])
            info = preflight.parse(await connection.call("INFO", "default"))
            refuse, warn = preflight.problems(info)
            if refuse:
                raise StoreUnavailable("this Redis cannot be used: " + "; ".join(refuse))
            for warning in warn:
                log.warning("redis_setup", problem=warning)
            connection.run_id = info["run_id"].encode()
            present = await connection.call("SCRIPT", "EXISTS", *(script.sha for script in SCRIPTS))
            for script in (script for script, there in zip(SCRIPTS, present) if not there):
                loaded = await connection.call("SCRIPT", "LOAD", script.source)
                if loaded.decode() != script.sha:
                    raise StoreUnavailable(f"Redis loaded another {script.name}.lua than this release ships")
            connection.replicas = replicas
    except (OSError, TimeoutError, ReplyLost, hiredis.ReplyError) as problem:
        connection.close()
        raise StoreUnavailable(f"Redis does not answer: {problem or type(problem).__name__}") from problem
    except BaseException:
        connection.close()
        raise
    return connection

