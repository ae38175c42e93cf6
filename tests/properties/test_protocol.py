"""Loads, evictions, steps, openings, syncs and rollbacks of one partition, interleaved at will and
killed between any two steps: the protocol holds, and each of its fences is needed.

The model is tests/model/protocol.py. Three kinds of test run on it: a Hypothesis state machine, seeded
random runs (fast enough to find a planted bug in moments), and races written out, for the fences
whose absence shows only in one narrow order of events.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.model.protocol import FENCES, Actor, Violation, World

NAMES = ("ann", "bob")
KEYS = ("k", "l")
CHANGES = ("create", "create", "add", "set", "mark", "delete")
number = st.integers(0, 59)


def begin(world: World) -> None:
    """Opens the partition and gives every name a customer."""
    world.run(world.open())
    for name in NAMES:
        world.run(world.change(name, "create", 9))


def advance(world: World, actor: Actor | None, steps: int) -> None:
    """Moves an actor on; from 24 up to its end."""
    for _ in range(1 + steps % 8 if steps < 24 else 60):
        if actor is None or actor not in world.actors:
            return
        world.step(world.actors.index(actor))
        world.check()


class Protocol(RuleBasedStateMachine):
    """Every actor stands still where Hypothesis leaves it, and may never move again."""

    @initialize()
    def start(self) -> None:
        self.world = World()
        begin(self.world)

    @rule(which=number, steps=number)
    def step(self, which: int, steps: int) -> None:
        if self.world.actors:
            advance(self.world, self.world.actors[which % len(self.world.actors)], steps)

    @rule(which=number)
    def crash(self, which: int) -> None:
        self.world.crash(which)

    @rule(steps=number)
    def open(self, steps: int) -> None:
        advance(self.world, self.world.start(self.world.open()), steps)

    @rule(name=st.sampled_from(NAMES), amount=st.integers(1, 3), key=st.sampled_from(("", *KEYS)), steps=number)
    def spend(self, name: str, amount: int, key: str, steps: int) -> None:
        advance(self.world, self.world.start(self.world.spend(name, amount, key)), steps)

    @rule(name=st.sampled_from(NAMES), kind=st.sampled_from(CHANGES), amount=st.integers(2, 6), steps=number)
    def change(self, name: str, kind: str, amount: int, steps: int) -> None:
        advance(self.world, self.world.start(self.world.change(name, kind, amount)), steps)

    @rule(name=st.sampled_from(NAMES), steps=number)
    def load(self, name: str, steps: int) -> None:
        advance(self.world, self.world.start(self.world.load(name)), steps)

    @rule(count=st.integers(1, 4), trim=st.booleans(), steps=number)
    def work(self, count: int, trim: bool, steps: int) -> None:
        advance(self.world, self.world.start(self.world.work(count, trim)), steps)

    @rule(name=st.sampled_from(NAMES), key=st.sampled_from(("", "", *KEYS)), steps=number)
    def evict(self, name: str, key: str, steps: int) -> None:
        advance(self.world, self.world.start(self.world.evict(name, key)), steps)

    @rule()
    def keep_snapshot(self) -> None:
        self.world.keep_snapshot()

    @precondition(lambda self: self.world.snapshots)
    @rule(which=number)
    def roll_back(self, which: int) -> None:
        self.world.restart(which)

    @rule()
    def restart(self) -> None:
        self.world.restart(None)

    @rule()
    def flushall(self) -> None:
        self.world.flushall()

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(
    max_examples=120, stateful_step_count=40, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)

WEIGHTS = {
    "step": 30, "crash": 3, "open": 6, "spend": 14, "change": 6, "load": 5, "work": 14, "evict": 8,
    "snapshot": 4, "restart": 1, "rollback": 3, "flushall": 1,
}


def act(world: World, what: str, a: int, b: int, c: int, steps: int) -> None:
    """One act of a seeded run."""
    name, actor = NAMES[a % 2], None
    match what:
        case "step":
            actor = world.actors[a % len(world.actors)] if world.actors else None
        case "crash":
            world.crash(a)
        case "open":
            actor = world.start(world.open())
        case "spend":
            actor = world.start(world.spend(name, 1 + b % 2, KEYS[c % 2] if b % 3 else ""))
        case "change":
            actor = world.start(world.change(name, CHANGES[b % len(CHANGES)], 2 + c % 5))
        case "load":
            actor = world.start(world.load(name))
        case "work":
            actor = world.start(world.work(1 + b % 4, c % 2 == 0))
        case "evict":
            actor = world.start(world.evict(name, KEYS[c % 2] if b % 2 else ""))
        case "snapshot":
            world.keep_snapshot()
        case "restart":
            world.restart(None)
        case "rollback":
            world.restart(a)
        case "flushall":
            world.flushall()
    advance(world, actor, steps)
    world.check()


def seeded_run(seed: int, without: tuple[str, ...] = (), weights: dict[str, int] = WEIGHTS) -> World:
    """80 acts and the end of all faults. Raises Violation."""
    dice, world = random.Random(seed), World(without)
    begin(world)
    for _ in range(80):
        what = dice.choices(list(weights), list(weights.values()))[0]
        act(world, what, *(dice.randrange(60) for _ in range(4)))
    world.settle()
    return world


MIXES = {
    "everything": {},
    "openings": {"open": 24, "snapshot": 12, "rollback": 8},
    "eager flushes": {"open": 14, "load": 10, "flushall": 10, "rollback": 0},
}


@pytest.mark.parametrize("mix", MIXES)
def test_seeded_runs_hold(mix: str) -> None:
    """Many more orders of events than the state machine has time for."""
    applied = lost = 0
    for seed in range(600):
        world = seeded_run(seed, weights=WEIGHTS | MIXES[mix])
        applied += len(world.acked)
        lost += len(world.lost)
    assert applied > 1000 and lost > 50, "the runs hardly did anything"


# Fences whose absence random runs find at once.
EASY = (
    "load_fills_absent_only", "step_checks_version", "spend_checks_generation", "evict_checks_cursor",
    "delete_leaves_tombstone", "new_life_keeps_log_id", "worker_cas_cursor", "opener_drops",
    "opener_drops_by_last_record", "opener_sees_forks", "opening_has_record",
    "end_open_checks_generation", "opener_asks_for_keys", "keys_leave_when_synced",
)


@pytest.mark.parametrize("fence", EASY)
def test_a_missing_fence_is_found(fence: str) -> None:
    """Planted bugs, one by one."""
    with pytest.raises(Violation):
        for seed in range(1500):
            seeded_run(seed, (fence,))


# Races written out. Each holds with all fences, and breaks without the one (or either) it is about.


def on(actor: Actor, steps: int) -> Actor:
    """An actor that took so many steps and stands still."""
    for _ in range(steps):
        next(actor)
    return actor


def synced(world: World) -> None:
    """Everything of the log into SQL."""
    while world.unread():
        cursor = world.sql.cursor
        world.run(world.work(9, False))
        assert world.sql.cursor > cursor, world.alarms


def spent(world: World, key: str = "", sync: bool = True) -> None:
    """One unit of ann's, acknowledged."""
    before = len(world.acked)
    world.run(world.spend("ann", 1, key))
    assert len(world.acked) == before + 1
    if sync:
        synced(world)


