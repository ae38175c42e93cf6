"""What a record may change beside what an event took: rollovers, slots, holds, caps, windows, refunds,
credits, archiving; on both dialects, with a ledger that adds up."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgpack
import pytest
from sqlalchemy import Connection, select

from sidecar.domain.layout import PER_ENTITY, ROLLOVER, ROLLOVER_NO_MIN, USAGE_ALLOWED
from sidecar.store import caps, customers, events, holds, outbox, partitions, refunds, tables, windows
from sidecar.store.db import Store
from sync.apply import Applied, apply

from .logs import AT, NEXT, P, bucket, count, entries, ledger_sum, pay_per_use, prices, record, rollover, row, seed

LATER = NEXT + 30 * 86_400_000
R1 = ROLLOVER_NO_MIN + 1
PER_1000 = {"price": "1", "billing_units": 1000}


def run(store: Store, *data: bytes, seq: int = 1) -> Applied:
    """Applies entries, none of which may be set aside."""
    done = tried(store, *data, seq=seq)
    assert done.rejected == ()
    return done


def tried(store: Store, *data: bytes, seq: int = 1) -> Applied:
    return apply(store, entries(*data, seq=seq), store.read_sync(partitions.places), AT)


def versions(store: Store, cid: int, *steps: list[Any]) -> None:
    def decide(conn: Connection) -> None:
        for ops in steps:
            outbox.append(conn, cid, customers.take_version(conn, cid).version, ops, AT)

    store.write_sync(decide)


def lines(store: Store, cid: int, no: int | None = None) -> list[tuple[str, int]]:
    return [(x.kind, x.delta) for x in store.read_sync(events.ledger_of, cid, no) if x.gen]


def slots(store: Store, cid: int) -> list[tuple[Any, ...]]:
    s = tables.slots.c
    query = select(s.no, s.entity_id, s.balance, s.period, s.granted, s.held).where(s.cid == cid).order_by(s.no, s.entity_id)
    return [tuple(one) for one in store.read_sync(lambda c: c.execute(query).all())]


def adds_up(store: Store, cid: int, *numbers: int) -> None:
    for no in numbers:
        assert ledger_sum(store, cid, no) == bucket(store, cid, no).balance, no


# -- resets and rollovers --------------------------------------------------------------------------


def test_a_reset_leaves_a_rollover_that_pays_next(store: Store) -> None:
    cid = seed(store, row(1, 4, 10, held=3, roll_length=1))
    run(store, record(
        cid, ms=NEXT + 5, resets=[(1, 6, 0, NEXT, LATER, NEXT, 0)], changes=[("+", "messages", list(rollover(1, 4)))],
        uses=[("messages", 5, 5, [R1, -4, 1, -1])],
    ))  # fmt: skip
    found, made = bucket(store, cid), bucket(store, cid, R1)
    assert (found.balance, found.next_reset_at, found.reset_at, found.reset_over, found.held) == (9, LATER, NEXT, 0, 0)
    assert (made.balance, made.granted, made.parent, made.flags, made.created_at) == (0, 4, 1, ROLLOVER, AT)
    assert lines(store, cid) == [("reset", 6), ("rollover", 4), ("use", -4), ("use", -1)]
    adds_up(store, cid, 1, R1)
    customer = store.read_sync(customers.by_cid, cid)
    assert customer is not None and customer.next_roll_no == R1 + 1


def test_a_reset_says_when_it_was_due_and_what_was_over(store: Store) -> None:
    prices(store, [PER_1000])
    cid = seed(store, pay_per_use(balance=-200))
    run(store, record(cid, kind=2, ms=LATER, resets=[(1, 1200, 200, NEXT, LATER + 1, LATER, 200)]))
    found = bucket(store, cid)
    assert (found.reset_at, found.reset_over) == (LATER, 200)


@pytest.mark.parametrize("reset_at", [NEXT - 1, LATER])
def test_a_reset_was_done_when_it_was_due(store: Store, reset_at: int) -> None:
    cid = seed(store, row(1, 4, 10))
    done = tried(store, record(cid, kind=2, resets=[(1, 6, 0, NEXT, LATER, reset_at, 0)]))
    assert "outside what was due" in done.rejected[0][1]


def test_rollovers_are_trimmed_joined_and_end(store: Store) -> None:
    cid = seed(store, row(1, 10, 10), rollover(1, 6), rollover(2, 3))
    run(
        store,
        record(cid, kind=2, changes=[("r", R1, -2, -2), ("-", "messages", R1 + 1, 3, 0)]),
        record(cid, kind=2, changes=[("r", R1, 5, 5)]),
    )
    made = bucket(store, cid, R1)
    assert (made.balance, made.granted) == (9, 9)
    assert bucket(store, cid, R1 + 1).removed_at == AT
    assert lines(store, cid) == [("rollover", -2), ("remove", -3), ("rollover", 5)]
    adds_up(store, cid, R1, R1 + 1)
    assert "not a rollover" in tried(store, record(cid, kind=2, changes=[("r", 1, -1, -1)]), seq=3).rejected[0][1]


def test_a_number_is_given_once(store: Store) -> None:
    """Also after its bucket is gone."""
    cid = seed(store, row(1), rollover(1, 3))
    gone, again = ("-", "messages", R1, 3, 0), ("+", "messages", list(rollover(1, 9)))
    assert tried(store, record(cid, kind=2, changes=[again])).rejected
    run(store, record(cid, kind=2, changes=[gone]), seq=2)
    assert tried(store, record(cid, kind=2, changes=[again]), seq=3).rejected
    cid = seed(store, row(1), rollover(1, 3), name="bob")
    done = tried(store, record(cid, kind=2, changes=[gone]), record(cid, kind=2, changes=[again]), seq=4)
    assert [entry.seq for entry, _ in done.rejected] == [5]
    adds_up(store, cid, R1)


def test_a_rollover_per_entity_is_kept_slot_by_slot(store: Store) -> None:
    """What a reset made of each entity's share, what one spends of it, and what a give-back joins."""
    parent = row(1, 13, 10, flags=PER_ENTITY, slots=2, entity_feature="seats", roll_length=0)
    cid = seed(store, parent)
    made = rollover(1, 7, flags=ROLLOVER | PER_ENTITY, entity_feature="seats", granted=0, prepaid=7)
    run(store, record(
        cid, ms=NEXT, entity_id="a", resets=[(1, 7, 0, NEXT, LATER, NEXT, 0)],
        changes=[
            ("s", R1, "a", 4, 0, 4, 0), ("s", R1, "b", 3, 0, 3, 0), ("+", "messages", list(made)),
            ("sd", R1, "a", 2, 2), ("r", R1, 2, 2), ("hd", R1, "a", 3),
        ],
        uses=[("messages", 3, 3, [-2, R1, "a", -3, -1, 0])],
    ))  # fmt: skip
    assert slots(store, cid) == [(R1, "a", 3, 0, 6, 3), (R1, "b", 3, 0, 3, 0)]
    found = bucket(store, cid, R1)
    assert (found.balance, found.granted, found.prepaid, found.held) == (6, 0, 9, 0)
    run(store, record(cid, entity_id="c", uses=[("messages", 0, 0, [-2, R1, "c", 1, 0, 0])]), seq=2)
    assert slots(store, cid)[2] == (R1, "c", 1, 0, 0, 0)
    adds_up(store, cid, 1, R1)


