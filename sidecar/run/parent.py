"""A child's tie to its supervisor: the read end of a pipe, which ends when the supervisor does.

Standard library only, so that any child may use it first.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Callable

PARENT_FD = "SIDECAR_PARENT_FD"
GRACE_S = 1.0
"""How long a child may finish in once its supervisor is gone; then it ends at once."""
ORPHAN_EXIT_CODE = 75


def watch_parent(
    on_eof: Callable[[], object], *, data_dir: Path | None = None, grace_s: float = GRACE_S
) -> threading.Thread | None:
    """Ends this process at most `grace_s` after its supervisor, whatever its event loop is doing.

    A thread waits for the pipe's EOF, calls `on_eof` from there (asyncio: give it
    `lambda: loop.call_soon_threadsafe(stop.set)`), and calls `os._exit` after the grace. With
    `data_dir` it also ends an embedded Valkey there, in case its watcher was killed too. Does
    nothing, and returns None, in a process that no supervisor started."""
    if PARENT_FD not in os.environ:
        return None
    fd = int(os.environ[PARENT_FD])

    def wait() -> None:
        while os.read(fd, 1):
            pass
        deadline = time.monotonic() + grace_s
        try:
            on_eof()
            if data_dir is not None:
                from . import valkey

                valkey.end(valkey.Files(data_dir))
            time.sleep(max(0.0, deadline - time.monotonic()))
        finally:
            os._exit(ORPHAN_EXIT_CODE)

    thread = threading.Thread(target=wait, name="parent-watch", daemon=True)
    thread.start()
    return thread
