"""What a call costs Redis against how much its customer holds, by `loadtests.flat_cost`."""

from __future__ import annotations

from typing import Any

from ..flat_cost import results
from ..spread import markdown
from ..stage import CALLS, Stage
from ..valkeys import valkey
from . import Goal, Options

TITLE = "Cost against what is held"
ROUNDS = 4
"""Times those of other parts, for a round is short."""


def run(options: Options) -> dict[str, Any]:
    """Microseconds of each kind of call for each size, medians."""
    with valkey() as client:
        return {"calls_a_round": CALLS, "measures": results(Stage(client), ROUNDS * options.rounds + 1, options.say)}


def table(result: dict[str, Any]) -> str:
    """The smallest and the largest of each series."""
    rows = []
    for measure in result["measures"].values():
        for kind, line in measure["calls"].items():
            sizes = sorted(line["us"], key=int)
            held = f"{int(sizes[-1]):,} {measure['unit']}"
            rows.append([held, kind, f"{line['us'][sizes[0]]:.0f}", f"{line['us'][sizes[-1]]:.0f}", f"{line['ratio']:.2f}"])
    return markdown(["held", "call, µs in the script", "of 1", "of all", "ratio"], rows, 2)


def goals(results: dict[str, Any]) -> list[Goal]:
    """`tests/lua/test_flat_cost.py` holds what is wanted."""
    return []
