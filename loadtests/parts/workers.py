"""Two HTTP workers against one."""

from __future__ import annotations

import os
from typing import Any

from .. import calls
from ..load import generator_name, measure
from ..spread import markdown, ratios, spread, with_range
from ..target import serving
from . import Goal, Options

TITLE = "Two workers"
CONNECTIONS = 64
THREADS = 2
CORES_MIN = 5
"""Two workers, Redis, the sync worker and a generator: with fewer cores they take them from each other."""


def run(options: Options) -> dict[str, Any]:
    """Windows on two sidecars, one of them with two workers, in turns."""
    found: dict[str, dict[str, list[float]]] = {verb: {"1": [], "2": []} for verb in calls.PATHS}
    with serving(calls.CATALOG, {"SIDECAR_WORKERS": "1"}) as one, serving(calls.CATALOG, {"SIDECAR_WORKERS": "2"}) as two:
        targets = {"1": one, "2": two}
        for target in targets.values():
            calls.prepare(target)
        for number in range(-1, options.rounds):
            for verb in calls.PATHS:
                for workers, target in sorted(targets.items(), reverse=number % 2 == 1):
                    options.say(f"round {number + 1} of {options.rounds}, {verb}, {workers} workers")
                    for each in targets.values():
                        calls.settle(each)
                    window = measure(target.address, calls.requests(verb), CONNECTIONS, options.seconds, threads=THREADS)
                    if number >= 0:
                        found[verb][workers].append(window["requests_per_s"])
        for target in targets.values():
            calls.settle(target)
    return {
        "generator": generator_name(), "connections": CONNECTIONS, "cores": os.cpu_count(),
        "verbs": {
            verb: {"1": spread(of["1"]), "2": spread(of["2"]), "ratio": ratios(of["2"], of["1"])} for verb, of in found.items()
        },
    }


def table(result: dict[str, Any]) -> str:
    """Requests a second with one and with two."""
    rows = [
        [verb, with_range(of["1"], 0), with_range(of["2"], 0), with_range(of["ratio"])] for verb, of in result["verbs"].items()
    ]
    found = markdown(["call", "one worker", "two workers", "ratio"], rows)
    if (result["cores"] or 0) < CORES_MIN:
        found += (
            f"\n\nThis machine has {result['cores']} cores; two workers, Redis, the sync worker and the generator want {CORES_MIN}."
        )
    return found


def goals(results: dict[str, Any]) -> list[Goal]:
    """Two against one."""
    found = results["workers"]["verbs"]
    return [Goal(f"two workers ÷ one, {verb}", found[verb]["ratio"]["median"], 1.6) for verb in found]
