"""Long lives stay small: what is used up or has ended leaves the hot state, by steps that are decided
in SQL and carried out on live balances; no answer changes."""

from __future__ import annotations

import asyncio
from typing import Any, Awaitable, Callable

import pytest
from sqlalchemy import event

from sidecar.domain.layout import (
    BOOLEAN,
    CONTINUOUS,
    PER_ENTITY,
    PREPAID,
    ROLLOVER,
    UNLIMITED,
    USAGE_ALLOWED,
    Archived,
    Row,
)
from sidecar.store import buckets, customers, holds, outbox, settings_kv, tables
from sidecar.store.db import Store
from sync import tidy
from sync.audit import audit
from sync.duties import Duties

from .logs import AT, NEXT, bucket, row, seed
from .world import PARTITIONS, World, caught_up, lifetime, world

DAY = 86_400_000


def check(valkey: Any, store: Store, scene: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        async with world(valkey, store, **settings) as place:
            await scene(place)

    asyncio.run(main())


def drained(no: int, **values: Any) -> Row:
    return row(no, 0, 10, next_reset_at=0, interval=0)._replace(**values)


def used_up(store: Store) -> dict[int, list[tidy.Op]]:
    return store.read_sync(tidy.used_up, 0).ops


# -- what is decided -------------------------------------------------------------------------------


def test_all_but_the_newest_four_leave(store: Store) -> None:
    """Newest by when they were made, then by number."""
    rows = [drained(no, created_at=AT - (no == 7) * 5) for no in range(1, 8)]
    cid = seed(store, *rows)
    assert used_up(store) == {cid: [["archive", "messages", "", [7, 1, 2]]]}
    seed(store, *rows[:4], name="bob")
    assert list(used_up(store)) == [cid]


@pytest.mark.parametrize("values", [
    {"balance": 1}, {"balance": -1}, {"held": 1}, {"interval": 5}, {"expires_at": NEXT},
    *({"flags": flag} for flag in (UNLIMITED, USAGE_ALLOWED, CONTINUOUS, PER_ENTITY, BOOLEAN, ROLLOVER)),
], ids=str)  # fmt: skip
def test_what_may_still_change_stays(store: Store, values: dict[str, int]) -> None:
    seed(store, *(drained(no, **values) for no in range(1, 9)))
    assert used_up(store) == {}


def test_each_feature_and_entity_keeps_its_own(store: Store) -> None:
    cid = seed(store, *(drained(no, entity_id="e" if no > 5 else "", flags=PREPAID) for no in range(1, 12)))
    assert used_up(store) == {cid: [["archive", "messages", "", [1]], ["archive", "messages", "e", [6, 7]]]}


def test_what_left_before_and_what_is_gone_is_not_named_again(store: Store) -> None:
    cid = seed(store, *(drained(no) for no in range(1, 9)))
    b = tables.buckets
    store.write_sync(lambda c: c.execute(b.update().where(b.c.no < 3).values(archived=True)))
    store.write_sync(lambda c: c.execute(b.update().where(b.c.no == 3).values(removed_at=AT)))
    assert used_up(store) == {cid: [["archive", "messages", "", [4]]]}


def test_a_look_is_bounded_and_goes_on_where_it_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidy, "ROWS_PER_PASS", 14)
    monkeypatch.setattr(tidy, "NUMBERS_PER_STEP", 3)
    cids = [seed(store, *(drained(no) for no in range(1, 7)), name=f"c{i}") for i in range(5)]
    found, after, looks = [], 0, 0
    while looks == 0 or after:
        page = store.read_sync(tidy.used_up, after)
        found += list(page.ops)
        after, looks = page.after_cid, looks + 1
    assert found == cids and looks == 3
    big = seed(store, *(drained(no) for no in range(1, 31)), name="big")
    page = store.read_sync(tidy.used_up, cids[-1])
    assert page == tidy.Page({big: [["archive", "messages", "", [1, 2, 3]]]}, big)
    monkeypatch.setattr(tidy, "CUSTOMERS_PER_PASS", 2)
    assert store.read_sync(tidy.used_up, 0) == tidy.Page(
        {cid: [["archive", "messages", "", [1, 2]]] for cid in cids[:2]}, cids[1]
    )


def test_what_has_ended_is_dropped_rollovers_apart(store: Store) -> None:
    cid = seed(store, row(1, expires_at=AT), row(2, expires_at=AT + 1), row(3), row(4, expires_at=AT, entity_id="e"),
               row(5, expires_at=AT, flags=ROLLOVER))  # fmt: skip
    assert store.read_sync(tidy.expired, AT) == {
        cid: [["drop", "messages", 1, "", 0, 1], ["drop", "messages", 4, "e", 0, 1]]
    }