def slow_loader_and_eviction(world: World) -> None:
    """Read before a spend, arrives after the spend was synced and the state evicted."""
    loader = on(world.load("ann"), 1)
    spent(world)
    world.run(world.evict("ann"))
    assert "ann" not in world.redis.states
    world.run(loader)


def slow_loader_and_opening(world: World) -> None:
    """Arrives between the opener's drops and its end, where nothing raised `ev` yet."""
    loader = on(world.load("ann"), 1)
    spent(world)
    world.flushall()
    opener = on(world.open(), 6)
    world.run(loader)
    world.run(opener)


def slow_lookup_and_sweep(world: World) -> None:
    """SQL did not have the key when it was asked; then it was used, synced, swept from Redis."""
    spent(world, "k")
    world.run(world.evict("ann", "k"))
    asker = on(world.spend("ann", 1, "l"), 3)
    spent(world, "l")
    world.run(world.evict("ann", "l"))
    world.run(asker)


def slow_lookup_and_loss(world: World) -> None:
    """The same, with all of Redis lost in between and the partition opened again."""
    world.flushall()
    world.run(world.open())
    world.run(world.load("ann"))
    asker = on(world.spend("ann", 1, "l"), 3)
    spent(world, "l")
    world.flushall()
    world.run(world.open())
    world.run(world.load("ann"))
    world.run(asker)


