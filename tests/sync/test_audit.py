"""Promise P9: Redis = SQL + unread log + outbox, and the auditor says where it is not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Awaitable, Callable

import msgpack
import pytest
from sqlalchemy import update

from sidecar.domain import layout, receipt
from sidecar.domain.layout import UNLIMITED, USAGE_ALLOWED
from sidecar.engine import keys
from sidecar.engine.state import CustomerState
from sidecar.store import customers, idempotency, partitions, settings_kv, tables
from sidecar.store.db import Store
from sync.audit import AuditResult, Difference, audit

from .world import World, caught_up, lifetime, monthly, per_seat, world

DAY = 86_400_000


@pytest.fixture(autouse=True)
def _look_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.audit.LOOK_AGAIN_S", 0.01)


async def busy(place: World) -> int:
    """A customer with everything: two buckets, an unlimited one, entities with slots, a key."""
    cid = await place.create(
        "ann", ("messages", monthly(1, 10)), ("messages", lifetime(2, 200)), ("words", lifetime(3, 0, flags=UNLIMITED)),
        ("seats", lifetime(4, 2)), ("credits", per_seat(5, 1000)), ("credits", monthly(6, 500, flags=USAGE_ALLOWED)),
    )
    for entity_id in ("a", "b", "c"):
        await place.open_entity("ann", cid, entity_id)
    await place.track("ann", 17, key="k1")
    await place.track("ann", 5, "words")
    await place.track("ann", 40, "credits", "a")
    await place.create("bob", ("messages", lifetime(1, 5)))
    await place.track("bob", 2)
    return cid


def check(valkey: Any, store: Store, scene: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with world(valkey, store, **settings) as place:
            await scene(place)

    asyncio.run(main())


async def run(place: World) -> AuditResult:
    return await audit(place.engine, place.store)


def test_a_healthy_pair_has_no_difference(valkey: Any, store: Store) -> None:
    """Before the log is in SQL, half way, and after."""

    async def scene(place: World) -> None:
        cid = await busy(place)
        result = await run(place)
        assert result.differences == [] and result.exit_code == 0
        assert (result.customers, result.buckets, result.keys) == (2, 7, 1)
        await caught_up(place)
        assert (await run(place)).differences == []
        await place.track("ann", 3, key="k2")
        result = await run(place)
        assert result.differences == [] and result.keys == 2
        found = await place.store.read(customers.by_cid, cid)
        assert found is not None and found.applied_version == found.structure_version == 4

    check(valkey, store, scene)


def test_a_customer_only_in_sql_is_no_difference(valkey: Any, store: Store) -> None:
    async def scene(place: World) -> None:
        await busy(place)
        await place.create("eve", ("messages", lifetime(1, 5)), project=False)
        await caught_up(place)
        cursor = (99, 0)
        assert await place.engine.evict("bob", *cursor)
        result = await run(place)
        assert result.differences == [] and (result.customers, result.sql_customers) == (1, 3)

    check(valkey, store, scene)


async def edit_blob(place: World, field: bytes, change: Callable[[layout.Blob], layout.Blob]) -> None:
    """Changes a packed blob of ann's as no script would."""
    p = place.engine.partition_of("ann")
    key = keys.customer(p, "ann")
    blob = change(layout.unpack(await place.engine.redis.hget(key, field)))
    await place.engine.redis.hset(key, field, layout.pack(blob.rows, blob.slots, blob.archived))


def plus_one(column: str) -> Callable[[layout.Blob], layout.Blob]:
    def change(blob: layout.Blob) -> layout.Blob:
        first, *rest = blob.rows
        return layout.Blob((first._replace(**{column: getattr(first, column) + 1}), *rest), blob.slots)

    return change


async def edit_header(place: World, column: str) -> None:
    """Takes one off a column of ann's header."""
    key = keys.customer(place.engine.partition_of("ann"), "ann")
    header = layout.unpack_header(await place.engine.redis.hget(key, "h"))
    await place.engine.redis.hset(key, "h", layout.pack_header(header._replace(**{column: getattr(header, column) - 1})))


