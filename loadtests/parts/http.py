"""track and check over HTTP, one worker, against the floors and peers of `loadtests.floors`, in turns."""

from __future__ import annotations

from typing import Any

from .. import calls
from ..floors.start import TITLES, Contestant, peers
from ..load import generator_name, measure
from ..processes import below, cpu_s
from ..spread import markdown, ratios, spread, with_range
from ..target import Target, serving
from . import Goal, Options

TITLE = "HTTP, one worker"
OURS = "sidecar"
WARM_UP_CONNECTIONS = 16
WARM_UP_S = 1
SPENT_CONNECTIONS = 16
PROCESSES = {"HTTP worker": "sidecar.run.http_worker", "Valkey": "valkey-server", "sync worker": "sync.worker"}
"""What a call costs time, by words of the command lines."""


def run(options: Options) -> dict[str, Any]:
    """Windows of each contestant for every verb and number of connections; who goes first changes
    from round to round."""
    with serving(calls.CATALOG, {"SIDECAR_WORKERS": "1"}) as target:
        options.say("makes the customers")
        with peers(options.floors, calls.prepare(target)) as others:
            everyone = [Contestant(OURS, target.address, target.http_workers), *others.contestants]
            windows = []
            for one in everyone:
                options.say(f"warms {one.name} up")
                for verb in calls.PATHS:
                    measure(one.address, calls.requests(verb), WARM_UP_CONNECTIONS, WARM_UP_S)
            for number in range(options.rounds):
                for connections in options.connections:
                    for verb in calls.PATHS:
                        for one in everyone[number % len(everyone) :] + everyone[: number % len(everyone)]:
                            options.say(f"round {number + 1} of {options.rounds}, {connections} connections, {verb}, {one.name}")
                            calls.settle(target)
                            if one.name not in (OURS, "bare"):
                                others.reset()
                            window = measure(one.address, calls.requests(verb), connections, options.seconds, one.pids)
                            windows.append({"name": one.name, "verb": verb, "connections": connections, **window})
            options.say("looks where the time goes")
            spent = {verb: _spent_us(target, verb, options.seconds) for verb in calls.PATHS}
    return {
        "generator": generator_name(), "seconds": options.seconds, "missing": others.missing, "windows": windows,
        "rows": rows_of(windows), "spent_us": spent,
    }


def _spent_us(target: Target, verb: str, seconds: float) -> dict[str, float]:
    """The processor time a call of every process of the sidecar, until SQL has the last one."""
    calls.settle(target)
    pids = {shown: below(target.pid, words) for shown, words in PROCESSES.items()}
    before_s = {shown: cpu_s(found) for shown, found in pids.items()}
    count = measure(target.address, calls.requests(verb), SPENT_CONNECTIONS, seconds)["calls"]
    calls.settle(target)
    return {shown: round((cpu_s(found) - before_s[shown]) / count * 1e6, 1) for shown, found in pids.items()}


def rows_of(windows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each verb and number of connections: the spread of every figure of every contestant, and of the
    sidecar's ratios to it."""
    rows = []
    for verb, connections in sorted({(window["verb"], window["connections"]) for window in windows}):
        found: dict[str, Any] = {}
        here = [window for window in windows if (window["verb"], window["connections"]) == (verb, connections)]
        for name in dict.fromkeys(window["name"] for window in sorted(here, key=lambda one: one["name"] != OURS)):
            theirs, ours = [[_figures(window) for window in here if window["name"] == each] for each in (name, OURS)]
            found[name] = {figure: spread(each[figure] for each in theirs) for figure in theirs[0]}
            found[name]["percentiles_us"] = _percentiles([window for window in here if window["name"] == name])
            if name != OURS:
                found[name]["ratio"] = {
                    figure: ratios([each[figure] for each in ours], [each[figure] for each in theirs]) for figure in theirs[0]
                }
        rows.append({"verb": verb, "connections": connections, "found": found})
    return rows


def _figures(window: dict[str, Any]) -> dict[str, float]:
    return {
        "requests_per_s": window["requests_per_s"], "p50_us": window["percentiles_us"]["50"],
        "p99_us": window["percentiles_us"]["99"], "cpu_us": max(window["cpu_us_per_call"], 0.1),
    }


def _percentiles(windows: list[dict[str, Any]]) -> dict[str, float]:
    names = windows[0]["percentiles_us"]
    return {name: spread(window["percentiles_us"][name] for window in windows)["median"] for name in names}


def table(result: dict[str, Any]) -> str:
    """Throughput, latency and processor time of each; the ratios to each floor; where the time of a call goes."""
    rows = result["rows"]
    names = list(rows[0]["found"])
    others = [name for name in names if name != OURS]
    titles = [TITLES.get(name, name) for name in names]

    def cells(name: str, figure: str, scale: float, digits: int) -> list[str]:
        return [f"{row['found'][name][figure]['median'] / scale:,.{digits}f}" for row in rows]

    head = [f"{row['verb']}, {row['connections']}" for row in rows]
    parts = [f"Load by {result['generator']}; windows of {result['seconds']:g} s; calls and connections in the columns."]
    if result["missing"]:
        parts.append("Not measured: " + "; ".join(f"{TITLES[name]} ({why})" for name, why in result["missing"].items()) + ".")
    for title, figure, scale, digits in (
        ("Requests a second", "requests_per_s", 1, 0), ("p50, ms", "p50_us", 1000, 2), ("p99, ms", "p99_us", 1000, 2),
        ("Processor time of the server process a call, µs", "cpu_us", 1, 0),
    ):
        lines = [[shown, *cells(name, figure, scale, digits)] for name, shown in zip(names, titles)]
        parts.append(markdown([title, *head], lines))
    for title, figure in (
        ("Sidecar's requests a second ÷ those of", "requests_per_s"), ("Sidecar's processor time a call ÷ that of", "cpu_us"),
    ):
        lines = [[TITLES[name], *(with_range(row["found"][name]["ratio"][figure]) for row in rows)] for name in others]
        parts.append(markdown([title, *head], lines))
    parts.append(markdown([f"The sidecar's processes, µs a call, {SPENT_CONNECTIONS} connections", *PROCESSES], [
        [verb, *(f"{us:.0f}" for us in spent.values())] for verb, spent in result["spent_us"].items()
    ]))
    return "\n\n".join(parts)


def goals(results: dict[str, Any]) -> list[Goal]:
    """Throughput and latency, each against the floor it is measured by."""
    found = []
    for row in results["http"]["rows"]:
        where = f"{row['verb']}, {row['connections']} connection{'s' if row['connections'] > 1 else ''}"

        def goal(floor: str, figure: str, bound: float, title: str, at_least: bool = True) -> None:
            if floor in row["found"]:
                found.append(Goal(f"{title}, {where}", row["found"][floor]["ratio"][figure]["median"], bound, at_least))

        if row["connections"] == 1:
            goal("bare", "p50_us", 1.3, "p50 ÷ F1's", False)
            continue
        goal("bare", "requests_per_s", 1.5, "throughput ÷ F1")
        goal("bun", "requests_per_s", 1.0, "throughput ÷ F4")
        if row["connections"] == 16:
            goal("bare", "p99_us", 1.5, "p99 ÷ F1's", False)
        if row["connections"] == 64:
            goal("plain", "requests_per_s", 4.0, "throughput ÷ F3 (redis-py)")
    return found
