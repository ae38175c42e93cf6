"""A load test that ends in proof: Locust against a sidecar of its own, then SQL must catch up, hold
every event that was acknowledged, and agree with Redis by `sidecar audit`.

    python -m loadtests.run             20 s, 40 connections
    python -m loadtests.run --long      10 min, 100 connections
    python -m loadtests.run --rate 500  500 actions a second, whatever the answers do

SIDECAR_* variables reach the sidecar (`SIDECAR_DURABILITY=always`, `SIDECAR_DATABASE_URL=…`).
Exit code 0 means: every call was answered 2xx, and nothing is missing or differs; else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from sidecar.store.db import Store
from sidecar.store.tables import events

from .target import KEY, Target, serving

REPOSITORY = Path(__file__).resolve().parents[1]
CATALOG = REPOSITORY / "docs" / "examples" / "chat.py"
SYNC_TIMEOUT_S = 120
SENT_LATE = "sent late"
"""What `locustfile` calls the wait of an action for a free connection; no call."""
STOP_TIMEOUT_S = 10
"""How long Locust waits for the calls in flight when its time is up."""


@dataclass(frozen=True)
class Load:
    """How much."""

    seconds: int = 20
    connections: int = 40
    customers: int = 2_000
    rate_per_s: float = 0
    """Of actions; 0 begins each connection's next after its last."""


LONG = Load(seconds=600, connections=100, customers=50_000)


def drive(target: Target, load_: Load) -> dict[str, Any]:
    """Runs Locust against the target; its report (`locustfile.report`).

    Raises RuntimeError with its output if it could not run."""
    with tempfile.TemporaryDirectory(prefix="locust-") as folder:
        report = Path(folder) / "report.json"
        done = subprocess.run(
            [
                sys.executable, "-m", "locust", "--locustfile", str(Path(__file__).with_name("locustfile.py")),
                "--headless", "--host", target.url, "--run-time", f"{load_.seconds}s",
                "--users", str(load_.connections), "--spawn-rate", str(load_.connections),
                "--stop-timeout", str(STOP_TIMEOUT_S), "--only-summary", "--skip-log-setup",
            ],
            env={
                **os.environ, "LOAD_REPORT": str(report), "LOAD_CUSTOMERS": str(load_.customers), "SIDECAR_KEY": KEY,
                "LOAD_RATE": str(load_.rate_per_s), "PYTHONWARNINGS": "ignore",
            },
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=load_.seconds + 60,
        )
        if not report.exists():
            raise RuntimeError(f"locust ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return dict(json.loads(report.read_text()))


def problems(target: Target, report: dict[str, Any]) -> list[str]:
    """Everything that is wrong after a run, in words; nothing if all is well."""
    found = [f"failed call: {failure}" for failure in report["failures"]]
    if not report["acknowledged"]:
        found.append("no event was acknowledged: nothing was tested")
    if not target.wait_for_sync(SYNC_TIMEOUT_S):
        return [*found, f"SQL did not catch up with the log in {SYNC_TIMEOUT_S} s"]
    found += _missing(target, report["acknowledged"])
    audit = target.command("audit")
    if audit.returncode != 0:
        found.append(f"sidecar audit ended with {audit.returncode}:\n{audit.stdout}{audit.stderr}".rstrip())
    return found


def _missing(target: Target, acknowledged: list[str]) -> list[str]:
    """Acknowledged events that SQL does not have."""
    store = Store(database_of(target))
    try:
        held = store.read_sync(_recorded)
    finally:
        store.close()
    lost = [event_id for event_id in acknowledged if position_of(event_id) not in held]
    return [f"{len(lost)} acknowledged events are not in SQL, such as {lost[0]}"] if lost else []


def database_of(target: Target) -> str:
    """The SQL address the target uses."""
    url = target.environment.get("SIDECAR_DATABASE_URL")
    return url or f"sqlite:///{target.environment['SIDECAR_DATA_DIR']}/sidecar.db"


def _recorded(conn: Connection) -> set[tuple[int, int, int]]:
    rows = conn.execute(select(events.c.p, events.c.gen, events.c.seq).distinct())
    return {(p, gen, seq) for p, gen, seq in rows}


def position_of(event_id: str) -> tuple[int, ...]:
    """The (partition, generation, number) that an event id names."""
    match = re.fullmatch(r"evt_(\d+)_(\d+)_(\d+)", event_id)
    return tuple(int(part) for part in match.groups()) if match else ()


def show(report: dict[str, Any], seconds: int) -> None:
    """Prints what was called."""
    print(f"{'call':<24}{'count':>9}{'failed':>9}{'p50 ms':>9}{'p99 ms':>9}")
    for name, row in sorted(report["requests"].items()):
        print(f"{name:<24}{row['count']:>9}{row['failures']:>9}{row['p50_ms']:>9}{row['p99_ms']:>9}")
    total = sum(row["count"] for name, row in report["requests"].items() if name != SENT_LATE)
    print(f"{total} calls, {total / seconds:.0f} a second; {len(report['acknowledged'])} events acknowledged")


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.run", description="Load, then proof.")
    parser.add_argument("--long", action="store_true", help=f"{LONG.seconds} s, {LONG.connections} connections")
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--connections", type=int)
    parser.add_argument("--customers", type=int)
    parser.add_argument(
        "--rate", type=float, default=0, help="actions a second, whatever the answers do; --connections bounds those under way"
    )
    given = parser.parse_args(argv)
    preset = LONG if given.long else Load()
    load_ = Load(
        given.seconds or preset.seconds, given.connections or preset.connections, given.customers or preset.customers,
        given.rate,
    )
    with serving(CATALOG) as target:
        report = drive(target, load_)
        show(report, load_.seconds)
        found = problems(target, report)
    for problem in found:
        print(f"FAILED  {problem}", file=sys.stderr)
    if not found:
        print("SQL holds every acknowledged event; the audit found no difference")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