def test_debts_that_slots_keep_across_a_reset_are_told(store: Store) -> None:
    parent = row(1, 0, 10, flags=PER_ENTITY, slots=2, over=15, entity_feature="seats")
    cid = seed(store, parent)
    run(store, record(
        cid, ms=NEXT, entity_id="a", resets=[(1, 5, 0, NEXT, LATER, NEXT, 5)],
        changes=[("s", 1, "a", -5, LATER, 0, 0), ("~", "messages", 1, 0, 0, 0, 5)],
        uses=[("messages", 2, 2, [-2, 1, "a", -2, -1, LATER])],
    ))  # fmt: skip
    found = bucket(store, cid)
    assert (found.balance, found.over, found.reset_over) == (3, 7, 5)
    assert lines(store, cid) == [("reset", 5), ("use", -2)], "a change of counts alone has no line"


def test_a_renewed_slot_has_neither_grant_nor_hold(store: Store) -> None:
    cid = seed(store, row(1, 20, 10, flags=PER_ENTITY, slots=2, entity_feature="seats"))
    first = ("s", 1, "a", 4, NEXT, 5, 6)
    run(store, record(cid, changes=[first], uses=[("messages", 1, 1, [-2, 1, "a", -1, -1, NEXT])]))
    assert slots(store, cid) == [(1, "a", 3, NEXT, 5, 6)]
    run(store, record(cid, ms=NEXT, resets=[(1, 1, 0, NEXT, LATER)], slots=[(1, "a", -1, 10, LATER)]), seq=2)
    assert slots(store, cid) == [(1, "a", 9, LATER, 0, 0)]


# -- balances set, sums, archiving -----------------------------------------------------------------


