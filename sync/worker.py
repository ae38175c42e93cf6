"""The sync worker: the carrying loop and the duties beside it, each kept going whatever fails.

Killed at any moment it loses nothing: where it stands is in SQL, in the transaction that got it
there. Any number may run at once.
"""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable, Callable

import structlog

from sidecar.clock import Clock
from sidecar.engine.engine import Engine
from sidecar.settings import Settings
from sidecar.store import migrate, partitions, settings_kv
from sidecar.store.db import Store

from .carry import Carrier
from .duties import Duties

log = structlog.get_logger()
BLOCK_MS = 250
GATHER_MIN_S, GATHER_MAX_S = 0.05, 0.2
"""After little was there to carry, so that the next batch is worth its transaction: the longer, the more
there was and so will be."""
MUCH, BATCH = 200, 1000
"""Entries of a turn: after which it waits longest; and not at all, for that many fill a transaction."""
WAIT_MIN_S, WAIT_MAX_S = 0.05, 2.0
OPEN_S, PROJECT_S, RESET_S, HOLD_S, TIDY_S, FORGET_S = 1.0, 0.5, 0.5, 0.25, 2.0, 5.0
FATAL = (migrate.SchemaTooNew, partitions.PartitionCountDiffers)
"""What waiting does not heal: the worker ends with it."""


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Carries the log into SQL until `stop` is set; finishes the batch it is at.

    Waits for stores that do not answer. Raises SchemaTooNew, PartitionCountDiffers or
    SettingsError, which waiting does not heal."""
    store = Store(settings.database_address)

    async def read_offset() -> int:
        return await store.read(settings_kv.clock_offset_ms)

    engine = Engine(settings, store, Clock(read_offset if settings.test_clock else None))
    try:
        await engine.start()
        await _keep("prepare", lambda: _prepare(store, settings.partitions), stop, None)
        if not stop.is_set():
            await _work(settings, engine, store, stop)
    finally:
        await engine.close()
        store.close()


async def _prepare(store: Store, partition_count: int) -> None:
    await asyncio.to_thread(migrate.upgrade, store)
    await store.write(partitions.ensure, partition_count)


async def _work(settings: Settings, engine: Engine, store: Store, stop: asyncio.Event) -> None:
    carrier, duties = Carrier(store, engine), Duties(engine, store, settings.partitions)
    loops: list[tuple[str, Callable[[], Awaitable[Any]], float]] = [
        ("open_partitions", duties.open_partitions, OPEN_S),
        ("project_steps", duties.project_steps, PROJECT_S),
        ("reset_due", duties.reset_due, RESET_S),
        ("expire_holds", duties.expire_holds, HOLD_S),
        ("expire_left_holds", duties.expire_left_holds, 2 * HOLD_S),
        ("archive_used_up", duties.archive_used_up, TIDY_S),
        ("drop_expired", duties.drop_expired, TIDY_S),
        ("sweep_deleted", duties.sweep_deleted, RESET_S),
        ("forget_keys", duties.forget_keys, FORGET_S),
    ]

    async def carry() -> None:
        carried = await carrier.turn(stop, BLOCK_MS)
        if not carrier.left_some:
            await _pause(stop, gather_s(carried))

    log.info("sync_started", partitions=settings.partitions)
    beside = [asyncio.create_task(_keep(name, once, stop, pause_s)) for name, once, pause_s in loops]
    try:
        await _keep("carry", carry, stop, 0.0)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        log.info("sync_stopped", conflicts=carrier.conflicts)


def gather_s(carried: int) -> float:
    """How long to let entries gather after a turn that carried so many, all there were."""
    if carried >= BATCH:
        return 0.0
    return GATHER_MIN_S + (GATHER_MAX_S - GATHER_MIN_S) * min(1.0, carried / MUCH)


async def _keep(name: str, once: Callable[[], Awaitable[Any]], stop: asyncio.Event, pause_s: float | None) -> None:
    """Does `once` again and again (`pause_s` None: until it has worked once) until `stop` is set.
    A failure is logged, with growing pauses, and never ends it, unless it is FATAL."""
    failures = 0
    while not stop.is_set():
        wait_s = pause_s
        try:
            await once()
            if failures:
                log.info("sync_recovered", duty=name, failures=failures)
            failures = 0
            if pause_s is None:
                return
        except FATAL:
            raise
        except Exception as problem:
            failures += 1
            wait_s = min(WAIT_MAX_S, WAIT_MIN_S * 2 ** min(failures, 10))
            if failures & (failures - 1) == 0:  # the 1st, 2nd, 4th, 8th …
                log.warning("sync_failed", duty=name, failures=failures, error=str(problem) or type(problem).__name__,
                            exc_info=failures == 4)
        await _pause(stop, wait_s or 0.0)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    if not seconds:
        return
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass


if __name__ == "__main__":  # the process around it: signals, logs, the supervisor's pipe
    import sys

    from sidecar.run.sync_worker import main

    sys.exit(main())
