"""The log in SQL: every entry once, whatever races, repeats or is damaged; on both dialects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection, event, insert, select, text

from sidecar.domain.layout import PER_ENTITY, UNLIMITED, USED_HIGH_UNIT, USAGE_ALLOWED
from sidecar.store import customers, events, idempotency, outbox, partitions, tables
from sidecar.store.db import Store
from sidecar.store.partitions import Cursor, CursorConflict, Place
from sync.apply import Applied, LogGap, SqlBehind, apply, batch_max
from sync.rows import Entry

from .logs import AT, NEXT, P, bucket, count, entries, ledger_sum, opening, pay_per_use, prices, record, row, seed
from .logs import idempotency as idempotency_record

START = {P: Place(1, Cursor(1, 0))}


def run(store: Store, *data: bytes, seq: int = 1, gen: int = 1) -> Applied:
    """Applies entries from wherever the cursor is."""
    places = store.read_sync(partitions.places)
    return apply(store, entries(*data, seq=seq, gen=gen), places, AT)


def rejected(store: Store) -> list[Any]:
    return store.read_sync(lambda c: c.execute(select(tables.sync_rejected).order_by(tables.sync_rejected.c.seq)).all())


def versions(store: Store, cid: int, count_: int = 1, ops: list[list[Any]] | None = None) -> None:
    """Decides steps, as an API call would."""

    def decide(conn: Connection) -> None:
        for _ in range(count_):
            outbox.append(conn, cid, customers.take_version(conn, cid).version, ops or [], AT)

    store.write_sync(decide)


def test_a_batch_is_events_ledger_counters_and_cursor(store: Store) -> None:
    cid = seed(store, row(1), row(2, 200, 200, next_reset_at=0, interval=0))
    info = {"v": "12.0", "n": "sent", "p": {"to": "bob"}, "t": AT - 9, "k": "k1"}
    done = run(
        store,
        record(cid, ms=AT + 1, deltas=[(1, -4)]),
        record(cid, ms=AT + 2, entity_id="e", info=info, deltas=[(1, -6), (2, -6)], rec=idempotency_record(cid, AT + 99)),
    )
    assert done == Applied({P: Cursor(1, 2)}, 2, ())
    assert store.read_sync(partitions.cursors)[P] == (1, 2)
    assert (bucket(store, cid, 1).balance, bucket(store, cid, 2).balance) == (0, 194)
    newest, oldest = store.read_sync(events.by_customer, cid, 10)
    assert (oldest.value, oldest.requested, oldest.applied, oldest.timestamp, oldest.customer_id) == ("1", 4, 4, AT + 1, "ann")
    assert (newest.id, newest.value, newest.event_name, newest.properties) == (f"evt_{P}_1_2", "12.0", "sent", {"to": "bob"})
    assert (newest.timestamp, newest.recorded_at, newest.idempotency_key, newest.entity_id) == (AT - 9, AT + 2, "k1", "e")
    assert store.read_sync(events.by_event_id, events.EntryId(P, 1, 2)) == [newest]
    lines = store.read_sync(events.ledger_of, cid)
    assert [(x.seq, x.line, x.no, x.kind, x.delta) for x in lines if x.gen] == [
        (1, 0, 1, "use", -4), (2, 0, 1, "use", -6), (2, 1, 2, "use", -6),
    ]
    assert (ledger_sum(store, cid, 1), ledger_sum(store, cid, 2)) == (0, 194)
    found = store.read_sync(idempotency.find, cid, idempotency.digest("ann", "k1"))
    assert found == idempotency_record(cid, AT + 99)
    customer = store.read_sync(customers.by_cid, cid)
    assert customer is not None
    assert (customer.last_ms, customer.log_gen, customer.log_seq) == (AT + 2, 1, 2)


def test_an_event_of_several_features_has_a_line_each(store: Store) -> None:
    cid = seed(store, row(1))
    run(store, record(cid, uses=[("messages", 3, 2), ("words", 5, 0)], deltas=[(1, -2)]))
    lines = store.read_sync(events.by_event_id, events.EntryId(P, 1, 1))
    assert [(x.line, x.feature_id, x.requested, x.applied) for x in lines] == [(0, "messages", 3, 2), (1, "words", 5, 0)]


def test_the_same_batch_again_conflicts_and_changes_nothing(store: Store) -> None:
    """Promise P2: exactly once."""
    cid = seed(store, row(1))
    batch = entries(record(cid, deltas=[(1, -4)]))
    apply(store, batch, START, AT)
    with pytest.raises(CursorConflict):
        apply(store, batch, START, AT)
    with pytest.raises(LogGap):
        apply(store, batch, store.read_sync(partitions.places), AT)
    assert (bucket(store, cid).balance, count(store, tables.events)) == (6, 1)


def test_one_conflict_of_many_partitions_undoes_all(store: Store) -> None:
    ann, bob = seed(store, row(1), name="ann", p=1), seed(store, row(1), name="bob", p=2)
    apply(store, entries(record(bob, deltas=[(1, -1)]), p=2), {2: Place(1, Cursor(1, 0))}, AT)
    both = entries(record(ann, deltas=[(1, -1)]), p=1) + entries(record(bob, deltas=[(1, -1)]), p=2)
    with pytest.raises(CursorConflict):
        apply(store, both, {1: Place(1, Cursor(1, 0)), 2: Place(1, Cursor(1, 0))}, AT)
    assert (bucket(store, ann).balance, bucket(store, bob).balance) == (10, 9)
    assert store.read_sync(partitions.cursors)[1] == (1, 0)


def test_racing_appliers_apply_each_entry_once(store: Store) -> None:
    """Four appliers over one log, each on from the cursors it reads: exact totals, conflicts seen."""
    cids = [seed(store, row(1, 1000, 1000), name=f"c{p}", p=p) for p in range(4)]
    logs = {p: entries(*[record(cids[p], deltas=[(1, -1)])] * 60, p=p) for p in range(4)}

    def applier(_: int) -> int:
        conflicts = 0
        while True:
            places = store.read_sync(partitions.places)
            batch = [e for p in range(4) for e in logs[p][places[p].cursor.seq :][:7]]
            if not batch:
                return conflicts
            try:
                apply(store, batch, places, AT)
            except CursorConflict:
                conflicts += 1

    with ThreadPoolExecutor(4) as threads:
        conflicts = sum(threads.map(applier, range(4)))
    assert conflicts > 0
    for cid in cids:
        assert (bucket(store, cid).balance, ledger_sum(store, cid)) == (940, 940)
        assert count(store, tables.events, cid=cid) == 60


@pytest.mark.parametrize(("gen", "seq"), [(1, 1), (1, 2), (1, 4), (2, 0), (2, 1), (0, 0)])
def test_a_gap_is_refused(store: Store, gen: int, seq: int) -> None:
    cid = seed(store, row(1))
    run(store, record(cid, deltas=[(1, -1)]), record(cid, deltas=[(1, -1)]))
    with pytest.raises(LogGap, match=rf"partition {P}: the cursor is at 1-2, the next entry is {gen}-{seq}"):
        run(store, record(cid, deltas=[(1, -1)]), gen=gen, seq=seq)
    assert bucket(store, cid).balance == 8


def test_a_gap_inside_a_batch_is_refused(store: Store) -> None:
    cid = seed(store, row(1))
    batch = entries(*[record(cid, deltas=[(1, -1)])] * 3)
    with pytest.raises(LogGap):
        apply(store, [batch[0], batch[2]], START, AT)
    assert bucket(store, cid).balance == 10


def test_a_later_generation_begins_with_the_entry_it_goes_on_after(store: Store) -> None:
    cid = seed(store, row(1))
    use = record(cid, deltas=[(1, -1)])
    run(store, use, use)
    for wrong in (opening(1, 1), opening(1, 3), opening(0, -1)):
        with pytest.raises(LogGap):
            run(store, wrong, use, gen=4, seq=0)
    done = run(store, opening(1, 2), use, gen=4, seq=0)
    assert done == Applied({P: Cursor(4, 1)}, 1, ())
    assert store.read_sync(partitions.cursors)[P] == (4, 1)
    assert bucket(store, cid).balance == 7


def test_an_opening_alone_moves_the_cursor(store: Store) -> None:
    seed(store)
    assert run(store, opening(1, 0), gen=2, seq=0) == Applied({P: Cursor(2, 0)}, 0, ())
    assert store.read_sync(partitions.cursors)[P] == (2, 0)


def test_what_was_read_under_an_earlier_generation_is_not_applied(store: Store) -> None:
    """Redis may have lost it since: someone opened the partition again."""
    cid = seed(store, row(1))
    batch = entries(record(cid, deltas=[(1, -1)]))
    store.write_sync(partitions.take_generations, {P: 1})
    with pytest.raises(CursorConflict):
        apply(store, batch, START, AT)
    assert bucket(store, cid).balance == 10


def test_a_batch_has_an_end(store: Store) -> None:
    cid = seed(store, row(1, 5000, 5000))
    most = batch_max(store)
    assert most == (2000 if store.is_sqlite else 4000)
    data = [record(cid, deltas=[(1, -1)])] * (most + 1)
    with pytest.raises(ValueError, match=str(most + 1)):
        run(store, *data)
    assert run(store, *data[:most]).applied == most
    assert bucket(store, cid).balance == 5000 - most


@pytest.mark.parametrize("bad", ["damaged", "no_bucket", "no_customer", "other_partition", "too_big", "wrong_due"])
def test_a_bad_entry_is_set_aside_and_the_others_apply(store: Store, bad: str) -> None:
    cid, other = seed(store, row(1, 100, 100)), seed(store, row(1), name="bob", p=5)
    data = {
        "damaged": b"\xc1nonsense",
        "no_bucket": record(cid, deltas=[(1, -5), (9, -1)]),
        "no_customer": record(other + 99),
        "other_partition": record(other),
        "too_big": record(cid, deltas=[(1, -(2**63) + 1)] * 2, uses=[("messages", 1, 1)]),
        "wrong_due": record(cid, kind=2, resets=[(1, 5, 0, NEXT - 1, NEXT + 5)]),
    }[bad]
    good = [record(cid, deltas=[(1, -1)], info={"v": str(i)}) for i in range(11)]
    done = run(store, *good[:7], data, *good[7:])
    assert (done.applied, [e.seq for e, _ in done.rejected]) == (11, [8])
    assert done.cursors == {P: Cursor(1, 12)}
    assert [(r.p, r.gen, r.seq, bytes(r.entry), r.at) for r in rejected(store)] == [(P, 1, 8, data, AT)]
    assert rejected(store)[0].error
    assert (bucket(store, cid).balance, ledger_sum(store, cid)) == (89, 89)
    assert [e.value for e in store.read_sync(events.by_customer, cid, 20)] == [str(i) for i in reversed(range(11))]


def test_text_that_sql_cannot_keep_is_no_bad_entry(store: Store) -> None:
    """No caller's text may put an event aside."""
    cid = seed(store, row(1))
    info = {"v": "1", "n": "a\0b", "k": "k\0", "p": {"\0": "\0", "x": float("nan")}}
    done = run(store, record(cid, info=info, deltas=[(1, -1)], rec=idempotency_record(cid, AT)))
    assert done.rejected == ()
    assert store.read_sync(idempotency.find, cid, idempotency.digest("ann", "k\0")) is not None


