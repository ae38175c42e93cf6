"""An older Redis, or an emptied one, comes back from SQL: nothing is spendable twice, nothing that
was acknowledged and synced is missing, and repeats are still recognised."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
from pathlib import Path
from typing import Iterator

import pytest
from redis import Redis

from sidecar.store.db import Store
from sync.apply import CursorConflict

from ..conftest import Valkey
from ..run.harness import Sidecar, wait_for
from . import tree
from .callers import Client, Load
from .inside import GRANT_LIFETIME, GRANT_MONTH, PRECISION, Inside, inside, settings_for

CUSTOMERS = [f"c{number}" for number in range(12)]
Kept = dict[str, list[tuple[str, str, int, str]]]
START = (GRANT_MONTH + GRANT_LIFETIME) * PRECISION


@pytest.fixture(params=["sqlite", "postgres"])
def sidecar(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sidecar]:
    """A sidecar with appendfsync always, running, on each database."""
    url = None if request.param == "sqlite" else str(request.getfixturevalue("pg_url"))
    made = tree.sidecar_on(tmp_path, url)
    made.start()
    yield made
    for role in ("parent", "sync"):
        tree.signal_all(made, role, signal.SIGCONT)
    made.destroy()


@pytest.fixture
def store(sidecar: Sidecar) -> Iterator[Store]:
    """The test's own connection to the sidecar's database."""
    opened = tree.open_store(sidecar)
    yield opened
    opened.close()


def synced(store: Store) -> Kept:
    """All events that SQL has, by idempotency key."""
    return tree.read(store).events


def assert_nothing_lost_or_doubled(sidecar: Sidecar, store: Store, load: Load, kept: Kept) -> tuple[int, int]:
    """The judgement: (acknowledged calls that SQL has, those lost with Redis, which SQL never
    had). `kept` are keys that SQL had."""
    tree.wait_synced(sidecar)
    found = tree.read(store)
    changed = {key: found.events.get(key) for key, rows in kept.items() if found.events.get(key) != rows}
    assert not changed, f"was synced, and is not what it was: {changed}"
    alive = [call for call in load.tally.calls if call.denied or call.key in found.events]
    acknowledged = tree.assert_calls_are_in_sql(found, alive)
    assert set(found.events) <= {call.key for call in load.tally.calls}
    tree.assert_adds_up(found, CUSTOMERS)
    tree.assert_answers_agree(sidecar, found, CUSTOMERS)
    tree.audit(sidecar)
    return acknowledged, len(load.tally.calls) - len(alive)


def assert_repeats_are_recognised(sidecar: Sidecar, load: Load, kept: Kept, draw: random.Random) -> None:
    """P3. Calls that SQL had are answered as the first time, and called repeats."""
    client = Client(sidecar.port)
    calls = [call for call in load.tally.calls if call.key in kept]
    for call in draw.sample(calls, min(60, len(calls))):
        assert load.carry_out(client, call), call
    client.close()


def test_an_append_only_file_put_back_to_an_older_tail(sidecar: Sidecar, store: Store) -> None:
    """P2, P3, P9. The file is copied; callers and worker go on; the worker is paused, so that the
    last calls are in no store but Redis; Valkey dies and comes back with the copy, under callers
    that reconnect at once and beside an HTTP worker that remembers the later time."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    draw = random.Random(seed)
    tree.set_up(sidecar, CUSTOMERS)
    load = Load(sidecar.port, CUSTOMERS, seed, boosts=False, redis_loses=True)
    load.start()
    tree.load_for(load, 1.1)
    live, copy = sidecar.data_dir / "valkey" / "appendonlydir", sidecar.data_dir.parent / "copy"
    shutil.copytree(live, copy)  # while it is written: its last command may be cut, as after a crash
    tree.load_for(load, 1.1)
    tree.pause_sync(sidecar, store)
    tree.load_for(load, 0.5)
    tree.signal_all(sidecar, "parent", signal.SIGSTOP)  # or it would start Valkey again at once
    assert tree.kill(sidecar, ("valkey",)) == 1
    wait_for("valkey to be gone", lambda: not sidecar.processes("valkey"))
    kept = synced(store)
    at_rollback = len(load.tally.calls)
    shutil.rmtree(live)
    shutil.move(copy, live)
    tree.signal_all(sidecar, "parent", signal.SIGCONT)
    tree.signal_all(sidecar, "sync", signal.SIGCONT)
    tree.load_for(load, 2.0)
    wait_for("calls after it", lambda: len(load.tally.calls) > at_rollback + 100, 30)  # a busy machine takes longer
    load.stop()
    acknowledged, lost = assert_nothing_lost_or_doubled(sidecar, store, load, kept)
    assert_repeats_are_recognised(sidecar, load, kept, draw)
    tree.audit(sidecar)
    print(
        f"{at_rollback} calls before, {len(kept)} of them synced, {len(load.tally.calls)} in all, {acknowledged} in SQL, "
        f"{lost} lost, {load.tally.made_again} made again"
    )
    assert 0 < lost <= at_rollback - len(kept) and len(kept) > 100, (lost, at_rollback, len(kept))
    assert len(load.tally.calls) > at_rollback + 100


