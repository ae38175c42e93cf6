"""What a command works with on a sidecar's stores: beside the one that runs, or alone."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, AsyncIterator, Callable, Iterator

from .. import folder
from ..settings import Settings
from . import lock, prepare
from .errors import RunError
from .supervisor import Tree

if TYPE_CHECKING:
    from rich.console import Console

    from ..engine.engine import Engine
    from ..store.db import Store


def require_database(settings: Settings) -> None:
    """Raises RunError where there is no embedded database yet: a command that looks makes none."""
    if settings.database_url is None and not folder.database(settings.data_dir).exists():
        raise RunError(f"there is no database in {settings.data_dir}; name the folder of a sidecar with --data-dir")


@contextlib.contextmanager
def stores(settings: Settings) -> Iterator[Callable[[], bool]]:
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
        tree.wait_for_valkey()
        yield lambda: tree.signals.stop_asked


@contextlib.asynccontextmanager
async def engine(settings: Settings) -> AsyncIterator[tuple[Engine, Store]]:
    """An engine and the database, for a while. Where a test clock was ever moved, its time is the
    stores' time, whatever this process is told."""
    from ..clock import Clock
    from ..engine.engine import Engine
    from ..store import partitions, settings_kv

    with prepare.store(settings) as store:

        async def read_offset() -> int:
            return await store.read(settings_kv.clock_offset_ms)

        await store.write(partitions.ensure, settings.partitions)
        started = Engine(settings, store, Clock(read_offset))
        await started.start()
        try:
            yield started, store
        finally:
            await started.close()


def console() -> Console:
    """Where tables go: as wide as the terminal, or wide enough for a file."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 240)
