"""`sidecar audit` as a process: beside a running sidecar, or alone on its data folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Callable, Iterator

from .. import folder
from ..settings import Settings
from . import lock, prepare
from .errors import RunError
from .supervisor import Tree

if TYPE_CHECKING:
    from rich.console import Console

    from sync.audit import AuditResult

LOOK_S = 0.1
VALUE_CHARS_MAX = 120


def run(settings: Settings) -> int:
    """Compares, prints the differences, and returns the exit code: 0 none, 1 some.

    Raises RunError if it could not compare, for whatever reason: a failure is never taken for
    a finding."""
    from .. import logs

    logs.setup(settings.model_copy(update={"log_level": "error"}), "audit")
    if settings.database_url is None and not folder.database(settings.data_dir).exists():
        raise RunError(f"there is no database in {settings.data_dir}; name the folder of a sidecar with --data-dir")
    try:
        with _stores(settings) as asked_to_stop:
            result = asyncio.run(_audit(settings, asked_to_stop))
    except RunError:
        raise
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise RunError("the audit was interrupted before it had compared everything") from None
    except Exception as problem:  # any traceback would end with 1, which says "differences"
        raise RunError(f"could not compare: {type(problem).__name__}: {problem}") from problem
    _show(result)
    return result.exit_code


@contextlib.contextmanager
def _stores(settings: Settings) -> Iterator[Callable[[], bool]]:
    """Sees to it that Redis runs: starts the embedded Valkey, for the duration, if no sidecar
    holds the folder. Gives what tells whether a signal asked to end."""
    if not settings.embedded_redis:
        yield lambda: False
        return
    try:
        lock_fd = lock.take(settings.data_dir)
    except RunError:
        yield lambda: False  # the folder's sidecar runs, and its Valkey
        return
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, lock_fd)
        tree = Tree(settings, lock_fd)
        stack.callback(tree.stop)
        with prepare.store(settings) as store:
            prepare.migrate(settings, store)
        tree.start_valkey()
        yield lambda: tree.signals.stop_asked


async def _audit(settings: Settings, asked_to_stop: Callable[[], bool]) -> AuditResult:
    from sync.audit import audit

    from ..clock import Clock
    from ..engine.engine import Engine
    from ..store import partitions, settings_kv

    with prepare.store(settings) as store:

        async def read_offset() -> int:
            return await store.read(settings_kv.clock_offset_ms)

        await store.write(partitions.ensure, settings.partitions)
        # Where a test clock was ever moved, its time is the stores' time, whatever this process is told.
        engine = Engine(settings, store, Clock(read_offset))
        await engine.start()
        try:
            comparing = asyncio.create_task(audit(engine, store, report=_progress))
            while not comparing.done():
                await asyncio.wait([comparing], timeout=LOOK_S)
                if asked_to_stop():
                    comparing.cancel()
            return await comparing
        finally:
            await engine.close()


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def _show(result: AuditResult) -> None:
    from rich.table import Table

    out = _console()
    if result.differences:
        table = Table("customer", "what", "bucket", "field", "Redis", "SQL", box=None, pad_edge=False)
        for found in result.differences:
            table.add_row(
                found.customer or "-", found.kind, str(found.bucket or "-"), found.column,
                _shown(found.redis), _shown(found.sql),
            )
        out.print(table)
    out.print(
        f"{len(result.differences)} differences; compared {result.customers} customers in Redis with "
        f"{result.buckets} buckets, {result.keys} idempotency keys, and {result.sql_customers} customers in SQL"
    )


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 240)


def _shown(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "…"