NUMBERS = [name for name in layout.Row._fields if name not in ("no", "entity_id", "plan_id", "entity_feature")]


@pytest.mark.parametrize("synced", [False, True])
def test_one_unit_in_every_column_of_a_bucket_is_named(valkey: Any, store: Store, synced: bool) -> None:
    async def scene(place: World) -> None:
        await busy(place)
        if synced:
            await caught_up(place)
        for name in NUMBERS:
            await edit_blob(place, b"b:words", plus_one(name))
        found = [d for d in (await run(place)).differences if d.kind == "bucket"]
        assert {(d.customer, d.bucket, d.column) for d in found} == {("ann", 3, name) for name in NUMBERS}
        assert all(d.redis == d.sql + 1 for d in found)

    check(valkey, store, scene)


async def slot(place: World) -> None:
    def one_less(blob: layout.Blob) -> layout.Blob:
        *rest, last = blob.slots
        return layout.Blob(blob.rows, (*rest, last._replace(balance=last.balance - 1)))

    await edit_blob(place, b"x:credits\0a", one_less)


async def bucket_balance_in_sql(place: World) -> None:
    b = tables.buckets
    await place.store.write(lambda c: c.execute(update(b).where(b.c.no == 2).values(balance=b.c.balance - 1)))


async def slot_in_sql(place: World) -> None:
    s = tables.slots
    await place.store.write(lambda c: c.execute(update(s).values(balance=s.c.balance - 1)))


async def version(place: World) -> None:
    await edit_header(place, "version")


async def log_id(place: World) -> None:
    await edit_header(place, "log_seq")


async def record_lost(place: World) -> None:
    p = place.engine.partition_of("ann")
    assert await place.engine.redis.delete(keys.record(p, keys.digest("ann", "k1")))


async def record_changed(place: World) -> None:
    p = place.engine.partition_of("ann")
    key = keys.record(p, keys.digest("ann", "k1"))
    stored = await place.engine.redis.get(key)
    found, _ = receipt.unpack_record(stored)
    changed = receipt.pack(found._replace(end_ms=found.end_ms + 1))
    await place.engine.redis.set(key, changed + stored[len(changed) :], px=60_000)


async def record_made_up(place: World) -> None:
    p = place.engine.partition_of("ann")
    cid = (await place.store.read(customers.by_id, "ann")).cid  # type: ignore[union-attr]
    made_up = receipt.pack(receipt.Receipt(await place.engine.now_ms() + 60_000, cid, b"f", b"r"))
    await place.engine.redis.set(keys.record(p, b"x" * 16), made_up + b"1-0\3", px=60_000)


async def record_lost_in_sql(place: World) -> None:
    await place.store.write(lambda c: c.execute(tables.idempotency.delete()))


async def entity(place: World) -> None:
    await place.engine.redis.hdel(keys.customer(place.engine.partition_of("ann"), "ann"), "e:a")


async def entity_in_sql(place: World) -> None:
    await place.store.write(lambda c: c.execute(tables.entities.delete().where(tables.entities.c.id == "a")))


async def member(place: World) -> None:
    await place.engine.redis.zrem(keys.entities(place.engine.partition_of("ann"), "ann"), "seats\0a")


async def count(place: World) -> None:
    await place.engine.redis.hset(keys.customer(place.engine.partition_of("ann"), "ann"), "n:seats", "3")


async def bucket_gone(place: World) -> None:
    await place.engine.redis.hdel(keys.customer(place.engine.partition_of("ann"), "ann"), "b:words")


async def order(place: World) -> None:
    def swap(blob: layout.Blob) -> layout.Blob:
        first, second, *rest = blob.rows
        return layout.Blob((second, first, *rest), blob.slots)

    await edit_blob(place, b"b:messages", swap)


async def unreadable(place: World) -> None:
    await place.engine.redis.hset(keys.customer(place.engine.partition_of("ann"), "ann"), "b:words", b"\xc1")


async def unknown_customer(place: World) -> None:
    p = place.engine.partition_of("zoe")
    await place.engine.redis.hset(keys.customer(p, "zoe"), "h", layout.pack_header(layout.Header(999, 0, 0, 0, 0)))