def test_a_database_that_fails_is_no_bad_entry(store: Store) -> None:
    cid = seed(store, row(1))
    store.write_sync(lambda c: c.execute(text("ALTER TABLE events RENAME TO events_away")))
    with pytest.raises(Exception, match="events"):
        run(store, record(cid, deltas=[(1, -1)]))
    store.write_sync(lambda c: c.execute(text("ALTER TABLE events_away RENAME TO events")))
    assert rejected(store) == [] and store.read_sync(partitions.cursors)[P] == (1, 0)
    assert run(store, record(cid, deltas=[(1, -1)])).applied == 1


def test_a_version_that_sql_never_gave_stops_the_partition(store: Store) -> None:
    cid = seed(store, row(1))
    with pytest.raises(SqlBehind) as caught:
        run(store, record(cid, deltas=[(1, -1)]), record(cid, version=1, deltas=[(1, -1)]))
    assert caught.value.p == P
    assert bucket(store, cid).balance == 10 and rejected(store) == []


def test_unlimited_usage_has_no_end(store: Store) -> None:
    cid = seed(store, row(1, 0, 0, flags=UNLIMITED))
    big = USED_HIGH_UNIT - 1
    run(store, *[record(cid, deltas=[(1, -big)])] * 5, record(cid, deltas=[(1, 3)]))
    assert (bucket(store, cid).granted, bucket(store, cid).balance) == (4, -(5 * big - 3 - 4 * USED_HIGH_UNIT))
    assert 0 <= -bucket(store, cid).balance < USED_HIGH_UNIT
    assert ledger_sum(store, cid) == -(5 * big - 3)


