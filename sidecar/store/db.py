"""One door to SQL: snapshots to read, short transactions to write, on SQLite and PostgreSQL.

Queries are plain functions of a SQLAlchemy connection. The API runs them on a small pool of
threads, so that a cancelled request can never leave half a transaction behind; the sync worker
calls them directly.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Callable, Concatenate, ContextManager, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event

T = TypeVar("T")
P = ParamSpec("P")

THREADS_MAX = 8
BUSY_TIMEOUT_MS = 15_000
CACHE_MAX_KIB = 16_384
"""Of a connection to SQLite."""
CHECKPOINT_PAGES = 4000
"""Of 4 KiB: how long SQLite's write-ahead log gets before it is brought into the file."""


class Store:
    """Connections to one database, named by a SQLAlchemy URL.

    `read` gives a consistent snapshot, `write` an all-or-nothing transaction. On SQLite a write
    begins IMMEDIATE: a transaction that reads first and writes later would fail at once under
    another writer, whatever the busy timeout."""

    def __init__(self, url: str):
        self.url = normal_url(url)
        self.is_sqlite = self.url.startswith("sqlite")
        self._engine = _sqlite_engine(self.url) if self.is_sqlite else create_engine(
            self.url, pool_size=THREADS_MAX, max_overflow=2, pool_pre_ping=True, pool_timeout=10,
            connect_args={"connect_timeout": 5},
        )
        # SQLite has one writer at a time and lets the others poll, each with longer and longer pauses:
        # under load some wait for seconds. Within a process they queue here instead.
        self._writing: ContextManager[object] = threading.Lock() if self.is_sqlite else nullcontext()
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="sql")

    @property
    def engine(self) -> Engine:
        return self._engine

    def read_sync(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kw: P.kwargs) -> T:
        """`fn(connection, …)` in a snapshot that sees one moment of the database."""
        options = {} if self.is_sqlite else {
            "isolation_level": "REPEATABLE READ", "postgresql_readonly": True,
        }
        with self._engine.connect().execution_options(**options) as conn, conn.begin():
            return fn(conn, *args, **kw)

    def write_sync(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kw: P.kwargs) -> T:
        """`fn(connection, …)` in a transaction that commits when it returns and rolls back when
        it raises."""
        with self._writing, self._engine.connect().execution_options(sidecar_write=True) as conn, conn.begin():
            return fn(conn, *args, **kw)

    async def read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kw: P.kwargs) -> T:
        """As `read_sync`, off the event loop."""
        return await self._run(lambda: self.read_sync(fn, *args, **kw))

    async def write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kw: P.kwargs) -> T:
        """As `write_sync`, off the event loop. Cancelling the caller does not cut it short."""
        return await asyncio.shield(self._run(lambda: self.write_sync(fn, *args, **kw)))

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def close(self) -> None:
        """Waits for what is running, then closes every connection."""
        self._threads.shutdown(wait=True)
        self._engine.dispose()


def normal_url(url: str) -> str:
    """A SQLAlchemy URL with the driver this project uses; accepts `postgres://…`, and a bare path
    as an SQLite file."""
    if url.startswith("postgres://"):
        url = "postgresql://" + url.removeprefix("postgres://")
    if url.startswith("postgresql://"):
        return "postgresql+psycopg://" + url.removeprefix("postgresql://")
    return url if "://" in url else f"sqlite:///{Path(url).absolute()}"


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(
        url, pool_size=THREADS_MAX, max_overflow=2,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _on_connect(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        # With the usual 2 MB and 1,000 pages the sync worker reads and writes the same index pages again and again.
        cursor.execute(f"PRAGMA cache_size=-{CACHE_MAX_KIB}")
        cursor.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(conn: Connection) -> None:
        write = conn.get_execution_options().get("sidecar_write")
        conn.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