async def ledger_line(place: World) -> None:
    x = tables.ledger
    await place.store.write(lambda c: c.execute(update(x).where(x.c.no == 3, x.c.kind == "use").values(delta=x.c.delta - 1)))


async def rejected(place: World) -> None:
    row = {"p": 1, "gen": 2, "seq": 3, "entry": b"?", "error": "RecordError: no", "at": 0}
    await place.store.write(lambda c: c.execute(tables.sync_rejected.insert(), row))


PLANTED = {
    slot: ("ann", "slot", 5, "a"), slot_in_sql: ("ann", "slot", 5, "a"),
    bucket_balance_in_sql: ("ann", "bucket", 2, "balance"), version: ("ann", "header", 0, "version"),
    log_id: ("ann", "header", 0, "entry"), record_lost: ("ann", "idempotency", 0, keys.digest("ann", "k1").hex()),
    record_changed: ("ann", "idempotency", 0, keys.digest("ann", "k1").hex()),
    record_made_up: ("", "idempotency", 0, (b"x" * 16).hex()),
    record_lost_in_sql: ("", "idempotency", 0, keys.digest("ann", "k1").hex()),
    entity: ("ann", "entity", 0, "a"), entity_in_sql: ("ann", "entity", 0, "a"), member: ("ann", "entity", 0, "members"),
    count: ("ann", "entity", 0, "count of seats"), bucket_gone: ("ann", "bucket", 3, "row"),
    order: ("ann", "bucket", 2, "order"), unreadable: ("ann", "customer", 0, "state"),
    unknown_customer: ("zoe", "customer", 0, "cid"), ledger_line: ("ann", "ledger", 3, "balance"),
    rejected: ("", "rejected", 0, "evt_1_2_3"),
}


async def full(place: World) -> int:
    """As `busy`, with rollovers of the customer and of entities, caps with counters, open holds, an
    event given back, and top-ups of which some left the hot state."""
    cid = await busy(place)
    now_ms = await place.engine.now_ms()
    due = now_ms + DAY
    recurring = {"interval": 3, "anchor": now_ms, "next_reset_at": due, "created_at": now_ms, "roll_length": 0}
    caps = msgpack.packb([2, False, -1, [5000, 3, 1, 9000, 5, 0]])
    top_ups = [["add", "words", list(lifetime(20 + i, 10)), [], 0, 0, 0, []] for i in range(6)]
    await place.decide(
        cid, ["drop", "words", 3, "", 0, 0], ["add", "words", list(monthly(10, 30, **recurring)), [], 0, 0, 0, []],
        ["add", "credits", list(per_seat(11, 700)._replace(**recurring)), [], 0, 0, 0, []], *top_ups,
        ["caps", "messages", "", caps], ["caps", "messages", "a", caps], ["caps", "words", "", caps],
    )
    await place.engine.project("ann")
    await place.track("ann", 12, "words")
    await place.hold("ann", 10, "lost", feature="words")
    await place.track("ann", 40, "credits", "a")
    await place.hold("ann", 8, "mine")
    await place.hold("ann", 800, "hers", feature="credits", entity_id="b")
    await place.track("ann", 3, entity_id="a")
    await move(place, DAY)
    await place.track("ann", 58, "words")
    await place.track("ann", 5, "credits", "a")
    await place.decide(cid, ["archive", "words", "", [20, 21]])
    await place.engine.project("ann")
    return cid


async def move(place: World, by_ms: int) -> None:
    """Moves the test clock on, and does what is due."""
    offset_ms = await place.store.read(settings_kv.clock_offset_ms) + by_ms
    await place.engine.move_clock(await place.store.write(settings_kv.move_clock, offset_ms))
    await place.engine.touch("ann")


