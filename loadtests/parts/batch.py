"""Tracks of 100 in one call, against single ones, on one worker."""

from __future__ import annotations

from typing import Any

from .. import calls
from ..load import generator_name, measure
from ..spread import markdown, ratios, spread, with_range
from ..target import serving
from . import Goal, Options

TITLE = "Batches"
ITEMS = 100
CONNECTIONS = 16
WARM_UP_S = 1


def requests() -> list[bytes]:
    """Every customer once, 100 in a call."""
    bodies = [calls.body("track", number) for number in range(calls.CUSTOMERS)]
    return [
        calls.request(calls.BATCH_PATH, calls.compact(bodies[at : at + ITEMS])) for at in range(0, calls.CUSTOMERS, ITEMS)
    ]


def run(options: Options) -> dict[str, Any]:
    """Windows of batches and of single calls, in turns. Raises RuntimeError if a batch's items fail."""
    ways = {"single": (calls.requests("track"), 1), "batch": (requests(), ITEMS)}
    found: dict[str, dict[str, list[float]]] = {way: {"items_per_s": [], "cpu_us": []} for way in ways}
    with serving(calls.CATALOG, {"SIDECAR_WORKERS": "1"}) as target:
        calls.prepare(target)
        body = [calls.body("track", number) for number in range(ITEMS)]
        answer = target.call("POST", calls.BATCH_PATH, body)
        if {item["status"] for item in answer["results"]} != {200}:
            raise RuntimeError(f"items of a batch failed: {answer}")
        for number in range(-1, options.rounds):
            for way, (made, items) in sorted(ways.items(), reverse=number % 2 == 1):
                options.say(f"round {number + 1} of {options.rounds}, {way}")
                calls.settle(target)
                seconds = WARM_UP_S if number < 0 else options.seconds
                window = measure(target.address, made, CONNECTIONS, seconds, target.http_workers)
                if number >= 0:
                    found[way]["items_per_s"].append(window["requests_per_s"] * items)
                    found[way]["cpu_us"].append(window["cpu_us_per_call"] / items)
        options.say("waits for SQL")
        calls.settle(target)
    return {
        "generator": generator_name(), "items": ITEMS, "connections": CONNECTIONS,
        "found": {way: {figure: spread(values) for figure, values in of.items()} for way, of in found.items()},
        "ratio": ratios(found["batch"]["items_per_s"], found["single"]["items_per_s"]),
    }


def table(result: dict[str, Any]) -> str:
    """Items a second, and the worker's processor time for one."""
    rows = [
        [way, with_range(found["items_per_s"], 0), with_range(found["cpu_us"], 1)] for way, found in result["found"].items()
    ]
    return markdown(["track", "items a second", "worker's µs an item"], rows) + f"\n\nRatio {with_range(result['ratio'])}."


def goals(results: dict[str, Any]) -> list[Goal]:
    """Items of batches against single calls."""
    return [Goal("batch of 100: items a second ÷ single calls", results["batch"]["ratio"]["median"], 5.0)]
