"""P2: acknowledged is in SQL, exactly once, whatever is killed and started again.

The short form kills for KILL_S; SIDECAR_LONG=<minutes> makes it longer. The seed is printed;
SIDECAR_FAULT_SEED takes one.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import pytest

from ..run.harness import Sidecar, wait_for
from . import tree
from .callers import Load

KILL_S = float(os.environ.get("SIDECAR_LONG", 0)) * 60 or 31.0
BETWEEN_S = (1.6, 2.9)
CALLERS = 6
CUSTOMERS = [f"c{number}" for number in range(12)]
KINDS: dict[str, tuple[str, ...]] = {
    "sync worker": ("sync",),
    "http worker": ("http",),
    "valkey": ("valkey",),
    "whole tree": ("parent", "watch", "http", "sync", "valkey"),
}
KINDS_EACH_MIN = 2
KILLS_MIN = 10


@pytest.fixture
def sidecars(pg_url: str, tmp_path: Path) -> Iterator[dict[str, Sidecar]]:
    """A sidecar with appendfsync always on each database, running."""
    made = {
        name: tree.sidecar_on(tmp_path / name, url) for name, url in (("sqlite", None), ("postgres", pg_url))
    }
    for sidecar in made.values():
        sidecar.start()
    yield made
    for sidecar in made.values():
        sidecar.destroy()


@dataclass
class Outcome:
    """What one sidecar went through, and what SQL had in the end."""

    load: Load
    found: tree.Found
    seconds: float
    lag_s: float
    kills: Counter[str]
    in_flight: list[int]
    """Calls that were sent and not answered, at each kill."""
    killed_at: list[tuple[str, float]]

    def silences_s(self) -> dict[str, float]:
        """The longest time from a kill of each kind to the next acknowledgement of a call begun
        after it."""
        answered = sorted((call.begun_at, call.answered_at) for call in self.load.tally.calls)
        longest: dict[str, float] = {}
        for kind, at in self.killed_at:
            after = min((done for begun, done in answered if begun > at), default=at)
            longest[kind] = max(longest.get(kind, 0.0), round(after - at, 1))
        return longest


def kill_under_load(sidecar: Sidecar, draw: random.Random, seed: int) -> Outcome:
    """Callers go on all the time; every now and then something is killed."""
    tree.set_up(sidecar, CUSTOMERS)
    load = Load(sidecar.port, CUSTOMERS, seed, CALLERS)
    load.start()
    kills: Counter[str] = Counter()
    in_flight: list[int] = []
    killed_at: list[tuple[str, float]] = []
    first = list(KINDS) * KINDS_EACH_MIN
    draw.shuffle(first)
    began_at = time.monotonic()
    while time.monotonic() - began_at < KILL_S or sum(kills.values()) < KILLS_MIN or first:
        time.sleep(draw.uniform(*BETWEEN_S))
        kind = first.pop() if first else draw.choice(list(KINDS))
        wait_for(f"a {kind} to kill", lambda: {p.role for p in sidecar.processes()} >= set(KINDS[kind]), 20)
        in_flight.append(load.in_flight)
        assert tree.kill(sidecar, KINDS[kind]) >= len(KINDS[kind])
        kills[kind] += 1
        killed_at.append((kind, time.monotonic()))
        if kind == "whole tree":
            assert sidecar.process is not None
            sidecar.process.wait(10)
            sidecar.start()
    seconds = time.monotonic() - began_at
    load.stop()
    lag_s = tree.wait_synced(sidecar)
    store = tree.open_store(sidecar)
    found = tree.read(store)
    store.close()
    return Outcome(load, found, seconds, lag_s, kills, in_flight, killed_at)


def test_every_acknowledged_call_is_in_sql_once_whatever_is_killed(sidecars: dict[str, Sidecar]) -> None:
    """P2, P3. SIGKILL at random under load, on both databases at the same time; each call whose
    outcome is unknown is repeated with its key until it has an answer."""
    seed = int(os.environ.get("SIDECAR_FAULT_SEED", random.randrange(1 << 30)))
    print(f"SIDECAR_FAULT_SEED={seed}")
    with ThreadPoolExecutor(len(sidecars)) as threads:
        running = {
            name: threads.submit(kill_under_load, sidecar, random.Random(f"{seed} {name}"), seed)
            for name, sidecar in sidecars.items()
        }
    for name, sidecar in sidecars.items():
        print(name)
        judge(sidecar, running[name].result())


def judge(sidecar: Sidecar, outcome: Outcome) -> None:
    """The promises, and that the test has put them to the test."""
    tally, found, kills, in_flight = outcome.load.tally, outcome.found, outcome.kills, outcome.in_flight
    acknowledged = tree.assert_calls_are_in_sql(found, tally.calls)
    tree.assert_exact(found, tally, CUSTOMERS)
    tree.assert_answers_agree(sidecar, found, CUSTOMERS)
    tree.audit(sidecar)
    repeated = sum(call.unknown > 0 for call in tally.calls)
    print(
        f"{sum(kills.values())} kills in {outcome.seconds:.0f} s {dict(kills)}, in flight at kills {in_flight}; "
        f"{acknowledged} acknowledged of {len(tally.calls)} calls, {repeated} repeated after an unknown outcome "
        f"{dict(tally.unknown)}, refused for the moment {dict(tally.refused)}, {tally.checks} checks, {tally.repeats} "
        f"repeats {tally.repeats_called_so} called so, purchases {sum(tally.boosts_tried.values())} tried "
        f"{sum(tally.boosts_made.values())} answered {sum(found.boosts.values())} made; SQL had all "
        f"{outcome.lag_s:.1f} s after the load; longest until the next acknowledgement {outcome.silences_s()} s"
    )
    assert outcome.seconds >= 30 and sum(kills.values()) >= KILLS_MIN
    assert all(kills[kind] >= KINDS_EACH_MIN for kind in KINDS), kills
    assert sum(in_flight) >= KILLS_MIN and sum(tally.unknown.values()) >= KILLS_MIN and repeated >= KILLS_MIN / 2
    assert acknowledged >= 1000 and tally.repeats_called_so >= 0.9 * tally.repeats > 20
