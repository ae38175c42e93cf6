"""Records are read exactly or not at all."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.records import (
    BucketAdded,
    BucketDropped,
    CustomerDeleted,
    Delta,
    EntityClosed,
    EntityOpened,
    EntityRefused,
    RecordError,
    Reset,
    SlotDelta,
    SumsChanged,
    Use,
    decode,
)

from .logs import AT, NEXT, idempotency, lua, record, row

WHOLE = lua([1, 1, 7, AT, 2, "", b"", 0, 1, "messages", 1, 1, 1, 4, -1, 0, [], b""])


def test_every_part_is_read() -> None:
    info = {"v": "0.50", "n": "sent", "p": {"a": [1, 2.5]}, "t": AT - 5, "k": "key", "m": "cap", "f": b"\xff", "s": "track"}
    found = decode(record(
        7, ms=AT, version=2, entity_id="é1", info=info, resets=[(1, 5, 3, AT - 1, NEXT)],
        uses=[("messages", 5, 4), ("words", -3, -3)], deltas=[(1, -4), (2, 3)], slots=[(3, "é1", -1, 10, NEXT)],
        rec=idempotency(7, AT + 9),
    ))
    assert (found.kind, found.cid, found.ms, found.version, found.entity_id) == (1, 7, AT, 2, "é1")
    assert (found.info.value, found.info.event_name, found.info.timestamp, found.info.key) == ("0.50", "sent", AT - 5, "key")
    assert found.info.properties == {"a": [1, 2.5]}
    assert found.resets == (Reset(1, 5, 3, AT - 1, NEXT),)
    assert found.uses == (Use("messages", 5, 4), Use("words", -3, -3))
    assert found.deltas == (Delta(1, -4), Delta(2, 3))
    assert found.slots == (SlotDelta(3, "é1", -1, 10, NEXT),)
    assert found.idempotency is not None
    assert (found.idempotency.end_ms, found.idempotency.record) == (AT + 9, idempotency(7, AT + 9))


def test_changes_of_a_step_are_read() -> None:
    found = decode(record(7, kind=3, version=1, changes=[
        ("+", "messages", list(row(4, entity_id="e"))), ("-", "messages", 2, -5, 5), ("~", "words", 1, -1, 0, 1, 0),
        ("e+", "e", "seats"), ("e-", "f"), ("e!", "g", "seats"), ("x",),
    ]))
    assert found.changes == (
        BucketAdded("messages", row(4, entity_id="e")), BucketDropped("messages", 2, -5, 5),
        SumsChanged("words", 1, -1, 0, 1, 0), EntityOpened("e", "seats"), EntityClosed("f"), EntityRefused("g", "seats"),
        CustomerDeleted(),
    )


def test_an_empty_lua_table_may_be_a_map() -> None:
    assert decode(lua([1, 1, 7, AT, 0, "", b"", 0, 1, "messages", 0, 0, 0, 0, {}, b""])).changes == ()


def test_a_call_without_a_value_is_one() -> None:
    assert decode(record(7, info={"n": "x"})).info.value == "1"


def test_properties_become_what_json_can_say() -> None:
    deep: Any = "end"
    for _ in range(200):
        deep = [deep]
    properties = {"nan": math.nan, "inf": -math.inf, "raw": b"\xff", "deep": deep, "n": 10**18, "when": msgpack.Timestamp(1)}
    found = decode(record(7, info={"p": properties})).info.properties
    assert found is not None
    assert (found["nan"], found["inf"], found["n"]) == (None, None, 10**18)
    assert isinstance(found["raw"], str) and isinstance(found["when"], str) and isinstance(found["deep"], list)


@pytest.mark.parametrize("data", [
    b"", b"\xc1", b"\x93\x01\x01", lua({}), lua([]), lua([2, *msgpack.unpackb(WHOLE, raw=True)[1:]]), WHOLE + b"\x00",
    record(7, kind=4, uses=[]), record(-1), record(7, uses=[]), record(7, kind=2), record(7, resets=[(1, 2.5, 0, 0, 1)]),
    record(7, kind=2, resets=[(1, 1, 0, 1, 2)], deltas=[(1, 1)]), record(7, changes=[("x",)]),
    record(7, kind=3, changes=[("?",)]), record(7, kind=3, changes=[("x", 1)]), record(7, kind=3, changes=[("e-",)]),
    record(7, kind=3, changes=[("+", "messages", [1, 2])]),
    record(7, rec=idempotency(7, AT)), record(7, info={"k": "a"}, rec=idempotency(8, AT)),
    record(7, info={"k": "a"}, rec=b"\x01"), record(7, info={"t": "x"}), record(7, info={"v": 1}), record(7, info={"p": 1}),
    lua([1, 1, 7, AT, 0, b"\xff", b"", 0, 1, "m", 0, 0, 0, 0, [], b""]), lua([1, 1, 7, AT, 0, "", b"", 10**9, 0]),
    lua([1, 1, True, AT, 0, "", b"", 0, 1, "m", 0, 0, 0, 0, [], b""]), record(2**63), record(7, deltas=[(1, 2**63)]),
    lua([1, 1, 7, AT, 0, "", b"\x01", 0, 1, "m", 0, 0, 0, 0, [], b""]), lua([1, 1, 7, AT, 0, 5, b"", 0, 1, "m", 0, 0, 0, 0, [], b""]),
])  # fmt: skip
def test_what_is_not_a_record_is_refused(data: bytes) -> None:
    with pytest.raises(RecordError):
        decode(data)


@given(st.data())
def test_no_damage_raises_anything_else(data: st.DataObject) -> None:
    whole = bytearray(record(7, kind=3, version=1, deltas=[(1, 2)], uses=[("m", 1, 1)], changes=[("+", "m", list(row()))]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:cut])):
        try:
            decode(damaged)
        except RecordError:
            pass