def test_flushall_under_callers(sidecar: Sidecar, store: Store) -> None:
    """P2, P3, P9. Redis is emptied three times under load; the server process and its connections
    stay, so nobody but the scripts' fence can notice."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    draw = random.Random(seed)
    tree.set_up(sidecar, CUSTOMERS)
    load = Load(sidecar.port, CUSTOMERS, seed, boosts=False, redis_loses=True)
    load.start()
    kept: Kept = {}
    socket_path = (sidecar.data_dir / "valkey" / "socket").read_text().strip()
    with Redis(unix_socket_path=socket_path) as redis:
        for _ in range(3):
            tree.load_for(load, draw.uniform(0.6, 1.1))
            kept |= synced(store)
            redis.flushall()
    tree.load_for(load, 1.0)
    load.stop()
    acknowledged, lost = assert_nothing_lost_or_doubled(sidecar, store, load, kept)
    assert_repeats_are_recognised(sidecar, load, kept, draw)
    print(
        f"{len(load.tally.calls)} calls, {len(kept)} synced before a loss, {acknowledged} in SQL, {lost} lost, "
        f"{load.tally.made_again} made again"
    )
    assert len(kept) > 100 and lost <= len(load.tally.calls) / 4


# -- between two processes, step by step -----------------------------------------------------------


def test_a_batch_read_before_a_loss_is_not_committed_after_the_opening(
    valkey: Valkey, database_url: str, tmp_path: Path
) -> None:
    """P9. The worker has read entries, Redis loses them, the partition is opened again and a
    customer is loaded without them; only then the worker gets to commit. Either SQL refuses the
    batch, or Redis would have units that SQL has spent."""

    async def scenario() -> None:
        async with inside(settings_for(valkey.url, database_url, tmp_path)) as world:
            await world.sell()
            await world.customer("ann")
            await world.sync_all()
            p = world.partition("ann")
            await world.track("ann", 5)
            place = await world.place(p)
            batch = await world.unread(p, place)
            assert len(batch) == 1
            await world.ctx.engine.redis.flushall()
            world.spent.clear()
            await world.track("ann", 2)
            with pytest.raises(CursorConflict):
                await world.apply(batch, place)
            assert await world.balance("ann") == START - 2 * PRECISION
            await world.assert_exact("ann")

    asyncio.run(scenario())


def restart_with(world: Inside, data: dict[bytes, bytes]) -> None:
    """Not a restart: what a restored server would hold, for tests of one process."""
    with Redis(unix_socket_path=world.ctx.engine.redis.connection_pool.connection_kwargs["path"]) as redis:
        redis.flushall()
        for key, value in data.items():
            redis.restore(key, 0, value)


def dumped(world: Inside) -> dict[bytes, bytes]:
    """All of Redis, to be put back later."""
    with Redis(unix_socket_path=world.ctx.engine.redis.connection_pool.connection_kwargs["path"]) as redis:
        return {key: redis.dump(key) for key in redis.scan_iter(count=1000) if b"opening" not in key}


@pytest.mark.parametrize("synced_then", [True, False], ids=["synced", "not synced"])
def test_a_rolled_back_partition_is_rebuilt(
    valkey: Valkey, database_url: str, tmp_path: Path, synced_then: bool
) -> None:
    """P3, P9. State, log and keys go back to an older moment; what SQL has since then counts."""

    async def scenario() -> None:
        async with inside(settings_for(valkey.url, database_url, tmp_path)) as world:
            await world.sell()
            await world.customer("ann")
            first = await world.track("ann", 5, idempotency_key="k1")
            await world.sync_all()
            older = dumped(world)
            later = await world.track("ann", 7, idempotency_key="k2")
            await world.post("/v1/attach", {"customer_id": "ann", "product_id": "boost"})
            if synced_then:
                await world.sync_all()
            else:
                del world.spent["ann", "messages"]  # lost with Redis, as the durability allows
                world.spent["ann", "messages"] = 5 * PRECISION
            restart_with(world, older)
            for meta in [key for key in older if key.endswith(b":meta")]:
                await world.ctx.engine.redis.hset(meta.decode(), "run", "another")
            again = await world.post("/v1/track", {
                "customer_id": "ann", "feature_id": "messages", "value": 5, "idempotency_key": "k1"
            })
            assert again["id"] == first["id"]
            answer = await world.post("/v1/track", {
                "customer_id": "ann", "feature_id": "messages", "value": 7, "idempotency_key": "k2"
            })
            if synced_then:
                assert answer["id"] == later["id"]
            else:
                assert answer["id"] != later["id"]
                world.spent["ann", "messages"] += 7 * PRECISION
            await world.ctx.engine.project("ann")
            await world.assert_exact("ann")

    asyncio.run(scenario())