def test_a_bucket_that_was_set_is_replaced_column_by_column(store: Store) -> None:
    cid = seed(store, row(1, 4, 10))
    versions(store, cid, [], [])
    new = row(
        1, 25, 20, flags=USAGE_ALLOWED, purchasable=5, next_reset_at=LATER, expires_at=LATER + 9, anchor=LATER, interval=3,
        interval_count=2, plan_id="pro", prepaid=3, item=7001, created_at=AT + 1, roll_length=2, roll_max=50,
        roll_percent=70, reset_at=AT, reset_over=1, held=2, parent=8,
    )
    run(
        store,
        record(cid, kind=3, version=1, changes=[("=", "messages", list(new))]),
        record(cid, kind=3, version=2, changes=[("=", "messages", list(new._replace(balance=20)))]),
    )
    found = bucket(store, cid)._mapping
    assert {name: found[name] for name in new._fields} == new._replace(balance=20)._asdict()
    assert lines(store, cid) == [("set", 21), ("set", -5)]
    adds_up(store, cid, 1)
    wrong = record(cid, version=2, changes=[("=", "words", list(new))])
    assert "not of 'words'" in tried(store, wrong, seq=3).rejected[0][1]


def test_a_used_up_bucket_leaves_the_hot_state_and_comes_back(store: Store) -> None:
    cid = seed(store, row(1, 0, 10, next_reset_at=0, interval=0, prepaid=4), row(2, 1, 10, next_reset_at=0, interval=0))
    versions(store, cid, [], [], [])
    run(store, record(cid, kind=3, version=1, changes=[("z", 1, 1)]))
    assert bucket(store, cid, 1).archived
    assert lines(store, cid) == [("step", 0)]
    snapshot = store.read_sync(customers.load_snapshot, "ann")
    assert snapshot is not None and [r.no for _, r in snapshot.rows] == [2]
    assert snapshot.archived == (("messages", "", (1, 10, 4)),)
    for bad in (("z", 1, 1), ("z", 2, 1), ("z", 2, 0)):
        assert tried(store, record(cid, kind=3, version=2, changes=[bad]), seq=store.read_sync(partitions.cursors)[P].seq + 1).rejected
    seq = store.read_sync(partitions.cursors)[P].seq + 1
    run(store, record(cid, kind=3, version=2, changes=[("z", 1, 0)]), record(cid, version=2, deltas=[(1, 3)]), seq=seq)
    assert not bucket(store, cid, 1).archived and bucket(store, cid, 1).balance == 3
    adds_up(store, cid, 1)


def test_an_entitys_archived_buckets_go_with_it(store: Store) -> None:
    mine, others = row(1, 0, 10, interval=0, next_reset_at=0, entity_id="a"), row(2, 0, 10, interval=0, entity_id="b")
    cid = seed(store, mine, others)
    versions(store, cid, [], [])
    run(
        store,
        record(cid, kind=3, version=1, changes=[("z", 1, 1), ("z", 2, 1)]),
        record(cid, kind=3, version=2, ms=AT + 3, changes=[("e-", "a")]),
    )
    assert (bucket(store, cid, 1).removed_at, bucket(store, cid, 2).removed_at) == (AT + 3, None)


# -- credits ---------------------------------------------------------------------------------------


def billed(store: Store, cid: int) -> list[tuple[str, int, str | None, str | None]]:
    found = [x for x in store.read_sync(events.ledger_of, cid) if x.kind in ("reset", "credit")]
    return [(x.kind, x.over_units, x.units, x.amount) for x in found]


@pytest.mark.parametrize("one_batch", [True, False])
def test_overage_given_back_is_credited_at_its_price_and_never_beyond(store: Store, one_batch: bool) -> None:
    prices(store, [PER_1000])
    cid = seed(store, pay_per_use(balance=-200))
    data = [
        record(cid, kind=2, ms=NEXT, resets=[(1, 1200, 200, NEXT, LATER, NEXT, 200)]),
        record(cid, kind=2, changes=[("o", 1, NEXT, 150)]),
        record(cid, kind=2, changes=[("o", 1, NEXT, 150)]),
        record(cid, kind=2, changes=[("o", 1, NEXT, 1)]),
        record(cid, kind=2, changes=[("o", 1, NEXT - 5, 10)]),
    ]
    if one_batch:
        run(store, *data)
    else:
        for seq, one in enumerate(data, 1):
            run(store, one, seq=seq)
    lines_ = billed(store, cid)
    assert [x[:3] for x in lines_] == [("reset", 200, "200"), ("credit", -150, "-150"), ("credit", -50, "-50")]
    assert [Decimal(x[3] or 0) for x in lines_] == [Decimal("0.2"), Decimal("-0.15"), Decimal("-0.05")]
    adds_up(store, cid, 1)