def test_nothing_is_decided_over_a_step_under_way(store: Store) -> None:
    cid = seed(store, row(1, expires_at=AT))
    ops = [["drop", "messages", 1, "", 0, 1]]
    assert store.write_sync(tidy.decide, cid, ops, AT) == "ann"
    assert [step.version for step in store.read_sync(outbox.after, cid, 0)] == [1]
    assert store.write_sync(tidy.decide, cid, ops, AT) is None
    assert [step.version for step in store.read_sync(outbox.after, cid, 0)] == [1]
    other = seed(store, row(1, expires_at=AT), name="bob")
    store.write_sync(customers.mark_deleted, other, AT)
    assert store.write_sync(tidy.decide, other, ops, AT) is None


def test_the_looks_use_their_indexes(store: Store) -> None:
    """They run every few seconds beside the calls."""
    said: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda _c, _cur, sql, *_: said.append(sql))
    store.read_sync(buckets.lasting, 0, 10)
    store.read_sync(buckets.expired, AT, 10)
    store.read_sync(buckets.due, AT)
    store.read_sync(holds.due, AT)
    queries = [sql for sql in said if sql.startswith("SELECT")]
    indexes = ("buckets_lasting", "buckets_expiring", "buckets_due", "holds_due")
    assert len(queries) == len(indexes)
    if store.is_sqlite:  # PostgreSQL reads an empty table as it is
        with store.engine.connect() as conn:
            plans = [
                str(conn.exec_driver_sql("EXPLAIN QUERY PLAN " + sql, (1,) * sql.count("?")).all()) for sql in queries
            ]
        assert [index for index, plan in zip(indexes, plans) if index not in plan] == [], plans


# -- carried out -----------------------------------------------------------------------------------


def test_top_ups_that_are_used_up_leave_and_still_count(valkey: Any, store: Store) -> None:
    async def scene(place: World) -> None:
        cid = await place.create("ann", *(("words", lifetime(no, 10, prepaid=4)) for no in range(1, 11)))
        await place.track("ann", 95, "words")
        await caught_up(place)
        duties = Duties(place.engine, store, PARTITIONS)
        assert await duties.archive_used_up() == 1
        state = await place.engine.view("ann")
        assert state is not None
        assert [r.no for r in state.features["words"]] == [6, 7, 8, 9, 10]
        assert state.archived == {("words", ""): Archived(5, 50, 20)}
        assert (await audit(place.engine, store)).differences == []
        assert await duties.archive_used_up() == 0, "not again while the step is on its way"
        await caught_up(place)
        assert [bucket(store, cid, no).archived for no in (5, 6)] == [True, False]
        assert await Duties(place.engine, store, PARTITIONS).archive_used_up() == 0
        assert (await audit(place.engine, store)).differences == []
        await place.track("ann", 5, "words")
        await caught_up(place)
        assert await duties.archive_used_up() == 1
        assert (await audit(place.engine, store)).differences == []

    check(valkey, store, scene)


def test_a_bucket_refilled_meanwhile_stays(valkey: Any, store: Store) -> None:
    """SQL may be behind: the script looks at the live balance."""

    async def scene(place: World) -> None:
        await place.create("ann", *(("words", lifetime(no, 10)) for no in range(1, 7)))
        await place.track("ann", 60, "words")
        await caught_up(place)
        await place.track("ann", -13, "words")
        await Duties(place.engine, store, PARTITIONS).archive_used_up()
        state = await place.engine.view("ann")
        assert state is not None
        assert sum(r.balance for r in state.features["words"]) == 13 and state.archived == {}
        await caught_up(place)
        assert (await audit(place.engine, store)).differences == []

    check(valkey, store, scene)


def test_buckets_past_their_end_go(valkey: Any, store: Store) -> None:
    async def scene(place: World) -> None:
        now_ms = await place.engine.now_ms()
        cid = await place.create(
            "ann", ("words", lifetime(1, 10, expires_at=now_ms + DAY)), ("words", lifetime(2, 10))
        )
        await place.track("ann", 3, "words")
        await caught_up(place)
        duties = Duties(place.engine, store, PARTITIONS)
        assert await duties.drop_expired() == 0
        await place.engine.move_clock(await store.write(settings_kv.move_clock, 2 * DAY))
        assert await duties.drop_expired() == 1
        state = await place.engine.view("ann")
        assert state is not None and [r.no for r in state.features["words"]] == [2]
        await caught_up(place)
        assert bucket(store, cid, 1).removed_at is not None
        assert (await audit(place.engine, store)).differences == []

    check(valkey, store, scene, test_clock=True)
