"""How long a sidecar takes from its command to ready, and each of its workers when it is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable
from urllib.error import HTTPError
from urllib.request import urlopen

from .. import calls
from ..processes import below, free_port, running
from ..spread import markdown, spread, with_range
from ..target import KEY, Target, serving
from . import Goal, Options

TITLE = "Start"
POLL_S = 0.005
TIMEOUT_S = 30
OLD_ENOUGH_S = 2.5
"""A worker that ends sooner is started again only after a pause."""
BOUNDS = {"sidecar, empty folder": 1.5, "sidecar, used folder": 1.5, "HTTP worker": 0.5, "sync worker": 0.5}


def run(options: Options) -> dict[str, Any]:
    """Seconds, each several times."""
    found: dict[str, list[float]] = {name: [] for name in BOUNDS}
    for number in range(options.rounds):
        options.say(f"starts of a sidecar, {number + 1} of {options.rounds}")
        with tempfile.TemporaryDirectory(prefix="start-", dir="/tmp") as folder:
            for name in ("sidecar, empty folder", "sidecar, used folder"):
                found[name].append(_ready_s(f"{folder}/d"))
    with serving(calls.CATALOG, {"SIDECAR_WORKERS": "1"}) as target:
        target.call("POST", calls.PATHS["track"], calls.body("track", 0))
        calls.settle(target)
        for number in range(options.rounds):
            options.say(f"starts of workers, {number + 1} of {options.rounds}")
            time.sleep(OLD_ENOUGH_S)
            found["HTTP worker"].append(_again_s(target, "sidecar.run.http_worker", _answers))
            # A call that no worker has carried yet: SQL has it once the new one works.
            _stop(target, "sync.worker")
            target.call("POST", calls.PATHS["track"], calls.body("track", 0))
            found["sync worker"].append(_again_s(target, "sync.worker", _carried))
    return {"seconds": {name: spread(values) for name, values in found.items()}}


def _ready_s(folder: str) -> float:
    port = free_port()
    environment = {
        **os.environ, "SIDECAR_SECRET_KEYS": KEY, "SIDECAR_HOST": "127.0.0.1", "SIDECAR_PORT": str(port), "SIDECAR_DATA_DIR": folder,
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or the project is compiled at each start; an installed one is not
    command = [sys.executable, "-m", "sidecar", "serve", "--catalog", str(calls.CATALOG)]
    began_at = time.monotonic()
    with running(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        _wait(lambda: _ok(f"http://127.0.0.1:{port}/readyz"))
        return time.monotonic() - began_at


def _again_s(target: Target, words: str, works: Callable[[Target], bool]) -> float:
    """From the end of a worker to when the one in its place works."""
    (pid,) = below(target.pid, words)
    os.kill(pid, signal.SIGKILL)
    began_at = time.monotonic()
    _wait(lambda: pid not in below(target.pid, words) and works(target))
    return time.monotonic() - began_at


def _stop(target: Target, words: str) -> None:
    """Halts a worker where it is, so that nothing is done before it is killed."""
    (pid,) = below(target.pid, words)
    os.kill(pid, signal.SIGSTOP)


def _answers(target: Target) -> bool:
    return _ok(f"{target.url}/livez")


def _carried(target: Target) -> bool:
    try:
        return bool(target.call("GET", "/readyz")["sync"]["behind_entries"] == 0)
    except HTTPError:
        return False


def _ok(url: str) -> bool:
    try:
        with urlopen(url, timeout=TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not ready within {TIMEOUT_S} s")
        time.sleep(POLL_S)


def table(result: dict[str, Any]) -> str:
    """Seconds of each."""
    return markdown(["start of", "seconds"], [[name, with_range(found)] for name, found in result["seconds"].items()])


def goals(results: dict[str, Any]) -> list[Goal]:
    """Seconds of each."""
    found = results["start"]["seconds"]
    return [Goal(f"start: {name}", found[name]["median"], bound, False, " s") for name, bound in BOUNDS.items()]