def test_unlimited_usage_below_zero_is_as_scripts_keep_it(store: Store) -> None:
    cid = seed(store, row(1, 0, 0, flags=UNLIMITED))
    run(store, record(cid, deltas=[(1, 1)]))
    found = bucket(store, cid)
    assert (found.granted, found.balance) == (0, 1)


@pytest.mark.parametrize("used", [5, 3 * USED_HIGH_UNIT + 5])
def test_a_reset_of_an_unlimited_bucket_counts_from_zero(store: Store, used: int) -> None:
    high, low = divmod(used, USED_HIGH_UNIT)
    cid = seed(store, row(1, -low, high, flags=UNLIMITED))
    run(store, record(cid, kind=2, ms=NEXT, resets=[(1, low, high, NEXT, NEXT + 9)]))
    assert (bucket(store, cid).granted, bucket(store, cid).balance, bucket(store, cid).next_reset_at) == (0, 0, NEXT + 9)
    assert ledger_sum(store, cid) == 0


PER_1000 = {"price": "1", "billing_units": 1000}


@pytest.mark.parametrize(("item", "precision", "over", "units", "amount"), [
    (PER_1000, 0, 200, "200", "0.20"),
    ({"price": 0.1, "billing_units": None}, 6, 2_500_000, "2.5", "0.25"),
    ({"price": "10", "billing_units": "3"}, 0, 1, "1", "3.333333333333"),
    ({"price": "0.000001", "billing_units": 1_000_000}, 9, 1, "0.000000001", "0.000000000000000000001"),
    ({"price": 20, "billing_units": 7}, 2, 1400, "14", "40"),
    ({"price": None, "tiers": [{"to": "inf", "amount": 1}]}, 0, 3, "3", None),
])  # fmt: skip
def test_a_reset_says_what_the_period_owes(
    store: Store, item: dict[str, Any], precision: int, over: int, units: str, amount: str | None
) -> None:
    """200 units over at 1 USD per 1,000 are 0.20 USD, exactly."""
    prices(store, [item], precision)
    cid = seed(store, pay_per_use(balance=-over))
    run(store, record(cid, kind=2, ms=NEXT + 5, resets=[(1, 1000 + over, over, NEXT, NEXT + 1000)]))
    line = [x for x in store.read_sync(events.ledger_of, cid) if x.kind == "reset"][0]
    assert (line.over_units, line.units, line.period_end, line.at) == (over, units, NEXT, NEXT + 5)
    assert (None if line.amount is None else Decimal(line.amount)) == (None if amount is None else Decimal(amount))
    assert (bucket(store, cid).balance, bucket(store, cid).next_reset_at) == (1000, NEXT + 1000)
    assert count(store, tables.events) == 0 and ledger_sum(store, cid) == 1000


