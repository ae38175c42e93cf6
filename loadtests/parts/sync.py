"""How fast the sync worker drains a backlog into SQL, by `loadtests.sync_speed`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..processes import running
from ..spread import markdown, spread, with_range
from . import Goal, Options

TITLE = "Sync into SQL"
ENTRIES_PER_S = 20_000
"""Of backlog for each second that windows have: enough that the drain takes about as long."""
TIMEOUT_S = 1800
BOUNDS = {"postgres": 1.0, "sqlite": 0.8}
"""Of the rate of tracks that one HTTP worker takes."""
SHOWN = {"postgres": "PostgreSQL", "sqlite": "SQLite"}


def run(options: Options) -> dict[str, Any]:
    """Entries a second into each kind of SQL, and the lag under half of the rate that one worker takes."""
    with tempfile.TemporaryDirectory(prefix="sync-") as folder:
        found = _speed(Path(folder), options, "--entries", str(int(ENTRIES_PER_S * options.seconds)), "--rounds", str(options.rounds))
        return {
            "found": {
                kind: {figure: spread(window[figure] for window in windows) for figure in windows[0]}
                for kind, windows in found["rounds"].items()
            },
        }


def _speed(folder: Path, options: Options, *words: str) -> dict[str, Any]:
    options.say("fills and drains backlogs")
    report = folder / "report.json"
    command = [sys.executable, "-m", "loadtests.sync_speed", *words, "--json", str(report)]
    with running(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        said, _ = process.communicate(timeout=TIMEOUT_S)
    if process.returncode != 0:
        raise RuntimeError(f"loadtests.sync_speed: {said.decode()}")
    return dict(json.loads(report.read_text()))


def table(result: dict[str, Any]) -> str:
    """Entries a second, and what they cost."""
    rows = [
        [
            SHOWN[kind], with_range(found["entries_per_s"], 0), with_range(found["worker_us_per_entry"], 1),
            f"{found['rss_max_mb']['high']:,.0f}",
        ]
        for kind, found in result["found"].items()
    ]
    return markdown(["into", "entries/s", "worker's µs an entry", "its memory, MB"], rows)


def goals(results: dict[str, Any]) -> list[Goal]:
    """The drain against the rate of tracks, where that was measured too."""
    if "http" not in results:
        return []
    rates = [row["found"]["sidecar"]["requests_per_s"]["median"] for row in results["http"]["rows"] if row["verb"] == "track"]
    return [
        Goal(f"sync into {SHOWN[kind]} ÷ one worker's track rate", results["sync"]["found"][kind]["entries_per_s"]["median"] / max(rates), bound)
        for kind, bound in BOUNDS.items()
    ]