def test_carried_overage_is_given_back_without_a_bill(store: Store) -> None:
    cid = seed(store, row(1, -3, 10))
    reset = record(cid, kind=2, ms=NEXT, resets=[(1, 10, 0, NEXT, LATER, NEXT, 3)])
    run(store, reset, record(cid, ms=NEXT, uses=[("messages", -2, -2, [1, 2])], changes=[("o", 1, NEXT, 2)]))
    assert (bucket(store, cid).balance, bucket(store, cid).reset_over) == (9, 1)
    assert [x[:2] for x in billed(store, cid)] == [("reset", 0)]


# -- holds -----------------------------------------------------------------------------------------


def test_a_hold_is_made_and_settled_once(store: Store) -> None:
    cid = seed(store, row(1))
    made = record(cid, ms=AT + 1, deltas=[(1, -4)], changes=[("hd", 1, "", 4), ("h+", "lock", AT + 99, b"\xffreceipt")])
    run(store, made)
    hold = store.read_sync(holds.by_lock, "lock")
    assert hold == holds.Hold(P, 1, 1, cid, "lock", AT + 1, AT + 99, "open", None, None, b"\xffreceipt")
    assert store.read_sync(holds.open_of, cid) == [hold]
    assert (bucket(store, cid).balance, bucket(store, cid).held) == (6, 4)
    assert "open already" in tried(store, made, seq=2).rejected[0][1]
    done = record(
        cid, ms=AT + 5, uses=[("messages", -1, -1, [1, 1])], info={"l": "lock"},
        changes=[("hd", 1, "", -4), ("h-", "lock", 1, 3), ("f", 1, 1, b"\x91\x01")],
    )
    prices(store, [], precision=1)
    run(store, done, seq=3)
    settled = store.read_sync(holds.by_lock, "lock")
    assert settled is not None and (settled.status, settled.final, settled.settled_at) == ("confirmed", 3, AT + 5)
    assert store.read_sync(holds.open_of, cid) == []
    assert (bucket(store, cid).balance, bucket(store, cid).held) == (7, 0)
    assert store.read_sync(refunds.returned, cid, 1, 1) == b"\x91\x01"
    assert "no hold" in tried(store, done, seq=4).rejected[0][1]
    last = store.read_sync(events.by_customer, cid, 1)[0]
    assert (last.value, last.requested) == ("-0.1", -1), "nobody sent a value: what was settled"


def test_a_lock_may_be_used_again_once_settled(store: Store) -> None:
    """In one batch, as three holds of two customers."""
    ann, bob = seed(store, row(1)), seed(store, row(1), name="bob")

    def hold(cid: int, ms: int) -> bytes:
        return record(cid, ms=ms, deltas=[(1, -1)], changes=[("h+", "lock", ms + 9, b"r")])

    def settled(cid: int, outcome: int) -> bytes:
        return record(cid, kind=2, ms=AT + 5, changes=[("h-", "lock", outcome, 0)])

    run(store, hold(ann, AT + 1), settled(ann, 2), hold(ann, AT + 6), settled(ann, 3), hold(bob, AT + 7))
    newest = store.read_sync(holds.by_lock, "lock")
    assert newest is not None and (newest.cid, newest.status, newest.seq) == (bob, "open", 5)
    statuses = store.read_sync(lambda c: c.execute(select(tables.holds.c.status).order_by(tables.holds.c.seq)).scalars().all())
    assert statuses == ["released", "expired", "open"]
    assert store.read_sync(holds.due, AT + 15) == [] and store.read_sync(holds.due, AT + 16) == [("bob", "lock")]


def test_what_a_hold_has_of_a_slot_is_the_slots(store: Store) -> None:
    cid = seed(store, row(1, 20, 10, flags=PER_ENTITY, slots=2, entity_feature="seats"))
    run(store, record(cid, entity_id="a", slots=[(1, "a", -4, 10, NEXT)], changes=[("hd", 1, "a", 4), ("h+", "k", NEXT, b"")]))
    assert slots(store, cid) == [(1, "a", 6, NEXT, 0, 4)] and bucket(store, cid).held == 0
    run(store, record(cid, kind=2, changes=[("hd", 1, "a", -4), ("h-", "k", 1, 4)]), seq=2)
    assert slots(store, cid) == [(1, "a", 6, NEXT, 0, 0)]
    assert "does not exist" in tried(store, record(cid, kind=2, changes=[("hd", 1, "b", -4)]), seq=3).rejected[0][1]


# -- caps, windows, refunds ------------------------------------------------------------------------


