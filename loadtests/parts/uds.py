"""MessagePack on a Unix socket, against JSON on TCP, on one worker."""

from __future__ import annotations

import tempfile
from typing import Any

import msgpack

from .. import calls
from ..load import generator_name, measure
from ..spread import markdown, ratios, spread, with_range
from ..target import serving
from . import Goal, Options

TITLE = "MessagePack on a Unix socket"
CONNECTIONS = 16
GENERATORS = 2
"""Processes, for wrk knows no Unix sockets and one in Python would be the slower end."""
WAYS = ("JSON, TCP", "MessagePack, Unix socket")


def requests(verb: str) -> list[bytes]:
    """A call in MessagePack for each customer."""
    bodies = (calls.body(verb, number) for number in range(calls.CUSTOMERS))
    return [calls.request(calls.PATHS[verb], msgpack.packb(body), calls.MSGPACK) for body in bodies]


def run(options: Options) -> dict[str, Any]:
    """Windows of both ways, in turns, for each verb."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {verb: {way: [] for way in WAYS} for verb in calls.PATHS}
    with tempfile.TemporaryDirectory(prefix="uds-", dir="/tmp") as folder:
        with serving(calls.CATALOG, {"SIDECAR_WORKERS": "1", "SIDECAR_UDS": f"{folder}/s"}) as target:
            calls.prepare(target)
            for number in range(-1, options.rounds):
                for verb in calls.PATHS:
                    ways = {WAYS[0]: (target.address, calls.requests(verb)), WAYS[1]: (f"unix:{folder}/s", requests(verb))}
                    for way, (address, made) in sorted(ways.items(), reverse=number % 2 == 1):
                        options.say(f"round {number + 1} of {options.rounds}, {verb}, {way}")
                        calls.settle(target)
                        window = measure(
                            address, made, CONNECTIONS, options.seconds, target.http_workers, GENERATORS, python=True
                        )
                        if number >= 0:
                            found[verb][way].append(window)
            calls.settle(target)
    return {
        "generator": generator_name(python=True), "connections": CONNECTIONS,
        "verbs": {verb: _summary(of) for verb, of in found.items()},
    }


def _summary(of: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    def each(way: str, figure: str) -> list[float]:
        return [float(window[figure]) for window in of[way]]

    return {
        "found": {way: {figure: spread(each(way, figure)) for figure in ("requests_per_s", "cpu_us_per_call")} for way in WAYS},
        "ratio": ratios(each(WAYS[1], "requests_per_s"), each(WAYS[0], "requests_per_s")),
    }


def table(result: dict[str, Any]) -> str:
    """Requests a second, the worker's processor time, and the ratios."""
    rows = []
    for verb, summary in result["verbs"].items():
        for way, found in summary["found"].items():
            ratio = with_range(summary["ratio"]) if way == WAYS[1] else ""
            rows.append([verb, way, with_range(found["requests_per_s"], 0), with_range(found["cpu_us_per_call"], 1), ratio])
    return markdown(["call", "by", "requests/s", "worker's µs a call", "÷ JSON, TCP"], rows, 2)


def goals(results: dict[str, Any]) -> list[Goal]:
    """The one way against the other."""
    found = results["uds"]["verbs"]
    return [Goal(f"MessagePack on a Unix socket ÷ JSON on TCP, {verb}", found[verb]["ratio"]["median"], 1.15) for verb in found]
