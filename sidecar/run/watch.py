"""The watcher: starts Valkey and ends it when the supervisor is gone.

Valkey cannot watch a pipe, so this small process does: `python -m sidecar.run.watch DATA_DIR` starts
`valkey-server` on the prepared configuration and lives exactly as long. At EOF of the supervisor's
pipe it gives Valkey a moment to flush, then kills it. If the watcher itself is killed, Linux tells
Valkey (parent-death signal), and elsewhere the next start or any other child of the sidecar ends it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

from . import valkey

STOP_S = 30.0
"""How long an ordered stop waits for Valkey to flush its append-only file; asked twice, valkey.END_GRACE_S."""

_PR_SET_PDEATHSIG = 1


def main(data_dir: Path) -> int:
    """Runs Valkey until it ends, the supervisor is gone, or SIGTERM; the exit code is 0 if that
    was asked for."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent_fd = int(os.environ["SIDECAR_PARENT_FD"])
    if select.select([parent_fd], [], [], 0)[0]:
        return 1  # the supervisor went while this was loading
    server = _start(data_dir)
    deadline: float | None = None  # set once the end was asked for; SIGKILL follows it
    watched = [parent_fd, wake_read]
    while server.poll() is None:
        left_s = None if deadline is None else deadline - time.monotonic()
        if left_s is not None and left_s <= 0:
            valkey.signal_group(server.pid, signal.SIGKILL)
            server.wait()
            break
        ready, _, _ = select.select(watched, [], [], left_s)
        grace_s = None
        if parent_fd in ready and not os.read(parent_fd, 1):
            watched.remove(parent_fd)
            grace_s = valkey.END_GRACE_S
        elif wake_read in ready and signal.SIGTERM in os.read(wake_read, 256):
            grace_s = STOP_S if deadline is None else valkey.END_GRACE_S
        if grace_s is not None:
            server.terminate()
            deadline = min(time.monotonic() + grace_s, deadline or float("inf"))
    # A killed Valkey's rewriting child would go on with the folder.
    valkey.signal_group(server.pid, signal.SIGKILL)
    return 0 if deadline is not None else 1


def _start(data_dir: Path) -> subprocess.Popen[bytes]:
    files = valkey.Files(data_dir)
    own_lock = valkey.take_lock(files)
    os.ftruncate(own_lock, 0)
    server = subprocess.Popen(
        [valkey.binary(), files.config],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(own_lock, int(os.environ["SIDECAR_LOCK_FD"])),
        process_group=0,
        preexec_fn=_end_with(os.getpid()),  # this process has one thread, so code after fork is safe
    )
    os.pwrite(own_lock, f"{server.pid}\n".encode(), 0)
    os.close(own_lock)
    return server


def _end_with(watcher_pid: int) -> Callable[[], None] | None:
    """What Valkey does between fork and exec: asks Linux for SIGTERM when the watcher dies.

    The signal follows the thread that forked: the main one, which lives as long as the watcher."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != watcher_pid:
            os._exit(1)

    return ask


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
