"""`sidecar audit` as a process: beside a running sidecar, or alone on its data folder."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Callable

from ..settings import Settings
from . import beside
from .errors import RunError

if TYPE_CHECKING:
    from sync.audit import AuditResult

LOOK_S = 0.1
VALUE_CHARS_MAX = 120


def run(settings: Settings) -> int:
    """Compares, prints the differences, and returns the exit code: 0 none, 1 some.

    Raises RunError if it could not compare, for whatever reason: a failure is never taken for
    a finding."""
    from .. import logs

    logs.setup(settings.model_copy(update={"log_level": "error"}), "audit")
    beside.require_database(settings)
    try:
        with beside.stores(settings) as asked_to_stop:
            result = asyncio.run(_audit(settings, asked_to_stop))
    except RunError:
        raise
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise RunError("the audit was interrupted before it had compared everything") from None
    except Exception as problem:  # any traceback would end with 1, which says "differences"
        raise RunError(f"could not compare: {type(problem).__name__}: {problem}") from problem
    _show(result)
    return result.exit_code


async def _audit(settings: Settings, asked_to_stop: Callable[[], bool]) -> AuditResult:
    from sync.audit import audit

    async with beside.engine(settings) as (engine, store):
        comparing = asyncio.create_task(audit(engine, store, report=_progress))
        while not comparing.done():
            await asyncio.wait([comparing], timeout=LOOK_S)
            if asked_to_stop():
                comparing.cancel()
        return await comparing


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(line, file=sys.stderr)


def _show(result: AuditResult) -> None:
    from rich.table import Table

    out = beside.console()
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


def _shown(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "…"
