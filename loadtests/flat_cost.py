"""What a check or a track costs Redis, against how much the customer holds.

Customers of growing size are put into a Valkey of its own by the shipped scripts: features held,
entities, top-ups bought (used up and archived as the worker does), and buckets of the very feature
that is called. The same calls are then made for each size, in turns, and Redis' own count of the time
its scripts took (`INFO commandstats`) is read around them.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any, Callable

from sidecar.domain import layout
from sync.tidy import DRAINED_KEPT, NUMBERS_PER_STEP

from .stage import CALLS, PLENTY, Call, Stage, bucket, top_up

SMALL = 10
"""Units of a top-up that is used up."""


@dataclass(frozen=True)
class Series:
    """Customers that differ in one number, and the calls that are made for them."""

    title: str
    unit: str
    sizes: tuple[int, ...]
    put: Callable[[Stage, int], str]
    """Puts a customer of that size there; its name."""
    calls: dict[str, Call]


def holding_features(stage: Stage, count: int) -> str:
    """A customer who holds that many features."""
    return stage.load({"msg": [bucket(1)], **{f"feature{n}": [bucket(n)] for n in range(2, count + 1)}})


def with_entities(stage: Stage, count: int) -> str:
    """A customer with that many entities, a grant for each, which all have used, and one for all."""
    per_entity = bucket(1, balance=(PLENTY - 1) * count, flags=layout.PER_ENTITY, slots=count, entity_feature="seats")
    entities = [f"seat{n:05}" for n in range(count)]
    return stage.load({"msg": [per_entity, bucket(2)]}, entities, {1: PLENTY - 1})


def with_top_ups(stage: Stage, count: int) -> str:
    """A customer who bought units that many times, and has used up all but the last."""
    name, version, no, there = stage.load({"msg": [top_up(1, SMALL)]}), 1, 1, [1]
    while no < count:
        more = list(range(no + 1, min(no + NUMBERS_PER_STEP, count) + 1))
        adds = [["add", "msg", list(top_up(n, SMALL)), [], 0, 0] for n in more]
        stage.step(name, version := version + 1, *adds)
        there, no = there + more, more[-1]
        stage.client.execute_command(*stage.command(name, Call("track", SMALL * len(there))))
        if leaving := there[:-DRAINED_KEPT]:
            stage.step(name, version := version + 1, ["archive", "msg", "", leaving])
            there = there[-DRAINED_KEPT:]
    stage.step(name, version + 1, ["add", "msg", list(top_up(count + 1, PLENTY)), [], 0, 0])
    return name


def with_buckets(stage: Stage, count: int) -> str:
    """A customer with that many buckets of one feature."""
    return stage.load({"msg": [bucket(no) for no in range(1, count + 1)]})


BOTH = {"track": Call("track"), "check": Call("check")}
DENIED = {"check, denied": Call("check", 10**15)}

SERIES = {
    "features": Series("Features held", "features", (1, 10, 100, 1000, 10_000), holding_features, BOTH),
    "entities": Series("Entities", "entities", (1, 10, 100, 1000, 10_000), with_entities, {
        "track by an entity": Call("track", entity="seat00000"), "check by an entity": Call("check", entity="seat00000"),
        "track by the customer": Call("track"), "check by the customer": Call("check"),
    }),
    "top_ups": Series("Top-ups bought and used up", "top-ups", (1, 10, 100, 1000), with_top_ups, {**BOTH, **DENIED}),
    "buckets": Series("Buckets of the feature that is called", "buckets", (1, 2, 4, 8, 16, 32), with_buckets, {**BOTH, **DENIED}),
}


def measured(stage: Stage, names: dict[int, str], call: Call, rounds: int, calls: int = CALLS) -> dict[int, list[float]]:
    """Microseconds a call for each customer (by size), round by round; each round goes through them
    the other way round."""
    found: dict[int, list[float]] = {size: [] for size in names}
    for name in names.values():
        stage.spent_us(name, call, calls // 4)  # warm
    for number in range(rounds):
        for size in sorted(names, reverse=number % 2 == 1):
            found[size].append(stage.spent_us(names[size], call, calls))
    return found


def ratio(found: dict[int, list[float]]) -> float:
    """What the largest costs against the smallest: the median of the rounds' own ratios."""
    return statistics.median(large / small for small, large in zip(found[min(found)], found[max(found)]))


def slope_us(found: dict[int, list[float]]) -> float:
    """Microseconds that one more costs, by a straight line through the medians."""
    sizes = sorted(found)
    return statistics.linear_regression(sizes, [statistics.median(found[size]) for size in sizes]).slope


def results(stage: Stage, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything measured: per series and kind of call, the medians by size, the ratio, the slope."""
    measures: dict[str, Any] = {}
    for name, series in SERIES.items():
        say(series.title)
        names = {size: series.put(stage, size) for size in series.sizes}
        lines = {}
        for kind, call in series.calls.items():
            found = measured(stage, names, call, rounds)
            lines[kind] = {
                "us": {str(size): round(statistics.median(values), 2) for size, values in found.items()},
                "ratio": round(ratio(found), 3), "us_for_one_more": round(slope_us(found), 4),
            }
        measures[name] = {"title": series.title, "unit": series.unit, "calls": lines}
    return measures