def test_a_reset_that_owes_nothing_needs_no_price(store: Store) -> None:
    cid = seed(store, row(1, 3, 10, item=99001))
    run(store, record(cid, resets=[(1, 7, 0, NEXT, NEXT + 9)], deltas=[(1, -2)]))
    kinds = [(x.line, x.kind, x.delta, x.amount) for x in store.read_sync(events.ledger_of, cid)[1:]]
    assert kinds == [(0, "reset", 7, None), (1, "use", -2, None)]


def test_a_period_is_reset_once(store: Store) -> None:
    """Promise P6, held by the database itself: a second line for one bucket and period is refused."""
    cid = seed(store, row(1, 3, 10))
    run(store, record(cid, kind=2, resets=[(1, 7, 0, NEXT, NEXT + 9)]))
    done = run(store, record(cid, kind=2, resets=[(1, 7, 0, NEXT, NEXT + 9)]), seq=2)
    assert len(done.rejected) == 1 and bucket(store, cid).balance == 10
    back = tables.buckets.update().values(next_reset_at=NEXT)
    store.write_sync(lambda c: c.execute(back))
    done = run(store, record(cid, kind=2, resets=[(1, 7, 0, NEXT, NEXT + 9)]), seq=3)
    assert "IntegrityError" in done.rejected[0][1]