def test_windows_count_and_begin_anew(store: Store) -> None:
    cid = seed(store, row(1))

    def counted(delta: int, start: int, entity_id: str = "", anchor: int = 1) -> tuple[Any, ...]:
        return ("w", "messages", entity_id, 3, anchor, start, start + 86_400_000, delta)

    run(store, record(cid, changes=[counted(4, AT), counted(4, AT, anchor=0), counted(2, AT, "e")]), record(cid, changes=[counted(3, AT)]))
    run(store, record(cid, kind=2, changes=[counted(-2, AT)]), seq=3)
    day = 86_400_000
    assert store.read_sync(windows.of, cid) == [
        ("messages", "", 3, 0, AT, AT + day, 4), ("messages", "", 3, 1, AT, AT + day, 5), ("messages", "e", 3, 1, AT, AT + day, 2),
    ]
    run(store, record(cid, changes=[counted(1, AT + day)]), seq=4)
    assert store.read_sync(windows.of, cid)[1] == ("messages", "", 3, 1, AT + day, AT + 2 * day, 1)


def test_caps_come_and_go_an_entitys_with_its_counters(store: Store) -> None:
    cid = seed(store, row(1))
    versions(store, cid, [], [])
    used = [("w", "messages", entity, 3, 1, AT, NEXT, 1) for entity in ("", "e")]
    run(
        store,
        record(cid, kind=3, version=1, changes=[("c", "messages", "", b"\x01"), ("c", "messages", "e", b"\x02")]),
        record(cid, version=1, changes=used),
    )
    assert store.read_sync(caps.of, cid) == [("messages", "", b"\x01"), ("messages", "e", b"\x02")]
    gone = record(cid, kind=3, version=2, changes=[("c", "messages", "", b""), ("c", "messages", "e", b"")])
    run(store, gone, record(cid, version=2, changes=[("w", "messages", "e", 3, 1, AT, NEXT, 7)]), seq=3)
    assert store.read_sync(caps.of, cid) == []
    assert [(x.entity_id, x.used) for x in store.read_sync(windows.of, cid)] == [("", 1), ("e", 7)]


def test_what_was_returned_of_an_event_is_the_last_that_was_said(store: Store) -> None:
    cid = seed(store, row(1))
    back = [("f", 1, 1, msgpack.packb([n])) for n in (2, 3)]
    run(store, *(record(cid, uses=[("messages", -1, -1, [1, 1])], info={"v": "-1", "r": [1, 1]}, changes=[one]) for one in back))
    assert store.read_sync(refunds.returned, cid, 1, 1) == msgpack.packb([3])
    assert store.read_sync(refunds.returned, cid, 1, 2) is None
    assert [x.refund_of for x in store.read_sync(events.by_customer, cid, 9)] == [f"evt_{P}_1_1"] * 2


def test_an_event_is_kept_with_its_receipt(store: Store) -> None:
    cid, other = seed(store, row(1), rollover(1, 5)), seed(store, row(1), name="bob")
    parts = [R1, -5, 1, -1, -1, "credits", 1, 3]
    info = {"v": "6", "k": "key"}
    run(store, record(cid, entity_id="e", info=info, uses=[("messages", 6, 6, parts), ("words", 1, 0)]))
    run(store, record(cid, info=info, uses=[("words", 1, 0)]), record(other, info=info, deltas=[(1, -1)]), seq=2)
    found = store.read_sync(events.receipt, cid, events.EntryId(P, 1, 1))
    assert found is not None and (found.entity_id, found.refund_of) == ("e", None)
    assert [(x.feature_id, x.requested, x.applied, msgpack.unpackb(x.parts)) for x in found.lines] == [
        ("messages", 6, 6, parts), ("words", 1, 0, []),
    ]
    assert store.read_sync(events.receipt, other, events.EntryId(P, 1, 1)) is None
    assert store.read_sync(events.by_key, cid, "key") == (P, 1, 2), "the newest"
    assert store.read_sync(events.by_key, cid, "other") is None


def test_all_of_it_goes_with_its_customer(store: Store) -> None:
    cid = seed(store, row(1))
    versions(store, cid, [["delete"]])
    everything = [
        ("h+", "lock", AT, b"r"), ("w", "messages", "", 3, 1, AT, NEXT, 1), ("c", "messages", "", b"\x01"), ("f", 1, 1, b"\x90"),
    ]
    run(store, record(cid, kind=2, changes=everything))
    run(store, record(cid, kind=2, changes=everything[1:]), record(cid, kind=3, version=1, changes=[("x",)]), seq=2)
    for table in (tables.holds, tables.windows, tables.caps, tables.refunds):
        assert count(store, table, cid=cid) == 0, table.name