def test_everything_is_the_same_in_both_stores(valkey: Any, store: Store) -> None:
    """Unread, half way, read; loaded anew; and after the next reset."""

    async def scene(place: World) -> None:
        await full(place)
        assert (await run(place)).differences == []
        before = await place.engine.view("ann")
        assert before is not None
        assert set(before.holds) == {"lost", "mine", "hers"} and before.archived == {("words", ""): (2, 20, 0)}
        assert {row.parent for rows in before.features.values() for row in rows if row.rollover} == {10, 11}
        assert len(before.windows["messages", ""]) == len(before.windows["messages", "a"]) == 2
        assert any(slot.granted for _, slots in before.entities.values() for slot in slots)
        await caught_up(place)
        assert (await run(place)).differences == []
        await evict(place)
        after = await place.engine.view("ann")
        assert after is not None
        assert in_order(after) == replace(in_order(before), now_ms=after.now_ms, log_gen=after.log_gen, log_seq=after.log_seq)
        assert (await run(place)).differences == []
        await move(place, DAY)
        await place.track("ann", 2, "words")
        assert (await run(place)).differences == []
        await caught_up(place)
        assert (await run(place)).differences == []

    check(valkey, store, scene, test_clock=True)


def in_order(state: CustomerState) -> CustomerState:
    """With slots by bucket: scripts look for the one they want."""
    return replace(state, entities={key: (rows, tuple(sorted(slots))) for key, (rows, slots) in state.entities.items()})


async def evict(place: World) -> None:
    p = place.engine.partition_of("ann")
    assert await place.engine.evict("ann", *(await place.store.read(partitions.cursors))[p])


async def set_field(place: World, name: str, value: bytes | None) -> None:
    key = keys.customer(place.engine.partition_of("ann"), "ann")
    await (place.engine.redis.hdel(key, name) if value is None else place.engine.redis.hset(key, name, value))


async def caps_lost(place: World) -> None:
    await set_field(place, "k:messages\0a", None)


async def caps_changed(place: World) -> None:
    await set_field(place, "k:words", msgpack.packb([2, False, 0, False]))


async def window(place: World) -> None:
    key = keys.customer(place.engine.partition_of("ann"), "ann")
    flat = msgpack.unpackb(await place.engine.redis.hget(key, "w:messages"))
    flat[-1] += 1
    await set_field(place, "w:messages", msgpack.packb(flat))


async def window_in_sql(place: World) -> None:
    await place.store.write(lambda c: c.execute(tables.windows.delete().where(tables.windows.c.entity_id == "a")))


async def hold_lost(place: World) -> None:
    await set_field(place, "l:mine", None)


async def hold_made_up(place: World) -> None:
    await place.store.write(lambda c: c.execute(update(tables.holds).values(lock_id="x").where(tables.holds.c.lock_id == "mine")))


async def hold_without_end(place: World) -> None:
    await place.engine.redis.zrem(keys.locks(place.engine.partition_of("ann"), "ann"), "mine")


async def hold_nobody_ends(place: World) -> None:
    await place.engine.redis.zrem(keys.holds(place.engine.partition_of("ann")), "ann\0mine")


async def archived(place: World) -> None:
    def one_more(blob: layout.Blob) -> layout.Blob:
        return replace(blob, archived=blob.archived._replace(granted=blob.archived.granted + 1))

    await edit_blob(place, b"b:words", one_more)


async def slot_held(place: World) -> None:
    s = tables.slots
    await place.store.write(lambda c: c.execute(update(s).where(s.c.no == 5, s.c.entity_id == "b").values(held=s.c.held + 1)))


async def next_roll(place: World) -> None:
    await edit_header(place, "next_roll")


async def caps_unseen(place: World) -> None:
    key = keys.customer(place.engine.partition_of("ann"), "ann")
    header = layout.unpack_header(await place.engine.redis.hget(key, "h"))
    await set_field(place, "h", layout.pack_header(header._replace(flags=0)))


async def returned(place: World) -> None:
    await set_field(place, "r:1-3", msgpack.packb([1]))


PLANTED_IN_FULL = {
    caps_lost: ("caps", "messages/a"), caps_changed: ("caps", "words"), window: ("window", "messages"),
    window_in_sql: ("window", "messages/a"), hold_lost: ("hold", "mine"), hold_made_up: ("hold", "x"),
    hold_without_end: ("hold", "mine in its set"), hold_nobody_ends: ("hold", "mine in the partition's set"),
    archived: ("archived", "words"), slot_held: ("slot", "b"), next_roll: ("header", "next_roll"),
    caps_unseen: ("header", "flags"), returned: ("refund", "1-3"),
}