def late_commit(world: World) -> None:
    """A worker read entries, Redis lost them, the partition was opened, then the worker commits."""
    spent(world, sync=False)
    worker = on(world.work(9, False), 2)
    world.flushall()
    world.run(world.open())
    world.run(worker)


def log_read_before_the_opening_began(world: World) -> None:
    """A worker of the new generation reads the log while the old one is still open."""
    spent(world, sync=False)
    opener = on(world.open(), 2)
    worker = on(world.work(9, False), 1)
    try:
        on(worker, 1)
    except StopIteration:
        pass
    world.flushall()
    world.run(opener)
    world.run(worker)


def overtaken_opener(world: World) -> None:
    """It took a generation and slept; a later one opened and was flushed. What the sleeper knows of
    the cursor is of the past."""
    spent(world, sync=False)
    sleeper = on(world.open(), 2)
    world.run(world.open())
    world.run(world.work(1, False))
    world.flushall()
    world.run(sleeper)


def rollback_inside_an_opening(world: World) -> None:
    """Redis goes back to after begin_open and before the drops; only then comes end_open."""
    world.keep_snapshot()
    spent(world)
    world.restart(0)
    opener = on(world.open(), 3)
    world.keep_snapshot()
    on(opener, 3)
    world.restart(-1)
    world.run(opener)


RACES: list[tuple[str, Callable[[World], None]]] = [
    ("load_checks_evicted", slow_loader_and_eviction),
    ("evict_raises_evicted", slow_loader_and_eviction),
    ("load_checks_generation", slow_loader_and_opening),
    ("lookup_fenced", slow_lookup_and_sweep),
    ("lookup_fenced", slow_lookup_and_loss),
    ("worker_cas_generation", late_commit),
    ("worker_read_fenced", log_read_before_the_opening_began),
    ("opener_rechecks_generation", overtaken_opener),
    ("end_open_own_run", rollback_inside_an_opening),
]


def play(race: Callable[[World], None], *without: str) -> None:
    world = World(without)
    begin(world)
    synced(world)
    race(world)
    world.check()
    world.settle()


@pytest.mark.parametrize(("fence", "race"), [pytest.param(f, r, id=f"{r.__name__}-{f}") for f, r in RACES])
def test_a_race_needs_its_fence(fence: str, race: Callable[[World], None]) -> None:
    play(race)
    with pytest.raises(Violation):
        play(race, fence)


class Restored(NamedTuple):
    """SQL put back to a backup: did anyone notice, and what did the cursor do after it?"""

    world: World
    moved: bool


def sql_rolled_back(backup_after: int, trim: bool, reopen: bool, *without: str) -> Restored:
    """Takes a backup, goes on, trims or not, restores the backup, and lets the worker go on."""
    world = World(without)
    begin(world)
    synced(world)
    for _ in range(backup_after):
        spent(world)
    backup = world.sql.copy()
    if reopen:
        world.run(world.open())
    spent(world)
    spent(world)
    if trim:
        spent(world, sync=False)
        world.run(world.work(9, True))
    world.sql = backup
    cursor = world.sql.cursor
    for _ in range(2):
        for actor in (world.spend("ann", 1), world.work(2, False)):
            for _ in actor:
                pass
    return Restored(world, world.sql.cursor != cursor)


@pytest.mark.parametrize("reopen", [False, True])
def test_a_rolled_back_sql_is_noticed(reopen: bool) -> None:
    """What was trimmed cannot come again: the worker stops at the gap and says so."""
    restored = sql_rolled_back(1, True, reopen)
    assert restored.world.alarms and not restored.moved


def test_a_rolled_back_sql_goes_unnoticed_without_the_gap_check() -> None:
    restored = sql_rolled_back(1, True, False, "gap_checked")
    assert not restored.world.alarms and restored.moved


def test_a_rolled_back_sql_catches_up_from_an_untrimmed_log() -> None:
    """Nothing is missing from the log: it is simply synced again."""
    restored = sql_rolled_back(1, False, False)
    assert not restored.world.alarms and restored.moved
    restored.world.settle()


def test_every_fence_has_its_test() -> None:
    assert set(EASY) | {fence for fence, _ in RACES} | {"gap_checked"} == set(FENCES)
