"""A whole sidecar as a user runs it: `python -m sidecar serve` in a process, and what is left of it.

Its processes are found by the data folder, whoever their parent is now: it is in their environment, or
they hold its lock open, as all do that ever write there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Mapping, Sequence
from urllib.request import Request, urlopen

REPOSITORY = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 40
ROLES = {
    "valkey-server": "valkey", "sidecar.run.watch": "watch", "sidecar.run.http_worker": "http",
    "sync.worker": "sync", "sidecar.run.prepare": "prepare", "serve": "parent",
}


@dataclass(frozen=True)
class Process:
    """One process of a sidecar."""

    pid: int
    role: str

    def kill(self) -> None:
        """SIGKILL, if it still is."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(what: str, done: Callable[[], object], timeout_s: float = 10.0) -> float:
    """Polls until `done()` is true; returns how long that took. Fails the test after the time-out."""
    began_at = time.monotonic()
    while not done():
        assert time.monotonic() - began_at < timeout_s, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)
    return time.monotonic() - began_at


def environment(extra: Mapping[str, str], package_root: Path = REPOSITORY) -> dict[str, str]:
    """This environment without any SIDECAR_* setting, and with `extra`; `sidecar` is imported from
    `package_root`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SIDECAR_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # or each of hundreds of processes compiles the project anew
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [str(package_root), kept.get("PYTHONPATH")]))
    return kept | dict(extra)


def command(
    *args: str, cwd: Path, settings: Mapping[str, str] | None = None, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Runs `sidecar args…` to its end."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "sidecar", *args], cwd=cwd, env=environment(settings or {}),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s,
    )


class Sidecar:
    """One `sidecar serve` on a folder and a port; start it again after `stop` or a kill."""

    def __init__(self, data_dir: Path, port: int | None = None, settings: Mapping[str, str] | None = None):
        self.data_dir = data_dir
        self.port = port or free_port()
        self.settings = {"SIDECAR_DATA_DIR": str(data_dir), "SIDECAR_PORT": str(self.port), **(settings or {})}
        self.package_root = REPOSITORY
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        """All it wrote since its last start, stdout and stderr."""
        return self.log.read_text()

    @property
    def key(self) -> str:
        """The key its banner names."""
        match = re.search(r"^  key +(am_\S+)", self.output, re.MULTILINE)
        assert match, self.output
        return match[1]

    def launch(self, *args: str, command: Sequence[str] | None = None, ignored: Sequence[signal.Signals] = ()) -> None:
        """Starts it, or a `command` that becomes it, without waiting; `ignored` signals as some shells
        hand down, all others as a terminal does, however the tests were started."""
        def set_signals() -> None:
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command or [sys.executable, "-P", "-m", "sidecar", "serve", *args], cwd=self.data_dir.parent,
                env=environment(self.settings, self.package_root), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=set_signals,
            )

    def start(self, *args: str) -> float:
        """Starts it and waits for its banner; returns the seconds that took."""
        self.launch(*args)
        return self.wait_until_started()

    def wait_until_started(self) -> float:
        """Waits for the banner after a `launch`; returns the seconds that took."""
        return wait_for("the banner", self._banner, START_TIMEOUT_S)

    def _banner(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.output}"
        return "Ctrl-C" in self.output

    def get(self, path: str, timeout_s: float = 10) -> dict[str, object]:
        """The JSON answer to a GET; raises OSError (HTTPError for a refusal) otherwise."""
        with urlopen(Request(self.url + path), timeout=timeout_s) as answer:
            return dict(json.load(answer))

    def answers(self) -> bool:
        """Whether /readyz says 200 now."""
        try:
            self.get("/readyz", timeout_s=2)
        except (OSError, ValueError):
            return False
        return True

    def processes(self, role: str | None = None) -> list[Process]:
        """The live processes that belong to the folder, by role if one is given."""
        needle = f"SIDECAR_DATA_DIR={self.data_dir}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if needle not in (entry / "environ").read_bytes().split(b"\0") and not self._holds_lock(entry):
                    continue
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state not in "ZX":
                found.append(Process(int(entry.name), next((ROLES[key] for key in ROLES if key in line), line)))
        return [process for process in found if role in (None, process.role)]

    def _holds_lock(self, entry: Path) -> bool:
        lock = str(self.data_dir / "lock")
        for fd in os.listdir(entry / "fd"):
            with contextlib.suppress(FileNotFoundError):  # closed since
                if os.readlink(entry / "fd" / fd) == lock:
                    return True
        return False

    def one(self, role: str) -> Process:
        """The only live process of a role."""
        found = self.processes(role)
        assert len(found) == 1, f"{role}: {found} of {self.processes()}"
        return found[0]

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 20) -> int:
        """Signals the parent and waits for its end; returns its exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def destroy(self) -> None:
        """Kills all that is left, whatever the test did."""
        for process in self.processes():
            process.kill()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
