"""Named queries on both dialects: uniqueness under races, versions, cursors, snapshots."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgpack
import pytest
from sqlalchemy import Connection, event, insert

from sidecar.domain.layout import Row, Slot
from sidecar.engine import loader
from sidecar.engine.state import decode_state
from sidecar.store import (
    buckets,
    caps,
    customers,
    events,
    holds,
    idempotency,
    outbox,
    partitions,
    settings_kv,
    tables,
    windows,
)
from sidecar.store.db import Store
from sidecar.store.partitions import Cursor, CursorConflict, PartitionCountDiffers, Place

AT = 1_700_000_000_000


@pytest.fixture
def ready(store: Store) -> Store:
    store.write_sync(partitions.ensure, 8)
    return store


def add_bucket(conn: Connection, cid: int, no: int, **values: object) -> None:
    row = {
        "cid": cid, "no": no, "feature_id": "messages", "balance": 7, "granted": 10, "flags": 0, "purchasable": -1,
        "next_reset_at": 0, "expires_at": 0, "anchor": AT, "interval": 5, "interval_count": 1, "entity_id": "",
        "plan_id": "free", "prepaid": 0, "item": 1001, "created_at": AT, "slots": 0, "over": 0, "entity_feature": "",
    }
    conn.execute(insert(tables.buckets), row | values)


def test_partition_count_is_kept_and_another_is_refused(ready: Store) -> None:
    ready.write_sync(partitions.ensure, 8)
    assert sorted(ready.read_sync(partitions.cursors)) == list(range(8))
    with pytest.raises(PartitionCountDiffers, match="has 8"):
        ready.write_sync(partitions.ensure, 16)


def test_generations_are_given_once(ready: Store) -> None:
    """Of eight who expect the same generation one gets the next; the others get nothing."""

    def take(expected: dict[int, int]) -> dict[int, partitions.Opening]:
        return ready.write_sync(partitions.take_generations, expected)

    orders = [{0: 0, 1: 0, 2: 0}, {2: 0, 1: 0, 0: 0}] * 4
    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(take, orders))
    for p in range(3):
        assert [t[p] for t in taken if p in t] == [(1, 0, -1, 0)]
    assert ready.read_sync(partitions.generations)[3] == 0
    assert take({0: 0}) == {} and take({0: 1, 8: 0}) == {0: (2, 0, -1, 0)}


def test_a_cursor_moves_only_from_where_it_is(ready: Store) -> None:
    start = Place(0, Cursor(0, -1))
    ready.write_sync(partitions.move_cursors, [(1, start, Cursor(1, 4)), (0, start, Cursor(1, 2))])
    assert ready.read_sync(partitions.cursors, [0, 1]) == {0: (1, 2), 1: (1, 4)}
    moves = [(0, Place(0, Cursor(1, 2)), Cursor(1, 3)), (1, Place(0, Cursor(1, 3)), Cursor(1, 9))]
    with pytest.raises(CursorConflict):
        ready.write_sync(partitions.move_cursors, moves)
    assert ready.read_sync(partitions.cursors, [0, 1]) == {0: (1, 2), 1: (1, 4)}


def test_a_cursor_does_not_move_under_a_generation_that_is_over(ready: Store) -> None:
    """Who read the log before someone took the next generation may have read what Redis lost."""
    read_under = ready.read_sync(partitions.places, [4])[4]
    ready.write_sync(partitions.take_generations, {4: 0})
    with pytest.raises(CursorConflict):
        ready.write_sync(partitions.move_cursors, [(4, read_under, Cursor(1, 0))])
    ready.write_sync(partitions.move_cursors, [(4, Place(1, Cursor(0, -1)), Cursor(1, 0))])
    assert ready.read_sync(partitions.places, [4]) == {4: Place(1, Cursor(1, 0))}


def test_racing_cursors_have_one_winner(ready: Store) -> None:
    def move(seq: int) -> bool:
        try:
            ready.write_sync(partitions.move_cursors, [(5, Place(0, Cursor(0, -1)), Cursor(1, seq))])
        except CursorConflict:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        assert sum(threads.map(move, range(6))) == 1


def test_keys_lost_until_is_told_to_the_next_opener(ready: Store) -> None:
    ready.write_sync(partitions.set_keys_lost_until, [2], AT)
    assert ready.write_sync(partitions.take_generations, {2: 0})[2] == (1, 0, -1, AT)


def test_two_at_once_make_one_customer(ready: Store) -> None:
    def make(_: int) -> tuple[customers.Customer, bool]:
        return ready.write_sync(customers.create, "ann", 3, AT, name="Ann", metadata={"a": 1})

    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(make, range(8)))
    assert [created for _, created in made].count(True) == 1
    assert len({customer.cid for customer, _ in made}) == 1
    assert made[0][0].metadata == {"a": 1}


def test_a_deleted_name_is_free_for_another_cid(ready: Store) -> None:
    first, _ = ready.write_sync(customers.create, "ann", 3, AT)
    assert ready.write_sync(customers.mark_deleted, first.cid, AT + 1)
    assert not ready.write_sync(customers.mark_deleted, first.cid, AT + 2)
    assert ready.read_sync(customers.by_id, "ann") is None
    second, created = ready.write_sync(customers.create, "ann", 3, AT)
    assert created and second.cid > first.cid
    gone = ready.read_sync(customers.by_cid, first.cid)
    assert gone is not None and gone.deleted_at == AT + 1


def test_versions_and_bucket_numbers_are_given_once(ready: Store) -> None:
    cid = ready.write_sync(customers.create, "ann", 3, AT)[0].cid

    def take(_: int) -> customers.VersionTaken:
        return ready.write_sync(customers.take_version, cid, 2)

    with ThreadPoolExecutor(8) as threads:
        taken = sorted(threads.map(take, range(10)))
    assert taken == [(i, 2 * i - 1) for i in range(1, 11)]
    ready.write_sync(customers.mark_deleted, cid, AT)
    with pytest.raises(LookupError):
        take(0)


def test_pages_are_newest_first_and_search_finds(ready: Store) -> None:
    for i in range(5):
        ready.write_sync(customers.create, f"c{i}", 3, AT, name="100% Bob" if i == 2 else None, email=f"M{i}@x.org")
    page, total = ready.read_sync(customers.page, 2, 1)
    assert ([c.id for c in page], total) == (["c3", "c2"], 5)
    assert [c.id for c in ready.read_sync(customers.page, 10, 0, "100% b")[0]] == ["c2"]
    assert [c.id for c in ready.read_sync(customers.page, 10, 0, "m4@")[0]] == ["c4"]
    assert ready.read_sync(customers.page, 10, 0, "_")[1] == 0


def test_change_sets_plain_columns(ready: Store) -> None:
    cid = ready.write_sync(customers.create, "ann", 3, AT)[0].cid
    ready.write_sync(customers.change, cid, email="a@b.c", payment_method={"brand": "visa"})
    ready.write_sync(customers.change, cid)
    found = ready.read_sync(customers.by_id, "ann")
    assert found is not None and (found.email, found.payment_method) == ("a@b.c", {"brand": "visa"})


def test_a_snapshot_has_what_a_load_needs(ready: Store) -> None:
    cid = ready.write_sync(customers.create, "ann", 3, AT)[0].cid

    def fill(conn: Connection) -> None:
        add_bucket(conn, cid, 1)
        add_bucket(conn, cid, 2, feature_id="seats", entity_id="e1")
        add_bucket(conn, cid, 3, removed_at=AT)
        add_bucket(conn, cid + 1, 1)
        conn.execute(insert(tables.slots), [{"cid": cid, "no": 1, "entity_id": "e1", "balance": 3, "period": 9}])
        conn.execute(insert(tables.entities), [
            {"cid": cid, "id": e, "feature_id": "seats", "status": s, "applied": s == "active", "created_at": AT}
            for e, s in (("e1", "active"), ("e2", "pending"))
        ])
        for _ in range(3):
            taken = customers.take_version(conn, cid)
            outbox.append(conn, cid, taken.version, [["drop", "messages", 1, ""]], AT)
        conn.execute(tables.customers.update().values(applied_version=1))
        partitions.move_cursors(conn, [(3, Place(0, Cursor(0, -1)), Cursor(2, 17))])

    ready.write_sync(fill)
    found = ready.read_sync(customers.load_snapshot, "ann")
    assert found is not None
    assert found.customer.structure_version == 3 and (found.generation, found.cursor) == (0, (2, 17))
    assert [(f, row.no, row.entity_id) for f, row in found.rows] == [("messages", 1, ""), ("seats", 2, "e1")]
    assert isinstance(found.rows[0][1], Row) and found.rows[0][1].granted == 10
    assert found.slots == (("e1", Slot(1, 3, 9)),)
    assert found.entities == (("e1", "seats"),)
    assert [step.version for step in found.steps] == [2, 3]
    assert found.steps[0].data == outbox.pack(2, AT, [["drop", "messages", 1, ""]])
    assert ready.read_sync(customers.load_snapshot, "bob") is None
    ready.write_sync(customers.mark_deleted, cid, AT)
    assert ready.read_sync(customers.load_snapshot, "ann") is None
    assert ready.read_sync(customers.load_snapshot, "ann", cid) is not None


def test_a_snapshot_has_caps_counters_and_open_holds(ready: Store) -> None:
    """And of the buckets that left the hot state their sums, by feature and entity."""
    data = msgpack.packb([2, [0, 5], -1, False])
    receipt = msgpack.packb([2, AT, AT + 9, "", "messages", 1])
    cid, other = (ready.write_sync(customers.create, name, 3, AT)[0].cid for name in ("ann", "bob"))

    def fill(conn: Connection) -> None:
        for no, entity_id, granted in ((1, "", 10), (2, "", 5), (3, "e1", 7)):
            add_bucket(conn, cid, no, archived=True, balance=0, granted=granted, prepaid=no, entity_id=entity_id)
        add_bucket(conn, cid, 4, archived=True, removed_at=AT)
        add_bucket(conn, cid, 5)
        add_bucket(conn, other, 1, archived=True)
        for owner in (cid, other):
            conn.execute(insert(tables.caps), {"cid": owner, "feature_id": "messages", "entity_id": "e1", "data": data})
            conn.execute(insert(tables.windows), {
                "cid": owner, "feature_id": "messages", "entity_id": "", "interval": 3, "anchor": 1, "start": 4, "end": 5,
                "used": 6,
            })
            conn.execute(insert(tables.holds), [
                {"p": 3, "gen": 1, "seq": owner * 10 + i, "cid": owner, "lock_id": status, "made_at": AT + i,
                 "expires_at": AT + 9, "status": status, "receipt": receipt}
                for i, status in enumerate(("open", "released"))
            ])

    ready.write_sync(fill)
    found = ready.read_sync(customers.load_snapshot, "ann")
    assert found is not None
    assert [row.no for _, row in found.rows] == [5]
    assert sorted(found.archived) == [("messages", "", (2, 15, 3)), ("messages", "e1", (1, 7, 3))]
    assert found.caps == (caps.Caps("messages", "e1", data),)
    assert found.windows == (windows.Window("messages", "", 3, 1, 4, 5, 6),)
    assert [(hold.lock_id, hold.seq, hold.receipt) for hold in found.holds] == [("open", cid * 10, receipt)]
    assert (found.customer.next_roll_no, found.customer.billing_controls) == (2**31, None)
    newest = ready.read_sync(holds.by_lock, "released")
    assert newest is not None and newest.cid in (cid, other) and ready.read_sync(holds.by_lock, "none") is None
    assert ready.read_sync(holds.due, AT + 8) == []
    assert sorted(ready.read_sync(holds.due, AT + 9)) == [("ann", "open"), ("bob", "open")]
    fields = loader.state_fields(found)
    assert set(fields) == {b"h", b"b:messages", b"x:messages\0e1", b"k:messages\0e1", b"w:messages", b"l:open"}
    state = decode_state(AT, [part for field in fields.items() for part in field])
    assert state.archived == {("messages", ""): (2, 15, 3), ("messages", "e1"): (1, 7, 3)}
    assert state.windows == {("messages", ""): [(3, 1, 4, 5, 6)]}
    assert state.caps == {("messages", "e1"): ([0, 5], -1, None)}
    assert state.holds == {"open": (AT + 9, receipt, 1, cid * 10)}


def test_pending_steps_are_found_when_old_enough(ready: Store) -> None:
    cid = ready.write_sync(customers.create, "ann", 3, AT)[0].cid

    def decide(conn: Connection, at: int) -> None:
        outbox.append(conn, cid, customers.take_version(conn, cid).version, [], at)

    ready.write_sync(decide, AT)
    ready.write_sync(decide, AT + 5000)
    assert ready.read_sync(outbox.pending, AT) == []
    assert ready.read_sync(outbox.pending, AT + 1) == [(cid, "ann", False)]
    ready.write_sync(customers.change, cid, applied_version=2)
    assert ready.read_sync(outbox.pending, AT + 9999) == []


def test_event_ids_read_back_and_nonsense_does_not() -> None:
    assert events.parse_event_id(events.event_id(17, 3, 0)) == (17, 3, 0)
    for text in ("evt_17_3", "evt_17_03_1", "evt_-1_1_1", "evt_1_1_1\n", "evt_1_1_" + "9" * 40, "evt_٣_1_1"):
        assert events.parse_event_id(text) is None


def test_expired_keys_go_in_bounded_steps(ready: Store) -> None:
    rows = [
        {"cid": 1, "digest": bytes([i]) * 16, "p": 0, "gen": 1, "seq": i, "expires_at": AT + i, "record": b"r"}
        for i in range(10)
    ]
    ready.write_sync(lambda conn: conn.execute(insert(tables.idempotency), rows))
    assert ready.write_sync(idempotency.delete_expired, AT + 5, 4) == 4
    assert ready.write_sync(idempotency.delete_expired, AT + 5, 4) == 2
    assert ready.write_sync(idempotency.delete_expired, AT + 5, 4) == 0
    assert ready.read_sync(idempotency.find, 1, bytes([5]) * 16) is None
    assert ready.read_sync(idempotency.find, 1, bytes([6]) * 16) == b"r"
    assert len(ready.read_sync(idempotency.live_of, [1, 2], AT + 7)) == 2


def test_due_buckets_come_page_by_page(ready: Store) -> None:
    cid = ready.write_sync(customers.create, "ann", 3, AT)[0].cid
    gone = ready.write_sync(customers.create, "bob", 3, AT)[0].cid

    def fill(conn: Connection) -> None:
        for no in range(1, 6):
            add_bucket(conn, cid, no, next_reset_at=AT + no // 2)
        add_bucket(conn, cid, 6, next_reset_at=AT, removed_at=AT)
        add_bucket(conn, cid, 7, next_reset_at=AT, expires_at=AT)
        add_bucket(conn, cid, 8)
        add_bucket(conn, gone, 1, next_reset_at=AT)
        customers.mark_deleted(conn, gone, AT)

    ready.write_sync(fill)
    first = ready.read_sync(buckets.due, AT + 1, None, 2)
    assert [due.no for due in first] == [1, 2] and first[0].customer_id == "ann"
    assert [due.no for due in ready.read_sync(buckets.due, AT + 1, first[-1], 2)] == [3]


def test_settings_add_up_and_the_clock_never_goes_back(ready: Store) -> None:
    with ThreadPoolExecutor(4) as threads:
        versions = list(threads.map(lambda _: ready.write_sync(settings_kv.bump_catalog_version), range(8)))
    assert sorted(versions) == list(range(1, 9)) and ready.read_sync(settings_kv.catalog_version) == 8
    assert ready.read_sync(settings_kv.clock_offset_ms) == 0
    assert ready.write_sync(settings_kv.move_clock, 500) == 500
    assert ready.write_sync(settings_kv.move_clock, 400) == 500
    settings = ready.read_sync(settings_kv.get, "absent")
    assert settings is None


def test_a_customer_deleted_just_as_it_is_found_in_the_way_is_made_anew(pg_migrated_url: str) -> None:
    """On PostgreSQL each statement sees what others have committed since; SQLite has one writer."""
    store, other = Store(pg_migrated_url), Store(pg_migrated_url)
    try:
        store.write_sync(partitions.ensure, 8)
        first, _ = store.write_sync(customers.create, "c", 0, AT)
        deleted: list[bool] = []

        @event.listens_for(store.engine, "after_cursor_execute")
        def delete_it(_conn: object, _cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("INSERT INTO customers") and not deleted:
                deleted.append(other.write_sync(customers.mark_deleted, first.cid, AT + 1))

        second, made = store.write_sync(customers.create, "c", 0, AT + 2)
        assert deleted == [True] and made and second.cid != first.cid
    finally:
        store.close()
        other.close()
