"""The published clients, installed from their registries into a cache folder outside the repository.

`clients/package-lock.json` and `clients/requirements.txt` name every package by its exact version. An
install is kept in `$XDG_CACHE_HOME/sidecar-tests` (by default `~/.cache/sidecar-tests`) under the hash
of what it was made from, and made again when that changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Sequence

import pytest

CLIENTS = Path(__file__).parent / "clients"
INSTALL_TIMEOUT_S = 240
UNREACHABLE = (
    "ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH",
    "Failed to establish a new connection", "Name or service not known", "Temporary failure in name resolution",
    "Network is unreachable", "Connection refused", "Read timed out", "ConnectTimeoutError",
)
"""What npm and pip say when there is no registry, as opposed to one that refuses."""


def javascript(clients: Path = CLIENTS) -> Path:
    """The folder whose `node_modules` holds autumn-js (and atmn), as the package files in `clients` say.
    Skips without node, npm or registry."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    return _installed("js", (clients / "package.json", clients / "package-lock.json"), _npm)


def python(requirements: Path = CLIENTS / "requirements.txt") -> Path:
    """The interpreter of an environment that holds autumn-py, or what else is required. Skips without a
    registry."""
    return _installed("py", (requirements,), _pip) / "bin" / "python"


def _npm(folder: Path, sources: Sequence[Path]) -> None:
    for source in sources:
        shutil.copy(source, folder)
    _run("npm", "ci", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts",
         "--fetch-retries", "1", "--fetch-retry-mintimeout", "1000")


def _pip(folder: Path, sources: Sequence[Path]) -> None:
    _run(sys.executable, "-m", "venv", str(folder))
    pip = (str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--retries", "2")
    _run(*pip, "--requirement", str(sources[0]))


def _installed(name: str, sources: Sequence[Path], install: Callable[[Path, Sequence[Path]], None]) -> Path:
    """The folder `name`, installed unless it is there. Test runs beside this one wait for it."""
    content = b"".join(source.read_bytes() for source in sources) + sys.version.encode()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sidecar-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    complete = folder / ".complete"
    with open(cache / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(folder, sources)
            complete.touch()
    return folder


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=INSTALL_TIMEOUT_S)
    if done.returncode == 0:
        return
    said = done.stdout + done.stderr
    if any(sign in said for sign in UNREACHABLE):
        pytest.skip(f"no registry can be reached: {' '.join(words)}: {said[-500:]}")
    pytest.fail(f"{' '.join(words)} ended with {done.returncode}:\n{said[-4000:]}")
