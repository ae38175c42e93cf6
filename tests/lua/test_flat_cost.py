"""Cost stays flat: a call takes Redis as long for a customer who holds a great deal as for one who holds
next to nothing.

What is compared is Redis' own count of the time its scripts took, over many calls, in turns for the
small customer and the large one; the medians of the rounds count. A machine with other work to do
makes even that noisy: a ratio that is too high is measured again, up to three times in all, and the
least one counts. Growth with what is held is there every time.
"""

from __future__ import annotations

import pytest
import redis

from loadtests.flat_cost import DENIED, SERIES, Call, Stage, bucket, measured, ratio
from sidecar.domain import layout

RATIO_MAX = 1.3
ATTEMPTS = 3
ROUNDS, CALLS = 9, 100
FLAT = ("features", "entities", "top_ups")


@pytest.fixture
def stage(client: redis.Redis) -> Stage:
    """An open partition of an empty Valkey."""
    return Stage(client)


def least_ratio(stage: Stage, names: dict[int, str], call: Call) -> float:
    """The least of a few measurements; one that is low enough ends them."""
    least = float("inf")
    for _ in range(ATTEMPTS):
        least = min(least, ratio(measured(stage, names, call, ROUNDS, CALLS)))
        if least <= RATIO_MAX:
            break
    return least


@pytest.mark.parametrize("series", FLAT)
def test_a_full_customer_costs_what_an_empty_one_does(stage: Stage, series: str) -> None:
    """1 against 10,000 features, entities (calls of one, and calls of the customer which its own
    buckets cover), and 1,000 top-ups."""
    found = SERIES[series]
    assert max(found.sizes) == (1_000 if series == "top_ups" else 10_000)
    names = {size: found.put(stage, size) for size in (1, max(found.sizes))}
    ratios = {kind: least_ratio(stage, names, call) for kind, call in found.calls.items() if kind not in DENIED}
    assert len(ratios) >= 2 and {kind: value for kind, value in ratios.items() if value > RATIO_MAX} == {}


def test_a_denial_costs_no_more_for_a_thousand_top_ups_than_for_ten(stage: Stage) -> None:
    """A denial looks at every row that is kept, and the newest four used-up ones are; so ten top-ups
    cost it a little more than one, and a thousand no more than ten."""
    found = SERIES["top_ups"]
    names = {size: found.put(stage, size) for size in (10, 1_000)}
    for call in DENIED.values():
        assert least_ratio(stage, names, call) <= RATIO_MAX


def test_used_up_top_ups_are_counted_where_they_are_not_kept(stage: Stage) -> None:
    """What the customer with a thousand top-ups has: few rows, and the sum of the others."""
    name = SERIES["top_ups"].put(stage, 1_000)
    blob = layout.unpack(stage.client.hget(f"{{p0}}:c:{name}", "b:msg"))
    assert (len(blob.rows), blob.archived.count) == (5, 996)
    assert blob.archived.granted == blob.archived.prepaid == 996 * 10


def test_the_measure_sees_what_grows(stage: Stage) -> None:
    """A call that needs the shares of many entities, which is not flat and must be seen."""
    def sharing(count: int) -> str:
        shares = bucket(1, 10, balance=10 * count, flags=layout.PER_ENTITY, slots=count, entity_feature="seats")
        return stage.load({"msg": [shares]}, [f"seat{n:05}" for n in range(count)], {1: 10})

    names = {count: sharing(count) for count in (1, 100)}
    assert ratio(measured(stage, names, Call("check", 5), 3, 20)) > 3
