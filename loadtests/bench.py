"""How fast check and track are, beside the least that the same framework can do.

    python -m loadtests.bench

For 1, 16 and 64 connections, and for check and track, it drives a sidecar and a bare Starlette
application (`loadtests/floor.py`: same uvicorn settings, parses the same body, answers a constant of
the same bytes) in turns, several rounds, and prints the medians as a table. `--json FILE` keeps all
rounds. Numbers are only worth something on a machine that does nothing else: the load averages before
and after are printed too. docs/performance.md says how to read them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from .target import KEY, Target, free_port, serving

CATALOG = Path(__file__).with_name("bench_catalog.py")
CUSTOMERS = 1_000
PATHS = {"check": "/v1/check", "track": "/v1/track"}
WARM_UP_S = 0.5
SYNC_TIMEOUT_S = 120


def body(verb: str, customer: int) -> dict[str, Any]:
    """What is asked of one customer."""
    fields: dict[str, Any] = {"customer_id": f"bench_{customer}", "feature_id": "calls"}
    return fields if verb == "check" else {**fields, "value": 1}


def requests(verb: str, address: str) -> list[str]:
    """The bytes of a call for each customer, as text."""
    made = []
    for customer in range(CUSTOMERS):
        text = json.dumps(body(verb, customer), separators=(",", ":"))
        made.append(
            f"POST {PATHS[verb]} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}"
        )
    return made


@contextlib.contextmanager
def floor(answers: dict[str, str]) -> Iterator[str]:
    """The bare application, answering these constants; its address."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "loadtests.floor", str(port)], stdin=subprocess.PIPE)
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(answers).encode())
        process.stdin.close()
        address = f"127.0.0.1:{port}"
        _wait_for(address)
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urlopen(Request(f"http://{address}/v1/check", b"{}"), timeout=2):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def measure(address: str, verb: str, connections: int, seconds: float) -> dict[str, float]:
    """One window of load. Raises RuntimeError if any call went wrong."""
    host, _, port = address.rpartition(":")
    job = {
        "host": host, "port": int(port), "connections": connections, "seconds": seconds, "warm_up_s": WARM_UP_S,
        "requests": requests(verb, address),
    }
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.generator"], input=json.dumps(job), capture_output=True, text=True,
        timeout=seconds + 60,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{verb} on {address}: {done.stderr}")
    return dict(json.loads(done.stdout))


def rounds(target: Target, bare: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every window, in turns; which of the two goes first changes each round."""
    sidecar = urlsplit(target.url).netloc
    for number in range(args.rounds):
        for connections in args.connections:
            for verb in PATHS:
                pair = [("floor", bare), ("sidecar", sidecar)]
                for name, address in pair if number % 2 == 0 else reversed(pair):
                    # What the last window left to be carried to SQL is not this window's work.
                    target.wait_for_sync(SYNC_TIMEOUT_S)
                    window = measure(address, verb, connections, args.seconds)
                    yield {"round": number, "name": name, "verb": verb, "connections": connections, **window}


def table(windows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per verb and number of connections: medians over the rounds, and of the rounds' ratios."""
    rows = []
    for verb, connections in sorted({(w["verb"], w["connections"]) for w in windows}):
        of = {
            name: [w for w in windows if (w["name"], w["verb"], w["connections"]) == (name, verb, connections)]
            for name in ("sidecar", "floor")
        }
        row: dict[str, Any] = {"verb": verb, "connections": connections}
        for figure in ("requests_per_s", "p50_us", "p99_us"):
            pairs = [(ours[figure], bare[figure]) for ours, bare in zip(of["sidecar"], of["floor"])]
            row[figure] = statistics.median(ours for ours, _ in pairs)
            row[f"floor_{figure}"] = statistics.median(bare for _, bare in pairs)
            ratios = [ours / bare for ours, bare in pairs]
            row[f"ratio_{figure}"] = statistics.median(ratios)
            row[f"ratio_{figure}_range"] = [min(ratios), max(ratios)]
        rows.append(row)
    return rows


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """The table as docs/performance.md has it."""
    lines = [
        "| call | connections | requests/s | floor | ratio | p50 ms | floor | ratio | p99 ms | floor | ratio |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = [row["verb"], str(row["connections"])]
        cells += [f"{row['requests_per_s']:,.0f}", f"{row['floor_requests_per_s']:,.0f}", ratio(row, "requests_per_s")]
        for figure in ("p50_us", "p99_us"):
            cells += [f"{row[figure] / 1000:.2f}", f"{row['floor_' + figure] / 1000:.2f}", ratio(row, figure)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratio(row: dict[str, Any], figure: str) -> str:
    """The median ratio to the floor, with its range over the rounds."""
    low, high = row[f"ratio_{figure}_range"]
    return f"{row[f'ratio_{figure}']:.2f} ({low:.2f}–{high:.2f})"


def machine() -> dict[str, Any]:
    """What it ran on."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {"cores": os.cpu_count(), "cpu": model, "python": platform.python_version(), "kernel": platform.release()}


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench", description="check and track beside the floor.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each window")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--json", type=Path, help="file for all windows and the table")
    args = parser.parse_args(argv)
    load_before = os.getloadavg()
    with serving(CATALOG) as target:
        answers: dict[str, str] = {}
        for verb, path in PATHS.items():  # the real answers, and every customer made and in memory
            for customer in range(CUSTOMERS):
                answers[path] = json.dumps(target.call("POST", path, body(verb, customer)), separators=(",", ":"))
        with floor(answers) as bare:
            windows = list(rounds(target, bare, args))
    result = {
        "machine": machine(), "load_before": load_before, "load_after": os.getloadavg(),
        "rounds": args.rounds, "seconds": args.seconds, "table": table(windows), "windows": windows,
    }
    if args.json:
        args.json.write_text(json.dumps(result, indent=2))
    print(f"{result['machine']}, load average {load_before[0]:.1f} before, {result['load_after'][0]:.1f} after")
    print(f"{args.rounds} rounds of {args.seconds:g} s; medians, and in brackets the range of the rounds' ratios\n")
    print(as_markdown(result["table"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