def test_a_step_brings_buckets_and_takes_them(store: Store) -> None:
    prices(store, [PER_1000])
    cid = seed(store, pay_per_use(1, -200))
    new = row(2, 1800, 2000)
    versions(store, cid, ops=[["drop", "messages", 1, ""], ["add", "messages", list(new), [1], 0, 77]])
    run(store, record(cid, kind=3, ms=AT + 7, version=1, changes=[
        ("+", "messages", list(new)), ("-", "messages", 1, -200, 200),
    ]))  # fmt: skip
    assert (bucket(store, cid, 1).removed_at, bucket(store, cid, 1).balance, ledger_sum(store, cid, 1)) == (AT + 7, 0, 0)
    found = bucket(store, cid, 2)
    assert (found.balance, found.granted, found.customer_plan_uid, found.feature_id) == (1800, 2000, 77, "messages")
    gone, = [x for x in store.read_sync(events.ledger_of, cid) if x.kind == "remove"]
    assert (gone.delta, gone.units, Decimal(gone.amount or 0), gone.period_end) == (200, "200", Decimal("0.2"), AT + 7)
    customer = store.read_sync(customers.by_cid, cid)
    assert customer is not None and (customer.applied_version, customer.structure_version) == (1, 1)
    assert count(store, tables.outbox) == 0
    assert run(store, record(cid, version=1, deltas=[(1, -1)]), seq=2).rejected  # the dropped bucket
    assert not run(store, record(cid, version=1, deltas=[(2, -1)]), seq=3).rejected


def test_steps_and_uses_of_one_batch_apply_in_order(store: Store) -> None:
    cid = seed(store)
    versions(store, cid, 3)
    run(
        store,
        record(cid, kind=3, version=1, changes=[("+", "messages", list(row(1)))]),
        record(cid, version=1, deltas=[(1, -4)]),
        record(cid, kind=3, version=2, changes=[("-", "messages", 1, 6, 0), ("+", "messages", list(row(2, 3)))]),
        record(cid, version=2, deltas=[(2, -1)]),
        record(cid, kind=3, version=3),
    )
    assert rejected(store) == []
    assert (ledger_sum(store, cid, 1), bucket(store, cid, 2).balance, ledger_sum(store, cid, 2)) == (0, 2, 2)
    assert [x.kind for x in store.read_sync(events.ledger_of, cid)] == ["grant", "use", "grant", "remove", "use", "step"]


def test_a_step_is_applied_once(store: Store) -> None:
    cid = seed(store)
    versions(store, cid)
    step = record(cid, kind=3, version=1, changes=[("+", "messages", list(row(1)))])
    assert [e.seq for e, _ in run(store, step, step).rejected] == [2]
    assert bucket(store, cid).balance == 10


def test_a_dropped_bucket_must_stand_where_sql_has_it(store: Store) -> None:
    cid = seed(store, row(1))
    versions(store, cid)
    done = run(store, record(cid, kind=3, version=1, changes=[("-", "messages", 1, 9, 0)]))
    assert "SQL has 10" in done.rejected[0][1]


def slots_of(store: Store, cid: int) -> list[tuple[int, str, int, int]]:
    s = tables.slots
    query = select(s.c.no, s.c.entity_id, s.c.balance, s.c.period).where(s.c.cid == cid).order_by(s.c.no, s.c.entity_id)
    return [tuple(r) for r in store.read_sync(lambda c: c.execute(query).all())]


def test_slots_move_their_buckets_sums(store: Store) -> None:
    """A slot without an entry, or of an earlier period, stands at the grant (`base`)."""
    parent = row(1, 20, 10, flags=PER_ENTITY | USAGE_ALLOWED, slots=2, entity_feature="seats")
    cid = seed(store, parent)
    run(
        store,
        record(cid, entity_id="a", slots=[(1, "a", -4, 10, NEXT)]),
        record(cid, entity_id="a", slots=[(1, "a", -9, -1, NEXT)]),
        record(cid, entity_id="b", slots=[(1, "b", -1, 10, NEXT)]),
    )
    assert slots_of(store, cid) == [(1, "a", -3, NEXT), (1, "b", 9, NEXT)]
    assert (bucket(store, cid).balance, bucket(store, cid).over) == (6, 3)
    run(store, record(cid, entity_id="a", slots=[(1, "a", 1, -1, NEXT)]), seq=4)
    assert (bucket(store, cid).balance, bucket(store, cid).over) == (7, 2)
    later = NEXT + 100
    run(
        store,
        record(cid, ms=NEXT, entity_id="b", resets=[(1, 13, 2, NEXT, later)], slots=[(1, "b", -2, 10, later)]),
        seq=5,
    )
    assert rejected(store)[0].seq == 5, "an overage without its feature's precision cannot be priced"
    prices(store, [])
    run(store, record(cid, ms=NEXT, resets=[(1, 13, 2, NEXT, later)], slots=[(1, "b", -2, 10, later)]), seq=6)
    assert slots_of(store, cid) == [(1, "a", -2, NEXT), (1, "b", 8, later)]
    assert (bucket(store, cid).balance, bucket(store, cid).over, ledger_sum(store, cid)) == (18, 0, 18)
    stale = run(store, record(cid, entity_id="a", slots=[(1, "a", -1, -1, later)]), seq=7)
    assert "does not exist in this period" in stale.rejected[0][1]
    assert run(store, record(cid, slots=[(1, "a", -1, 10, NEXT)]), seq=8).rejected


