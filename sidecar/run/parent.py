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
GRACE_S = 0.5
"""How long a child may finish in once its supervisor is gone; then it ends at once."""
ORPHAN_EXIT_CODE = 75


class _Tie:
    """What to do at the pipe's end, changed while a thread already waits for it."""

    def __init__(self) -> None:
        self.on_eof: Callable[[], object] = lambda: None
        self.data_dir: Path | None = None
        self.grace_s = 0.0

    def wait(self, fd: int) -> None:
        while os.read(fd, 1):
            pass
        deadline = time.monotonic() + self.grace_s
        try:
            self.on_eof()
            if self.data_dir is not None:
                from . import valkey

                valkey.end(valkey.Files(self.data_dir))
            time.sleep(max(0.0, deadline - time.monotonic()))
        finally:
            os._exit(ORPHAN_EXIT_CODE)


_tie = _Tie()
_thread: threading.Thread | None = None


def tie() -> None:
    """From now on this process ends at once when its supervisor does; `watch_parent` gives it more
    to do and time for it. Does nothing in a process that no supervisor started."""
    global _thread
    if _thread is None and PARENT_FD in os.environ:
        _thread = threading.Thread(target=_tie.wait, args=(int(os.environ[PARENT_FD]),), name="parent-watch", daemon=True)
        _thread.start()


def watch_parent(on_eof: Callable[[], object], *, data_dir: Path | None = None, grace_s: float = GRACE_S) -> None:
    """Ends this process at most `grace_s` after its supervisor, whatever its event loop is doing.

    A thread waits for the pipe's EOF, calls `on_eof` from there (asyncio: give it
    `lambda: loop.call_soon_threadsafe(stop.set)`), and calls `os._exit` after the grace. With
    `data_dir` it also ends an embedded Valkey there, in case its watcher was killed too. Does
    nothing in a process that no supervisor started."""
    _tie.on_eof, _tie.data_dir, _tie.grace_s = on_eof, data_dir, grace_s
    tie()
