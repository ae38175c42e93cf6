"""A sidecar to put under load: `sidecar serve` in a process of its own, on a fresh folder."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from .processes import below, free_port, running

KEY = "am_sk_test_load"
START_TIMEOUT_S = 60


@dataclass(frozen=True)
class Target:
    """Where a running sidecar answers, and what to give its other commands to find it."""

    url: str
    environment: Mapping[str, str]
    pid: int

    @property
    def address(self) -> str:
        """host:port."""
        return urlsplit(self.url).netloc

    @property
    def http_workers(self) -> list[int]:
        """The processes that answer."""
        return below(self.pid, "sidecar.run.http_worker")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer. Raises OSError (HTTPError for a refusal)."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        with urlopen(Request(self.url + path, data, headers, method=method), timeout=30) as answer:
            return json.load(answer)

    def wait_for_sync(self, timeout_s: float) -> bool:
        """Whether SQL has caught up with the log within the time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                if self.call("GET", "/readyz")["sync"]["behind_entries"] == 0:
                    return True
            except HTTPError:
                pass  # 503 while SQL is far behind: it may still catch up
            time.sleep(0.1)
        return False

    def command(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Runs `sidecar args…` beside it, with the same settings."""
        return subprocess.run(
            [sys.executable, "-m", "sidecar", *args], env=dict(self.environment),
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )


@contextlib.contextmanager
def serving(catalog: Path, settings: Mapping[str, str] | None = None) -> Iterator[Target]:
    """Runs a sidecar until the block ends. SIDECAR_* variables of this environment reach it, so that
    it may be run on another Redis, SQL or durability; `settings` stand over them.

    Raises RuntimeError with its output if it does not start."""
    with tempfile.TemporaryDirectory(prefix="load-", dir="/tmp") as folder:  # short: socket paths end at 107 bytes
        port = free_port()
        environment = {
            **os.environ, **(settings or {}), "SIDECAR_SECRET_KEYS": KEY, "SIDECAR_HOST": "127.0.0.1",
            "SIDECAR_PORT": str(port), "SIDECAR_DATA_DIR": f"{folder}/d",
        }
        log = Path(folder) / "log"
        command = [sys.executable, "-m", "sidecar", "serve", "--catalog", str(catalog)]
        with open(log, "wb") as out, running(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out) as process:
            target = Target(f"http://127.0.0.1:{port}", environment, process.pid)
            _wait_until_ready(target, process, log)
            yield target


def _wait_until_ready(target: Target, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            target.call("GET", "/readyz")
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the sidecar did not start:\n{log.read_text()}") from None
        time.sleep(0.05)