def entity(store: Store, cid: int, name: str, status: str = "pending", applied: bool = False) -> None:
    values = {"cid": cid, "id": name, "feature_id": "seats", "status": status, "applied": applied, "created_at": AT}
    store.write_sync(lambda c: c.execute(insert(tables.entities), values))


def entities(store: Store, cid: int) -> list[tuple[str, str, bool]]:
    e = tables.entities
    query = select(e.c.id, e.c.status, e.c.applied).where(e.c.cid == cid).order_by(e.c.id)
    return [tuple(r) for r in store.read_sync(lambda c: c.execute(query).all())]


def test_entities_come_go_and_are_refused(store: Store) -> None:
    seats = row(1, 2, 2, next_reset_at=0)
    parent = row(2, 0, 10, flags=PER_ENTITY, entity_feature="seats")
    cid = seed(store, seats, parent)
    versions(store, cid, 5)
    entity(store, cid, "a")
    entity(store, cid, "b")
    run(
        store,
        record(cid, kind=3, version=1, uses=[("seats", 1, 1)], deltas=[(1, -1)],
               changes=[("e+", "a", "seats"), ("~", "messages", 2, 10, 0, 1, 0)]),
        record(cid, version=1, entity_id="a", slots=[(2, "a", -4, 10, NEXT)]),
        record(cid, kind=3, version=2, changes=[("e!", "b", "seats")]),
    )  # fmt: skip
    assert entities(store, cid) == [("a", "active", True)]
    opened, = [e for e in store.read_sync(events.by_customer, cid, 9) if e.feature_id == "seats"]
    assert (opened.value, opened.requested) == ("1", 1)
    assert (bucket(store, cid, 2).balance, bucket(store, cid, 2).slots, bucket(store, cid, 1).balance) == (6, 1, 1)
    close = record(cid, kind=3, version=3, deltas=[(1, 1)], changes=[("~", "messages", 2, -6, 0, -1, 0), ("e-", "a")])
    store.write_sync(lambda c: c.execute(tables.entities.update().values(status="closing")))
    run(store, close, seq=4)
    assert entities(store, cid) == [] and slots_of(store, cid) == []
    assert (bucket(store, cid, 2).balance, bucket(store, cid, 2).slots, ledger_sum(store, cid, 2)) == (0, 0, 0)
    run(store, record(cid, kind=3, version=4, changes=[("e+", "c", "seats")]), seq=5)
    store.write_sync(lambda c: c.execute(tables.entities.update().values(status="pending")))  # made again
    run(store, record(cid, kind=3, version=5, changes=[("e-", "c")]), seq=6)
    assert entities(store, cid) == [("c", "pending", False)]
    assert rejected(store) == []


def test_an_entity_closed_and_opened_in_one_batch_starts_anew(store: Store) -> None:
    cid = seed(store, row(1, 10, 10, flags=PER_ENTITY, slots=1, entity_feature="seats"))
    versions(store, cid, 2)
    entity(store, cid, "a", "closing", True)
    run(store, record(cid, slots=[(1, "a", -4, 10, NEXT)]))
    run(
        store,
        record(cid, kind=3, version=1, changes=[("~", "messages", 1, -6, 0, -1, 0), ("e-", "a")]),
        record(cid, kind=3, version=2, changes=[("~", "messages", 1, 10, 0, 1, 0), ("e+", "a", "seats")]),
        record(cid, version=2, slots=[(1, "a", -1, 10, NEXT)]),
        seq=2,
    )
    assert rejected(store) == []
    assert slots_of(store, cid) == [(1, "a", 9, NEXT)] and bucket(store, cid).balance == 9
    assert entities(store, cid) == [("a", "active", True)]


