"""Processes of a measurement: started, watched, and ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator, Sequence
from urllib.request import Request, urlopen

STOP_TIMEOUT_S = 30
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command until the block ends, also by Ctrl-C: SIGTERM, and SIGKILL if that is not heard."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that is not needed any more."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_http(url: str, process: subprocess.Popen[bytes], timeout_s: float = 20, body: bytes | None = None) -> None:
    """Waits until a GET (a POST of `body`) is answered 2xx there. Raises RuntimeError if it is not."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urlopen(Request(url, body), timeout=2):
                return
        except OSError as problem:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} does not answer: {problem}") from None
        time.sleep(0.02)


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def below(pid: int, words: str) -> list[int]:
    """The processes started by `pid`, or by those, whose command line contains `words`."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
    found, look = [], [pid]
    while look:
        children = [child for child, parent in parents.items() if parent == look[-1]]
        look.pop()
        look += children
        found += children
    return sorted(child for child in found if words in _command_of(child))


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def cpu_s(pids: Sequence[int]) -> float:
    """The processor time that processes have used, in seconds."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_S
