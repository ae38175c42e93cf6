"""How fast the sidecar is, beside what the machine can do and what people do today.

    python -m loadtests.bench             everything, about half an hour
    python -m loadtests.bench --quick     everything, short, about ten minutes
    python -m loadtests.bench --only http,script
    python -m loadtests.bench --publish   and renews docs/: tables, pictures, history

Every part starts what it needs, warms it up, measures the sidecar and what it is compared with in turns,
several rounds, and ends what it started. Figures are medians over the rounds, with their range; ratios
are medians of the rounds' own ratios, so that what disturbed a round disturbed both sides. Read the
ratios: absolute numbers belong to the machine and to whatever else it did, and the load averages are
kept beside them. docs/performance.md says what each part and floor is.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from . import publish, report
from .floors.start import TITLES
from .machine import load_averages, machine, subject
from .parts import Options, arrivals, batch, cost, http, memory, scale, script, start, sync, uds, workers
from .progress import Progress

PARTS: dict[str, ModuleType] = {
    "http": http, "open": arrivals, "script": script, "batch": batch, "uds": uds, "workers": workers, "sync": sync,
    "memory": memory, "scale": scale, "cost": cost, "start": start,
}
ROUNDS, SECONDS, CUSTOMERS = 5, 2.0, 1_000_000
QUICK_ROUNDS, QUICK_SECONDS, QUICK_CUSTOMERS = 2, 1.0, 20_000


def arguments() -> argparse.ArgumentParser:
    """The command's."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n" + "\n".join(f"  {name:<9}{part.TITLE}" for name, part in PARTS.items())
        + "\n\nfloors and peers:\n" + "\n".join(f"  {name:<15}{title}" for name, title in TITLES.items())
        + "\n\nSIDECAR_* variables reach the sidecar: SIDECAR_DURABILITY=always python -m loadtests.bench --only http",
    )
    parser.add_argument("--only", type=_names(PARTS), default=list(PARTS), metavar="PARTS", help="these parts, comma separated")
    parser.add_argument(
        "--floors", type=_names(TITLES), default=list(TITLES), metavar="NAMES", help="of the part http; all that are there"
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, short windows, 20,000 customers instead of a million")
    parser.add_argument("--rounds", type=int, help=f"of each part ({ROUNDS}; quick {QUICK_ROUNDS})")
    parser.add_argument("--seconds", type=float, help=f"of each window ({SECONDS:g}; quick {QUICK_SECONDS:g})")
    parser.add_argument("--customers", type=int, help=f"loaded for scale ({CUSTOMERS:,}; quick {QUICK_CUSTOMERS:,})")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64], help="of the part http")
    parser.add_argument("--json", type=Path, help="file for everything, every window included")
    parser.add_argument("--publish", action="store_true", help="put the results into docs/, its pictures and its history")
    return parser


def _names(known: dict[str, Any]) -> Any:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)} (there are {', '.join(known)})")
        return names

    return parse


def measured(name: str, options: Options) -> dict[str, Any]:
    """The result of a part, and on what it was measured."""
    about = {**subject(), "machine": machine(), "load_before": load_averages(), "rounds": options.rounds}
    result = PARTS[name].run(options)
    return {**about, "load_after": load_averages(), **result}


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = arguments().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C: what was started is ended
    progress = Progress()
    results: dict[str, Any] = {}
    options = Options(
        rounds=args.rounds or (QUICK_ROUNDS if args.quick else ROUNDS),
        seconds=args.seconds or (QUICK_SECONDS if args.quick else SECONDS),
        customers=args.customers or (QUICK_CUSTOMERS if args.quick else CUSTOMERS),
        connections=args.connections, floors=args.floors, known=results, say=progress.say,
    )
    failed = []
    for name in args.only:
        progress.part(name)
        try:
            results[name] = measured(name, options)
        except RuntimeError as problem:  # the other parts can still be measured
            progress.done()
            failed.append(name)
            print(f"\n## {name}: {PARTS[name].TITLE}\n\nFAILED: {problem}", flush=True)
            continue
        progress.done()
        print(f"\n## {name}: {PARTS[name].TITLE}\n\n{report.where(results[name])}\n\n{PARTS[name].table(results[name])}", flush=True)
        if args.json:  # after each part: what is measured is kept, whatever becomes of the next
            args.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"\n## Goals\n\n{report.goals_table(report.goals(PARTS, results))}")
    if args.publish and results:
        publish.publish(PARTS, results)
        print(f"\nIn {publish.FOLDER} and {publish.PAGE}")
    if failed:
        print(f"could not be measured: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
