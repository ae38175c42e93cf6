"""Rows written in bulk are the rows that SQLAlchemy would have written, and so are the errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from sidecar.store import bulk, tables
from sidecar.store.db import Store
from sidecar.store.events import LedgerLine
from sync.rows import PLACE, SUMS
from sync.written import EventRow, KeyRow

from . import logs

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12)
TEXTS = st.one_of(TEXT, st.sampled_from(["", "\\N", "\\", "a\tb", "a\nb\r", "{}", '"', "NULL", "é𝄞"]))
NUMBERS = st.integers(1 - 2**63, 2**63 - 1)


@st.composite
def events(draw: st.DrawFn) -> EventRow:
    """A row without its key."""
    properties = draw(st.one_of(st.none(), st.dictionaries(st.text(max_size=3), st.one_of(st.text(max_size=5), NUMBERS), max_size=3)))
    return EventRow(
        1, 1, 0, 0, draw(NUMBERS), draw(TEXTS), draw(TEXTS), draw(TEXTS), draw(st.none() | TEXTS), draw(TEXTS), draw(NUMBERS),
        draw(NUMBERS), draw(NUMBERS), draw(NUMBERS), json.dumps(properties), draw(st.none() | TEXTS), draw(st.binary(max_size=9)),
        draw(st.none() | TEXTS),
    )


def raw(conn: Connection, table: Any) -> list[Any]:
    """Every row, JSON as it is written."""
    columns = [f'CAST({c.name} AS TEXT)' if c.name == "properties" else f'"{c.name}"' for c in table.columns]
    return [tuple(row) for row in conn.execute(text(f"SELECT {', '.join(columns)} FROM {table.name} ORDER BY seq"))]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.lists(events(), max_size=5))
def test_events_are_written_as_sqlalchemy_writes_them(store: Store, found: list[EventRow]) -> None:
    rows = [row._replace(seq=i) for i, row in enumerate(found)]

    def both(conn: Connection) -> tuple[list[Any], list[Any]]:
        if rows:
            conn.execute(insert(tables.events), [row._asdict() | {"properties": json.loads(row.properties)} for row in rows])
        theirs = raw(conn, tables.events)
        conn.execute(tables.events.delete())
        bulk.insert(conn, tables.events, rows)
        ours = raw(conn, tables.events)
        conn.execute(tables.events.delete())
        return theirs, ours

    theirs, ours = store.write_sync(both)
    assert len(ours) == len(rows) and ours == theirs


@pytest.mark.parametrize("row, table", [(EventRow, tables.events), (LedgerLine, tables.ledger), (KeyRow, tables.idempotency)])
def test_rows_are_in_the_order_of_the_columns(row: Any, table: Any) -> None:
    assert list(row._fields) == table.columns.keys()


def test_a_key_written_again_is_the_new_one(store: Store) -> None:
    old, new = KeyRow(1, b"\0\xff" * 8, 3, 1, 1, 99, b"\\"), KeyRow(1, b"\0\xff" * 8, 3, 1, 2, 2**63 - 1, b'"\0')
    other = KeyRow(2, b"d" * 16, 3, 1, 3, 5, b"")
    store.write_sync(bulk.upsert, tables.idempotency, [old])
    store.write_sync(bulk.upsert, tables.idempotency, [new, other])
    found = store.read_sync(lambda c: c.execute(select(tables.idempotency).order_by(tables.idempotency.c.cid)).all())
    assert found == [new, other]


def test_an_update_sets_what_is_named_and_no_more(store: Store) -> None:
    cid = logs.seed(store, logs.row(1), logs.row(2))
    before = logs.bucket(store, cid, 2)
    values = (-(2**63) + 1, 2, 3, 4, 5, 6, 7, 8, 2**62, True, None)
    store.write_sync(bulk.update, tables.buckets, (*SUMS, *PLACE), ("cid", "no"), [(*values, cid, 1), (*values, cid, 9)])
    found = logs.bucket(store, cid, 1)
    assert tuple(getattr(found, name) for name in (*SUMS, *PLACE)) == values
    assert found.anchor == before.anchor and logs.bucket(store, cid, 2) == before


def test_rows_are_found_by_any_number_of_keys(store: Store) -> None:
    most = bulk.KEYS_PER_QUERY
    lines = [LedgerLine(1, 1, seq, seq % 3, seq, 1, "é", "", "use", -seq, 0, None, None, None, None, None, 9) for seq in range(2 * most + 1)]
    store.write_sync(bulk.insert, tables.ledger, lines)

    def read(conn: Connection, keys: tuple[str, ...], wanted: list[tuple[int, ...]], **how: Any) -> list[Any]:
        return list(bulk.select(conn, tables.ledger, ("seq", "feature_id", "amount", "delta"), keys, wanted, **how))

    def found(conn: Connection) -> None:
        everything = [(seq, "é", None, -seq) for seq in range(2 * most + 1)]
        assert sorted(read(conn, ("seq",), [(seq,) for seq in range(5 * most)])) == everything
        assert read(conn, ("seq",), []) == []
        pairs = [(seq, 1) for seq in range(2 * most + 1)]
        assert sorted(read(conn, ("seq", "line"), pairs)) == everything[1::3]
        assert sorted(read(conn, ("seq", "line"), pairs, where="delta > -9")) == everything[1:9:3]
        locked = read(conn, ("p", "gen", "seq"), [(1, 1, seq) for seq in (7, 2, 5)], lock=True)
        assert [row[0] for row in locked] == [2, 5, 7]

    store.write_sync(found)


def test_an_error_of_reading_is_sqlalchemys(store: Store) -> None:
    with pytest.raises(DBAPIError):
        store.read_sync(lambda conn: list(bulk.select(conn, tables.ledger, ("seq",), ("seq",), [(1,)], where="nothing_of_that_name = 1")))


@pytest.mark.parametrize("change, kind", [({"cid": 2**63}, (DataError, OverflowError)), ({"seq": 1}, IntegrityError)])
def test_an_error_is_sqlalchemys_and_leaves_the_transaction_usable(store: Store, change: dict[str, Any], kind: Any) -> None:
    good = LedgerLine(1, 1, 1, 0, 5, 1, "messages", "", "use", -1, 0, None, None, None, None, None, 9)

    def write(conn: Connection) -> int:
        bulk.insert(conn, tables.ledger, [good])
        with pytest.raises(kind), conn.begin_nested():
            bulk.insert(conn, tables.ledger, [good._replace(seq=2), good._replace(**({"seq": 3} | change))])
        return len(conn.execute(select(tables.ledger.c.seq)).all())

    assert store.write_sync(write) == 1


def test_a_connection_that_was_cut_is_reported_as_such(pg_migrated_url: str) -> None:
    store = Store(pg_migrated_url)
    row = LedgerLine(1, 1, 1, 0, 5, 1, "messages", "", "use", -1, 0, None, None, None, None, None, 9)

    def cut(conn: Connection) -> None:
        pid = conn.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with store.engine.connect() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        bulk.insert(conn, tables.ledger, [row])

    try:
        with pytest.raises(DBAPIError) as caught:
            store.write_sync(cut)
        assert caught.value.connection_invalidated
        store.write_sync(bulk.insert, tables.ledger, [row])  # another connection
        assert logs.count(store, tables.ledger) == 1
    finally:
        store.close()
