"""How the stores are and how far SQL is behind the log: for `/readyz`, `/metrics` and the bound on
the log's length. Polled a little, so that no call pays for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import hiredis
import structlog
from sqlalchemy import Connection, func, select

from ..store import partitions as partition_rows, settings_kv
from ..store.tables import sync_rejected
from . import keys
from .many import send_all
from .connection import Connection as Redis
from .errors import EngineError
from .partitions import opening_base

if TYPE_CHECKING:
    from .engine import Engine

log = structlog.get_logger()
POLL_S = 1.0
PROBE_TIMEOUT_S = 3.0
LAG_SECONDS_WARNED = 60
GENERATIONS_MAX = 100


@dataclass(frozen=True)
class LogState:
    """The log against SQL's cursors: entries kept, entries SQL does not have yet, the age of the
    oldest of those, and what could not be applied."""

    entries: int = 0
    behind: int = 0
    behind_s: float = 0.0
    rejected: int = 0


@dataclass
class Health:
    """What this process last saw of its stores."""

    engine: Engine
    log: LogState = field(default_factory=LogState)
    sql_error: str = ""
    redis_error: str = ""
    stopped: dict[int, str] = field(default_factory=dict)
    """Partitions whose log the sync worker does not carry on, and why."""
    _cursors: dict[int, partition_rows.Cursor] = field(default_factory=dict)
    _behind_since: float | None = None
    _behind_at: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def log_full(self) -> bool:
        """Whether the log has reached its bound, so that nothing more may be written."""
        return self.log.behind >= self.engine.settings.log_entries_max

    async def poll_forever(self) -> None:
        """Keeps the picture fresh until cancelled."""
        while True:
            try:
                await self.poll()
            except Exception:
                log.exception("health_not_polled")
            await asyncio.sleep(POLL_S)

    async def poll(self) -> None:
        """Looks once; a store that does not answer is noted, not raised."""
        rejected = self.log.rejected
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                self._cursors, rejected, self.stopped = await self.engine.store.read(_read)
            self.sql_error = ""
        except Exception as problem:
            self.sql_error = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        try:
            await self._measure(rejected)
            self.redis_error = ""
        except (EngineError, hiredis.ReplyError) as problem:
            self.redis_error = str(problem)

    async def _measure(self, rejected: int) -> None:
        """While SQL does not answer, against its cursors as last seen: they cannot be further back."""
        connection = await self.engine.connected()
        count = self.engine.settings.partitions
        lengths = await send_all(connection, [("XLEN", keys.log(p)) for p in range(count)])
        cursors = self._cursors
        if not cursors:
            self.log = LogState(sum(lengths), self.log.behind, self.log.behind_s, rejected)
            return
        held = [p for p in range(count) if lengths[p]]
        newest = await send_all(connection, [("XREVRANGE", keys.log(p), "+", "-", "COUNT", 1) for p in held])
        behind = 0
        for p, entries in zip(held, newest):
            if entries:
                behind += await _entries_after(connection, p, cursors[p], entries[0][0])
        now = asyncio.get_running_loop().time()
        positions = {p: (cursor.gen, cursor.seq) for p, cursor in cursors.items()}
        if not behind:
            self._behind_since = None
        elif self._behind_since is None or positions != self._behind_at:
            self._behind_since = now
        self._behind_at = positions
        self.log = LogState(sum(lengths), behind, now - self._behind_since if self._behind_since else 0.0, rejected)

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether calls are answered, and the detail of `/readyz`."""
        degraded = []
        if self.log.rejected:
            degraded.append(f"{self.log.rejected} log entries could not be applied to SQL: see the table sync_rejected")
        if self.log.behind_s > LAG_SECONDS_WARNED:
            degraded.append(f"SQL has not moved for {self.log.behind_s:.0f} s: is the sync worker running?")
        if self.stopped:
            degraded.append(f"sync stopped: {'; '.join(self.stopped[p] for p in sorted(self.stopped)[:3])}")
        if self.sql_error:
            degraded.append(f"SQL: {self.sql_error}")
        ready = not self.redis_error and not self.log_full and self.engine.connection is not None
        detail = {
            "status": ("degraded" if degraded else "ready") if ready else "unavailable",
            "redis": {"ok": not self.redis_error, **({"error": self.redis_error} if self.redis_error else {})},
            "sql": {"ok": not self.sql_error, **({"error": self.sql_error} if self.sql_error else {})},
            "sync": {
                "log_entries": self.log.entries, "behind_entries": self.log.behind,
                "behind_seconds": round(self.log.behind_s, 3), "rejected": self.log.rejected, "log_full": self.log_full,
            },
            "reasons": degraded if ready else [
                *([f"Redis: {self.redis_error or self.engine.last_error}"] if self.redis_error or not self.engine.connection else []),
                *(["the log has reached SIDECAR_LOG_ENTRIES_MAX"] if self.log_full else []), *degraded,
            ],
        }
        return ready, detail


async def _entries_after(connection: Redis, p: int, cursor: partition_rows.Cursor, newest: bytes) -> int:
    """How many entries of a log follow a cursor: of each later generation all, counted back by what
    its opening record says it goes on from."""
    gen, seq = map(int, newest.split(b"-"))
    count = 0
    for _ in range(GENERATIONS_MAX):
        if gen <= cursor.gen:
            break
        count += seq + 1
        opening = await connection.call("XRANGE", keys.log(p), f"{gen}-0", f"{gen}-0")
        base = opening_base(opening[0][1][1]) if opening else None
        if base is None:
            return count
        gen, seq = base
    return count + max(0, seq - cursor.seq) if gen == cursor.gen else count


def _read(conn: Connection) -> tuple[dict[int, partition_rows.Cursor], int, dict[int, str]]:
    rejected: int = conn.execute(select(func.count()).select_from(sync_rejected)).scalar_one()
    return partition_rows.cursors(conn), rejected, settings_kv.sync_stopped(conn)
