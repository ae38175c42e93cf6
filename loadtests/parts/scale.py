"""What a call costs Redis with a million customers loaded, against a thousand."""

from __future__ import annotations

import contextlib
import itertools
import random
from typing import Any

from sidecar.engine import keys

from ..calls import customer
from ..script_cost import cost
from ..spread import markdown, ratios, spread, with_range
from ..stage import LOADS_AT_ONCE, Stage, bucket, top_up
from ..valkeys import valkey
from . import Goal, Options

TITLE = "Customers loaded"
FEW = 1_000
CALLS = 4_000
"""In a round, of each kind."""


def run(options: Options) -> dict[str, Any]:
    """Processor time a call in a Valkey for each number of customers, in turns; every call is another
    customer's, drawn at random."""
    sizes = [FEW]
    while sizes[-1] < options.customers:
        sizes.append(min(10 * sizes[-1], options.customers))
    with contextlib.ExitStack() as stack:
        stages = {size: Stage(stack.enter_context(valkey())) for size in sizes}
        for size, stage in stages.items():
            _load(stage, size, options)
        found: dict[str, dict[int, list[float]]] = {verb: {size: [] for size in sizes} for verb in ("track", "check")}
        for number in range(-1, 2 * options.rounds + 1):
            options.say(f"round {number + 1} of {2 * options.rounds + 1}")
            for verb, size in itertools.product(found, sorted(sizes, reverse=number % 2 == 1)):
                names = [customer(random.randrange(size)) for _ in range(CALLS)]
                stage = stages[size]
                spent = cost(stage.client, [stage.asked(verb, {"customer_id": name, "feature_id": "msg"}) for name in names])
                stage.client.xtrim(keys.log(0), 0, approximate=False)
                if number >= 0:
                    found[verb][size].append(spent.cpu_us)
    return {
        "verbs": {
            verb: {"us": {str(size): spread(us) for size, us in of.items()}, "ratio": ratios(of[sizes[-1]], of[FEW])}
            for verb, of in found.items()
        },
    }


def _load(stage: Stage, size: int, options: Options) -> None:
    step = max(LOADS_AT_ONCE, size // 20)

    def told(done: int) -> None:
        if done % step == 0:
            options.say(f"{done:,} of {size:,} customers loaded")

    stage.load_many(map(customer, range(size)), {"msg": [bucket(1), top_up(2, 10**11)]}, told)


def table(result: dict[str, Any]) -> str:
    """Microseconds for each number of customers."""
    verbs = result["verbs"]
    sizes = list(next(iter(verbs.values()))["us"])
    rows = [[verb, *(with_range(of["us"][size], 1) for size in sizes), with_range(of["ratio"])] for verb, of in verbs.items()]
    return markdown(["µs of Redis' processor", *(f"{int(size):,} customers" for size in sizes), "last ÷ first"], rows)


def goals(results: dict[str, Any]) -> list[Goal]:
    """The same within a tenth."""
    return [
        Goal(f"{int(max(of['us'], key=int)):,} customers ÷ {FEW:,}, {verb}", of["ratio"]["median"], 1.1, False)
        for verb, of in results["scale"]["verbs"].items()
    ]
