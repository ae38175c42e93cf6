"""Bun, hono and ioredis from their registry, into a cache folder outside the repository.

`package-lock.json` names every package by its exact version; an install is kept in
`$XDG_CACHE_HOME/sidecar-bench` (by default `~/.cache/sidecar-bench`) under the hash of it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = ("package.json", "package-lock.json")
TIMEOUT_S = 240


class Missing(Exception):
    """A peer cannot be measured here; the message says why."""


def bun() -> tuple[Path, Path]:
    """Bun's executable, and the folder with the packages. Raises Missing."""
    if shutil.which("npm") is None:
        raise Missing("npm is not installed")
    content = b"".join((HERE / name).read_bytes() for name in PACKAGES)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sidecar-bench"
    folder = cache / hashlib.sha256(content).hexdigest()[:12]
    complete = folder / ".complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in PACKAGES:
            shutil.copy(HERE / name, folder)
        _npm(folder)
        complete.touch()
    # Which of its builds runs here is npm's to find out; the package "bun" itself only links to it.
    built = sorted((folder / "node_modules" / "@oven").glob("bun-*/bin/bun"), key=lambda path: len(path.parts[-3]))
    if not built:
        raise Missing("npm has no build of bun for this machine")
    return built[0], folder


def _npm(folder: Path) -> None:
    command = ["npm", "ci", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries", "1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise Missing(f"npm ci took longer than {TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise Missing(f"npm ci ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
