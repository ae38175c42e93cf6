"""How fast the sync worker drains a backlog into SQL, by `loadtests.sync_speed`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Mapping

from ..processes import running
from ..spread import markdown, spread, with_range
from . import Goal, Options

TITLE = "Sync into SQL"
ENTRIES_PER_S = 20_000
"""Of backlog for each second that windows have: enough that the drain takes about as long."""
STEADY_SHARE = 0.5
"""Of the rate of tracks that one HTTP worker takes: what comes while the lag is measured."""
REACHED = 0.95
"""Of that, for the lag to be of it."""
STEADY_WINDOWS = 4
"""Times the length of a window, for how long."""
TIMEOUT_S = 1800
BOUNDS = {"postgres": 1.0, "sqlite": 0.8}
"""Times that rate, for a backlog."""
LAG_MAX_MS = 1000
LAGS = ("p50", "p99", "max")
SHOWN = {"postgres": "PostgreSQL", "sqlite": "SQLite"}


def run(options: Options) -> dict[str, Any]:
    """Entries a second of backlogs into each kind of SQL; and where the part `http` was measured before, how
    long an entry takes into SQL at half of its rate of tracks."""
    options.say("fills and drains backlogs")
    result = {"drain": _speed("--entries", int(ENTRIES_PER_S * options.seconds), "--rounds", options.rounds)}
    if "http" in options.known:
        result["tracks_per_s"] = track_rate(options.known)
        rate_per_s = result["tracks_per_s"] * STEADY_SHARE
        options.say(f"takes {rate_per_s:,.0f} tracks a second")
        result["steady"] = _speed("--steady", rate_per_s, "--seconds", options.seconds * STEADY_WINDOWS, "--rounds", options.rounds)
    return result


def track_rate(results: Mapping[str, Any]) -> float:
    """The most tracks a second that one HTTP worker took."""
    rows = [row for row in results["http"]["rows"] if row["verb"] == "track"]
    return max(float(row["found"]["sidecar"]["requests_per_s"]["median"]) for row in rows)


def _speed(*words: Any) -> dict[str, Any]:
    """What loadtests.sync_speed measured of each kind of SQL: the spread of every figure."""
    with tempfile.TemporaryDirectory(prefix="sync-") as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "loadtests.sync_speed", *map(str, words), "--json", str(report)]
        with running(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            said, _ = process.communicate(timeout=TIMEOUT_S)
        if process.returncode != 0:
            raise RuntimeError(f"loadtests.sync_speed: {said.decode()}")
        rounds = json.loads(report.read_text())["rounds"]
    return {kind: {figure: spread(window[figure] for window in windows) for figure in windows[0]} for kind, windows in rounds.items()}


def table(result: dict[str, Any]) -> str:
    """Entries a second, what they cost, and how long they take at a steady rate."""
    rows = [
        [
            SHOWN[kind], with_range(found["entries_per_s"], 0), with_range(found["worker_us_per_entry"], 1),
            f"{found['rss_max_mb']['high']:,.0f}",
        ]
        for kind, found in result["drain"].items()
    ]
    parts = [markdown(["a backlog into", "entries/s", "worker's µs an entry", "its memory at most, MB"], rows)]
    if "steady" in result:
        rows = [
            [SHOWN[kind], f"{found['calls_per_s']['median']:,.0f}", *(f"{found[f'lag_{name}_ms']['median']:,.0f}" for name in LAGS)]
            for kind, found in result["steady"].items()
        ]
        parts.append(markdown(["steady tracks into", "tracks/s", *(f"lag {name}, ms" for name in LAGS)], rows))
    return "\n\n".join(parts)


def goals(results: dict[str, Any]) -> list[Goal]:
    """The drain against the rate of tracks that was measured before it; and the lag."""
    found, result = [], results["sync"]
    if "tracks_per_s" in result:
        for kind, bound in BOUNDS.items():
            drained = result["drain"][kind]["entries_per_s"]["median"] / result["tracks_per_s"]
            found.append(Goal(f"sync: backlog into {SHOWN[kind]} ÷ one worker's tracks", drained, bound))
    for kind, lag in result.get("steady", {}).items():
        asked = result["tracks_per_s"] * STEADY_SHARE
        reached = lag["calls_per_s"]["median"] >= REACHED * asked
        title = f"sync: lag p99 into {SHOWN[kind]} at half of one worker's tracks"
        if not reached:
            title += f" (only {lag['calls_per_s']['median']:,.0f} of {asked:,.0f} a second came)"
        found.append(Goal(title, lag["lag_p99_ms"]["median"], LAG_MAX_MS, False, " ms"))
    return found