@pytest.mark.parametrize("plant", PLANTED_IN_FULL, ids=lambda plant: plant.__name__)
def test_a_planted_difference_in_the_rest_is_named(
    valkey: Any, store: Store, plant: Callable[[World], Awaitable[None]]
) -> None:
    async def scene(place: World) -> None:
        await full(place)
        await caught_up(place)
        await plant(place)
        found = {(d.kind, d.column) for d in (await run(place)).differences}
        assert PLANTED_IN_FULL[plant] in found, found

    check(valkey, store, scene, test_clock=True)


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_difference_is_named(valkey: Any, store: Store, plant: Callable[[World], Awaitable[None]]) -> None:
    async def scene(place: World) -> None:
        await busy(place)
        await caught_up(place)
        assert (await run(place)).differences == []
        await plant(place)
        result = await run(place)
        assert PLANTED[plant] in [(d.customer, d.kind, d.bucket, d.column) for d in result.differences]
        assert result.exit_code == 1
        assert all(isinstance(d, Difference) and str(d) for d in result.differences)

    check(valkey, store, scene)


def test_an_unread_entry_of_an_absent_customer_is_a_difference(valkey: Any, store: Store) -> None:
    """State may leave Redis only when SQL has all of it."""

    async def scene(place: World) -> None:
        await busy(place)
        await place.engine.redis.delete(keys.customer(place.engine.partition_of("bob"), "bob"))
        found = (await run(place)).differences
        assert [(d.customer, d.kind, d.redis) for d in found] == [("bob", "customer", "absent, with unread log entries")]

    check(valkey, store, scene)


def test_a_gap_in_the_log_is_a_difference(valkey: Any, store: Store) -> None:
    async def scene(place: World) -> None:
        await busy(place)
        await place.track("bob", 1)
        p = place.engine.partition_of("bob")
        (first, _), *_rest = await place.engine.redis.xrange(keys.log(p), count=1)
        await place.engine.redis.xdel(keys.log(p), first)
        assert "log" in {d.kind for d in (await run(place)).differences}

    check(valkey, store, scene)


def test_a_deleted_customer_leaves_no_difference(valkey: Any, store: Store) -> None:
    async def scene(place: World) -> None:
        cid = await busy(place)
        await caught_up(place)
        await place.decide(cid, ["delete"])
        await place.store.write(customers.mark_deleted, cid, 1)
        assert (await run(place)).differences == []
        await place.engine.project("ann", cid)
        assert (await run(place)).differences == []
        await caught_up(place)
        assert (await run(place)).differences == []
        assert await place.store.read(idempotency.find, cid, keys.digest("ann", "k1")) is None
        await place.create("ann", ("messages", lifetime(1, 5)))
        await place.track("ann", 2, key="k1")
        assert (await run(place)).differences == []

    check(valkey, store, scene)


def test_an_audit_beside_live_calls_sees_no_difference(valkey: Any, store: Store) -> None:
    async def scene(place: World) -> None:
        await busy(place)
        going = True

        async def callers(number: int) -> None:
            at = 0
            while going:
                at += 1
                await place.track("ann", 1, "words", key=f"{number}-{at}" if at % 5 == 0 else "")
                await place.track("ann", 1, "credits", "ab"[at % 2])
                if at % 20 == 0:
                    await place.create(f"c{number}-{at}", ("messages", lifetime(1, 5)))

        async def carry() -> None:
            while going:
                await caught_up(place)
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(work) for work in (callers(1), callers(2), carry())]
        try:
            for _ in range(4):
                result = await run(place)
                assert result.differences == []
            assert result.customers >= 2 and result.keys > 1
        finally:
            going = False
            await asyncio.gather(*tasks)
        await caught_up(place)
        assert (await run(place)).differences == []

    check(valkey, store, scene)
