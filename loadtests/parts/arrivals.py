"""Latency where calls come at a fixed rate, whatever the answers do, counted from when each was due.

A closed loop sends its next call when the last is answered, so that a stall of the server is one slow call
there; here it is as many as should have come meanwhile.
"""

from __future__ import annotations

from typing import Any

from .. import calls
from ..histogram import Histogram
from ..load import Generated, generate, generator_name, measure, percentiles_us
from ..spread import markdown
from ..target import serving
from . import Goal, Options

TITLE = "Arrivals at a fixed rate"
SHARES = (0.25, 0.5, 0.75)
"""Of what a closed loop gets."""
CONNECTIONS = 64


def run(options: Options) -> dict[str, Any]:
    """For each verb the closed loop's rate, and at each share of it the latencies of all rounds."""
    verbs: dict[str, Any] = {}
    with serving(calls.CATALOG, {"SIDECAR_WORKERS": "1"}) as target:
        calls.prepare(target)
        for verb in calls.PATHS:
            requests = calls.requests(verb)
            options.say(f"{verb}, closed")
            measure(target.address, requests, CONNECTIONS, options.seconds)
            calls.settle(target)
            closed_per_s = measure(target.address, requests, CONNECTIONS, options.seconds)["requests_per_s"]
            rounds: dict[float, list[Generated]] = {share: [] for share in SHARES}
            for number in range(options.rounds):
                for share in SHARES:
                    options.say(f"round {number + 1} of {options.rounds}, {verb}, {share:.0%} of {closed_per_s:,.0f}/s")
                    calls.settle(target)
                    rate_per_s = closed_per_s * share
                    rounds[share].append(generate(target.address, requests, CONNECTIONS, options.seconds, rate_per_s))
            calls.settle(target)
            verbs[verb] = {"closed_per_s": closed_per_s, "open": [_summary(share, closed_per_s, rounds[share]) for share in SHARES]}
    return {"generator": generator_name(python=True), "connections": CONNECTIONS, "verbs": verbs}


def _summary(share: float, closed_per_s: float, windows: list[Generated]) -> dict[str, Any]:
    """All windows together; but the percentiles of how late the generator was are of each call sent."""
    latencies = Histogram.merged(window.latencies.pairs() for window in windows)
    late = Histogram.merged(window.late.pairs() for window in windows)
    return {
        "share": share, "rate_per_s": round(closed_per_s * share, 1), "count": latencies.count,
        "percentiles_us": percentiles_us(latencies), "late_percentiles_us": percentiles_us(late),
        "histogram": latencies.coarse(),
    }


def table(result: dict[str, Any]) -> str:
    """Percentiles by verb and rate."""
    rows = []
    for verb, found in result["verbs"].items():
        for one in found["open"]:
            times = [f"{one['percentiles_us'][name] / 1000:.2f}" for name in ("50", "90", "99", "99.9")]
            late = f"{one['late_percentiles_us']['50'] / 1000:.2f}"
            rows.append([verb, f"{one['rate_per_s']:,.0f} ({one['share']:.0%})", *times, late])
    return markdown(["call", "calls/s (of the closed loop's)", "p50 ms", "p90", "p99", "p99.9", "sent late by, p50"], rows)


def goals(results: dict[str, Any]) -> list[Goal]:
    """Nothing is asked of these."""
    return []
