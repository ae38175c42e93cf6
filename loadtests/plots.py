"""The pictures of docs/performance.md, from what was measured."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from .chart import Panel, draw
from .floors.start import TITLES

OURS = "sidecar"
LOGARITHMIC_FROM = 100
"""Sizes that span decades stand on a logarithmic axis; few enough to see a straight line by do not."""
CURVE = ("50", "75", "90", "95", "99", "99.9")
CURVE_CONNECTIONS = 16
RUNS_NAMED = 5
"""At most, on the axis of the history."""


def cost(measures: Mapping[str, Any]) -> str:
    """Microseconds against what is held: a panel for each series, a line for each kind of call."""
    panels = []
    for measure in measures.values():
        lines = {
            kind: sorted((float(size), us) for size, us in line["us"].items()) for kind, line in measure["calls"].items()
        }
        sizes = sorted({int(size) for line in lines.values() for size, _ in line})
        log = sizes[-1] > LOGARITHMIC_FROM
        named = {float(size): f"{size:,}" for size in sizes if log or size == sizes[0] or size * 16 > sizes[-1]}
        panels.append(Panel(measure["title"], measure["unit"], lines, named, log_x=log))
    return draw("Time of Redis' scripts per call, in microseconds", panels)


def throughput(http: Mapping[str, Any]) -> str:
    """Requests a second against connections, of everyone."""
    panels = []
    for verb in dict.fromkeys(row["verb"] for row in http["rows"]):
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in (row for row in http["rows"] if row["verb"] == verb):
            for name, found in row["found"].items():
                lines.setdefault(TITLES.get(name, name), []).append((row["connections"], found["requests_per_s"]["median"]))
        panels.append(Panel(verb, "connections", lines, {x: f"{x:g}" for x, _ in lines[OURS]}, log_x=True))
    return draw("Requests a second, one server process each", panels)


def latency(http: Mapping[str, Any] | None, arrivals: Mapping[str, Any] | None) -> str:
    """Percentiles of closed loops, and the histograms of fixed rates."""
    panels = []
    for row in http["rows"] if http else []:
        if row["connections"] == CURVE_CONNECTIONS:
            places = {float(number): name for number, name in enumerate(CURVE)}
            lines = {
                TITLES.get(name, name): [(place, found["percentiles_us"][percent] / 1000) for place, percent in places.items()]
                for name, found in row["found"].items()
            }
            title = f"{row['verb']}, closed loop, {row['connections']} connections: ms"
            panels.append(Panel(title, "percentile", lines, places, log_y=True))
    for verb, found in arrivals["verbs"].items() if arrivals else ():
        lines = {
            f"{one['rate_per_s']:,.0f} calls/s ({one['share']:.0%})": [
                (us / 1000, 100 * count / one["count"]) for us, count in one["histogram"]
            ]
            for one in found["open"]
        }
        xs = [x for line in lines.values() for x, _ in line]
        named = {x: f"{x:g}" for x in (0.01, 0.1, 1, 10, 100, 1000) if min(xs) <= x <= max(xs)}
        title = f"{verb}, calls at a fixed rate: % of the calls"
        panels.append(Panel(title, "ms from when the call was due", lines, named, log_x=True, dots=False))
    return draw("Latency", panels)


def customers(scale: Mapping[str, Any]) -> str:
    """Redis' processor time a call against the customers loaded."""
    lines = {verb: [(float(size), us["median"]) for size, us in of["us"].items()] for verb, of in scale["verbs"].items()}
    named = {size: f"{size:,.0f}" for size, _ in next(iter(lines.values()))}
    panel = Panel("Each call another customer's, at random", "customers loaded", lines, named, log_x=True)
    return draw("Redis' processor time per call, in microseconds", [panel])




def _throughput_of(floor: str, connections: Sequence[int]) -> dict[str, str]:
    """Lines of the history, and the goal that each shows."""
    return {
        f"{verb}, {count} connections": f"throughput ÷ {floor}, {verb}, {count} connections"
        for verb in ("track", "check") for count in connections
    }


HISTORY: Mapping[str, tuple[Mapping[str, str], Mapping[str, float]]] = {
    "Requests a second ÷ F1's": (_throughput_of("F1", (16, 64)), {"wanted, at least": 1.5}),
    "Requests a second ÷ F4's": (_throughput_of("F4", (16, 64)), {"wanted, at least": 1.0}),
    "Requests a second ÷ F3's (redis-py)": (_throughput_of("F3 (redis-py)", (64,)), {"wanted, at least": 4.0}),
    "Scripts, as times the least": (
        {
            "track": "script: track ÷ least track", "track with key": "script: track with key ÷ least track",
            "check": "script: check ÷ least check",
        },
        {"track: wanted, at most": 1.6, "with key: wanted": 2.0, "check: wanted": 1.5},
    ),
}
"""Panels: their lines, and what is wanted of these."""


def history(runs: Sequence[Mapping[str, Any]]) -> str:
    """Ratios by the version they were measured of."""
    panels = []
    every = max(1, -(-len(runs) // RUNS_NAMED))
    named = {float(number): run["commit"] for number, run in enumerate(runs) if number % every == 0}
    for title, (lines, wanted) in HISTORY.items():
        found = {
            name: [(float(number), run["goals"][goal]) for number, run in enumerate(runs) if goal in run["goals"]]
            for name, goal in lines.items()
        }
        if any(found.values()):
            panels.append(Panel(title, "commit", {name: line for name, line in found.items() if line}, named, goals=wanted))
    return draw("Ratios by version", panels)