@pytest.mark.parametrize("marked", [True, False])
def test_a_deleted_customers_rows_go_and_its_history_stays(store: Store, marked: bool) -> None:
    cid, other = seed(store, row(1), row(2)), seed(store, row(1), name="bob")
    versions(store, cid)
    entity(store, cid, "a", "active", True)
    plan = {"cid": cid, "plan_uid": 7, "plan_id": "pro", "status": "active", "options": [], "started_at": AT, "anchor": AT}
    store.write_sync(lambda c: c.execute(insert(tables.customer_plans), plan))
    if marked:
        store.write_sync(customers.mark_deleted, cid, AT + 1)
    run(store, record(cid, deltas=[(1, -4)], info={"k": "k"}, rec=idempotency_record(cid, AT + 99)))
    assert count(store, tables.idempotency, cid=cid) == 1
    run(
        store,
        record(cid, uses=[("messages", 1, 0)], info={"k": "k2"}, rec=idempotency_record(cid, AT + 99)),
        record(cid, kind=3, ms=AT + 8, version=1, changes=[("x",)]),
        record(other, deltas=[(1, -1)]),
        seq=2,
    )
    for table in (tables.buckets, tables.slots, tables.entities, tables.customer_plans, tables.idempotency, tables.outbox):
        assert count(store, table, cid=cid) == 0, table.name
    gone = store.read_sync(customers.by_cid, cid)
    assert gone is not None and gone.deleted_at == (AT + 1 if marked else AT + 8)
    assert (gone.applied_version, count(store, tables.events, cid=cid)) == (1, 2)
    assert (ledger_sum(store, cid, 1), ledger_sum(store, cid, 2)) == (0, 0)
    assert bucket(store, other).balance == 9


def test_a_key_used_again_after_its_end_is_the_new_ones(store: Store) -> None:
    cid = seed(store, row(1))
    info = {"k": "k"}
    first, second = idempotency_record(cid, AT, b"first"), idempotency_record(cid, AT + 5, b"second")
    run(store, record(cid, info=info, deltas=[(1, -1)], rec=first), record(cid, info=info, deltas=[(1, -1)], rec=second))
    assert store.read_sync(idempotency.find, cid, idempotency.digest("ann", "k")) == second
    assert count(store, tables.idempotency) == 1


def test_who_changed_after_an_entry_is_known(store: Store) -> None:
    """What a rebuild after a Redis rollback asks."""
    ann, bob, eve = (seed(store, row(1), name=n) for n in ("ann", "bob", "eve"))
    versions(store, eve)
    run(store, record(ann, deltas=[(1, -1)]), record(bob, uses=[("messages", 1, 0)]), record(eve, kind=3, version=1))
    run(store, opening(1, 3), record(ann, deltas=[(1, -1)]), gen=2, seq=0)
    names = lambda gen, seq: store.read_sync(customers.ahead_of_log, P, gen, seq)  # noqa: E731
    assert names(0, 99) == ["ann", "bob", "eve"]
    assert (names(1, 1), names(1, 2), names(1, 3), names(2, 1)) == (["ann", "bob", "eve"], ["ann", "eve"], ["ann"], [])


def test_no_entry_is_no_batch(store: Store) -> None:
    assert apply(store, [], {}, AT) == Applied({}, 0, ())
    assert Entry(1, 2, 3, b"")[:3] == (1, 2, 3)


def test_a_batch_looks_up_slots_by_their_key(store: Store) -> None:
    """A customer may have a slot for each of ten thousand entities: no statement of a batch may
    read the whole table."""
    cid = seed(store, row(1, 20, 10, flags=PER_ENTITY, slots=2, entity_feature="seats"))
    said: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda _c, _cur, sql, *_: said.append(sql))
    run(store, record(cid, slots=[(1, "a", -1, 10, NEXT)]))
    looked_up = [sql for sql in said if "JOIN slots" in sql]
    assert len(looked_up) == 1
    if store.is_sqlite:
        with store.engine.connect() as conn:
            filled = looked_up[0].replace("(?, ?, ?)", "(1, 2, 'a')")
            plan = [line[3] for line in conn.exec_driver_sql("EXPLAIN QUERY PLAN " + filled)]
        assert any(step.startswith("SEARCH slots USING INDEX") for step in plan), plan
