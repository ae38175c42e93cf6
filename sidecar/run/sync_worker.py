"""The sync worker as a process: settings, logs, signals and the supervisor's pipe around
`sync.worker`. That is what the supervisor calls it, and what runs it without one: `python -m sync.worker`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import uvloop

from sync import worker

from .. import logs, settings
from . import heap, lock
from .errors import RunError
from .parent import PARENT_FD, watch_parent


def main(config: settings.Settings | None = None) -> int:
    """Runs the worker until SIGTERM, SIGINT (when no supervisor started it) or the supervisor's
    end; a batch that has begun is finished. Returns the exit code: 1 for what waiting cannot heal."""
    config = config or settings.load()
    log = logs.setup(config, "sync")
    try:
        uvloop.run(_run(config))
    except (*worker.FATAL, settings.SettingsError) as problem:
        log.error("sync_impossible", reason=str(problem))
        return 1
    return 0


def alone(config: settings.Settings) -> int:
    """`sidecar sync`: the worker without a supervisor, beside an external Redis or a running sidecar.

    Raises RunError if the data folder's embedded Valkey does not run."""
    if config.embedded_redis and not lock.is_taken(config.data_dir):
        raise RunError(
            f"no sidecar runs on {config.data_dir}, so its Valkey does not either; "
            "start `sidecar serve` there (it syncs by itself), or set SIDECAR_REDIS_URL"
        )
    return main(config)


async def _run(config: settings.Settings) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if PARENT_FD in os.environ:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to order
    else:
        loop.add_signal_handler(signal.SIGINT, stop.set)
    watch_parent(
        lambda: loop.call_soon_threadsafe(stop.set), data_dir=config.data_dir if config.embedded_redis else None
    )
    heap.loaded()
    await worker.run(config, stop)


if __name__ == "__main__":
    sys.exit(main())
