"""The lock that makes one sidecar the only one on a data folder.

Two Valkeys share a folder without complaint and ruin it, so the lock is taken before anything is
opened, and every process that writes inherits its descriptor: it is free when the last has ended.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from .. import folder
from .errors import RunError

WAIT_S = 3.0
"""How long a start waits for what an earlier, killed sidecar left behind: that ends within 2 s."""


def take(data_dir: Path, wait_s: float = WAIT_S) -> int:
    """The descriptor of the folder's lock, held; creates the folder (for its owner only).

    Raises RunError while another sidecar, or what is left of one, holds it after `wait_s`."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder.lock(data_dir), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RunError(f"cannot use the data folder {data_dir}: {error.strerror}; choose another --data-dir") from None
    deadline = time.monotonic() + wait_s
    while not try_lock(fd):
        holder = _pid(fd)
        alive = holder is not None and is_running(holder)
        if alive or time.monotonic() >= deadline:
            os.close(fd)
            raise RunError(_taken(data_dir, holder if alive else None))
        time.sleep(0.05)  # the descriptor's last holder is ending; nothing announces it
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def is_taken(data_dir: Path) -> bool:
    """Whether a sidecar, or what is left of one, holds the folder now."""
    try:
        fd = os.open(folder.lock(data_dir), os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not try_lock(fd)
    finally:
        os.close(fd)


def try_lock(fd: int) -> bool:
    """Takes the lock of an open file if nobody else has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_running(pid: int) -> bool:
    """Whether a process lives (one that has ended and waits to be collected does not)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return not Path("/proc/self").exists()
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _pid(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _taken(data_dir: Path, holder: int | None) -> str:
    if holder is not None:
        return (
            f"a sidecar (process {holder}) already runs on {data_dir}; "
            "stop it first, or give this one another --data-dir"
        )
    return (
        f"processes of an earlier sidecar still hold {folder.lock(data_dir)} and may be writing; "
        f"try again in a moment, or see who it is with `fuser {folder.lock(data_dir)}`"
    )
