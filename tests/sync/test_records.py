"""Records are read exactly or not at all."""

from __future__ import annotations

import math
import struct
from typing import Any, Callable

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sync import changes as c
from sync.fields import unpacked
from sync.records import BucketPart, Record, RecordError, Reset, SlotPart, System, decode, decode_any

from .logs import AT, NEXT, idempotency, lua, record, rollover, row

WHOLE = lua([2, 1, 7, AT, 2, "", b"", 0, 1, "messages", 1, 1, 2, 4, -1, [], b""])


def test_every_part_is_read() -> None:
    info = {
        "v": "0.50", "n": "sent", "p": {"a": [1, 2.5]}, "t": AT - 5, "k": "key", "m": "cap", "f": b"\xff", "s": "track",
        "r": [3, 9], "l": "lock",
    }
    parts = [1, -4, -2, 3, "é1", -1, 10, NEXT, -1, "credits", 1, 3, 2**31, 3]
    found = decode(record(
        7, ms=AT, version=2, entity_id="é1", info=info, resets=[(1, 5, 3, AT - 9, NEXT, AT - 1, 4)],
        uses=[("messages", 5, 4, parts), ("words", -3, -3)], rec=idempotency(7, AT + 9),
    ))
    assert (found.kind, found.cid, found.ms, found.version, found.entity_id) == (1, 7, AT, 2, "é1")
    assert (found.info.value, found.info.event_name, found.info.timestamp, found.info.key) == ("0.50", "sent", AT - 5, "key")
    assert (found.info.properties, found.info.refunded, found.info.lock_id) == ({"a": [1, 2.5]}, (3, 9), "lock")
    assert found.resets == (Reset(1, 5, 3, AT - 9, NEXT, AT - 1, 4),)
    messages, words = found.uses
    assert (messages.feature_id, messages.requested, messages.applied) == ("messages", 5, 4)
    assert messages.parts == (
        BucketPart(1, -4), SlotPart(3, "é1", -1, 10, NEXT), System("credits", 1, 3), BucketPart(2**31, 3),
    )
    assert msgpack.unpackb(messages.packed) == parts and messages.packed == lua(parts)
    assert (words.feature_id, words.requested, words.parts, words.packed) == ("words", -3, (), lua([]))
    assert found.idempotency is not None
    assert (found.idempotency.end_ms, found.idempotency.record) == (AT + 9, idempotency(7, AT + 9))


CHANGES = {
    ("+", "messages", tuple(row(4, entity_id="e"))): c.BucketAdded("messages", row(4, entity_id="e")),
    ("+", "messages", tuple(rollover(1))): c.BucketAdded("messages", rollover(1)),
    ("-", "messages", 2, -5, 5): c.BucketDropped("messages", 2, -5, 5),
    ("~", "words", 1, -1, 0, 1, 0): c.SumsChanged("words", 1, -1, 0, 1, 0),
    ("=", "messages", tuple(row(4))): c.BucketSet("messages", row(4)),
    ("r", 2**31, -3, -2): c.RolloverChanged(2**31, -3, -2),
    ("s", 1, "e", -3, NEXT, 2, 1): c.SlotSet(1, "e", -3, NEXT, 2, 1),
    ("sd", 1, "e", -3, -2): c.SlotChanged(1, "e", -3, -2),
    ("hd", 1, "", -4): c.HeldChanged(1, "", -4),
    ("h+", "lock", AT, b"\xff"): c.HoldMade("lock", AT, b"\xff"),
    ("h-", "lock", 2, -7): c.HoldSettled("lock", c.RELEASED, -7),
    ("w", "messages", "e", 3, 1, AT, NEXT, -2): c.WindowUsed("messages", "e", 3, 1, AT, NEXT, -2),
    ("c", "messages", "", b""): c.CapsSet("messages", "", b""),
    ("f", 1, 9, b"\x91\x02"): c.EventReturned(1, 9, b"\x91\x02"),
    ("o", 1, NEXT, 3): c.OverageCredited(1, NEXT, 3),
    ("z", 1, 0): c.BucketArchived(1, False),
    ("e+", "e", "seats"): c.EntityOpened("e", "seats"),
    ("e-", "f"): c.EntityClosed("f"),
    ("e!", "g", "seats"): c.EntityRefused("g", "seats"),
    ("x",): c.CustomerDeleted(),
}


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_changes_are_read_in_every_kind(kind: int) -> None:
    assert decode(record(7, kind=kind, version=1, changes=list(CHANGES))).changes == tuple(CHANGES.values())


@pytest.mark.parametrize("value", CHANGES, ids=lambda value: value[0])
def test_a_change_of_another_length_is_refused(value: tuple[Any, ...]) -> None:
    for damaged in (value[:-1], (*value, 1)):
        with pytest.raises(RecordError):
            decode(record(7, kind=3, changes=[damaged]))


def test_an_empty_lua_table_may_be_a_map() -> None:
    assert decode(lua([2, 1, 7, AT, 0, "", b"", 0, 1, "messages", 0, 0, 0, {}, b""])).changes == ()


def test_a_call_may_have_no_value() -> None:
    assert decode(record(7, info={"n": "x"})).info.value is None


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
    b"", b"\xc1", b"\x93\x01\x01", lua({}), lua([]), lua([1, *msgpack.unpackb(WHOLE, raw=True)[1:]]), WHOLE + b"\x00",
    record(7, kind=4, uses=[]), record(-1), record(7, uses=[]), record(7, kind=2), record(7, resets=[(1, 2.5, 0, 0, 1)]),
    record(7, kind=2, resets=[(1, 1, 0, 1, 2)], uses=[("m", 1, 1)]), record(7, resets=[(1, 1, 0, 1, 2, 1, -1)]),
    record(7, changes=[("?",)]), record(7, changes=[("h-", "l", 4, 0)]), record(7, changes=[("z", 1, 2)]),
    record(7, changes=[("w", "m", "", 3, 2, 0, 1, 1)]), record(7, changes=[("o", 1, NEXT, -1)]),
    record(7, kind=3, changes=[("+", "messages", [1, 2])]), record(7, kind=3, changes=[("=", "messages", [1, 2])]),
    record(7, rec=idempotency(7, AT)), record(7, info={"k": "a"}, rec=idempotency(8, AT)),
    record(7, info={"k": "a"}, rec=b"\x01"), record(7, info={"t": "x"}), record(7, info={"v": 1}), record(7, info={"p": 1}),
    record(7, info={"r": 1}), record(7, info={"r": [1]}), record(7, info={"r": [1, 2, 3]}), record(7, info={"l": 1}),
    lua([2, 1, 7, AT, 0, b"\xff", b"", 0, 1, "m", 0, 0, 0, [], b""]), lua([2, 1, 7, AT, 0, "", b"", 10**9, 0]),
    lua([2, 1, True, AT, 0, "", b"", 0, 1, "m", 0, 0, 0, [], b""]), record(2**63), record(7, deltas=[(1, 2**63)]),
    lua([2, 1, 7, AT, 0, "", b"\x01", 0, 1, "m", 0, 0, 0, [], b""]), lua([2, 1, 7, AT, 0, 5, b"", 0, 1, "m", 0, 0, 0, [], b""]),
    *(record(7, uses=[("m", 1, 1, parts)]) for parts in (
        [1], [1, -1, 2], [-3, 1], [-1, "s", 1], [-1, "s", 1, 0], [-1, 1, 1, 1], [-2, 1, "e", 1, 1], [1, "x"], [1.5, 1],
    )),
    lua([2, 1, 7, AT, 2, "", b"", 0, 1, "messages", 1, 1, 9, 4, -1, [], b""]),
    lua([2, 1, 7, AT, 2, "", b"", 0, 1, "messages", 1, 1, 1, 4, -1, [], b""]),
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


def directly(cid: int, ms: int, *rest: Any) -> bytes:
    """A record as the scripts write the common one: all numbers at their full width."""
    head = struct.pack(">BI", 0xDD, 4 + len(rest)) + b"\2\1" + struct.pack(">BqBq", 0xD3, cid, 0xD3, ms)
    return head + b"".join(map(lua, rest[:-1])) + struct.pack(">BI", 0xDB, len(rest[-1])) + rest[-1]


@pytest.mark.parametrize("rest", [
    (1, b"", msgpack.packb({"v": "1", "s": "track"}), 0, 1, b"calls", 5, 5, 2, 1, -5, [], b""),
    (1, b"seat", msgpack.packb({"k": "key"}), 0, 1, b"calls", 5, 4, 4, 1, -3, 2, -1, [], idempotency(7, AT)),
    (1, b"", b"", 0, 1, b"calls", 5, 0, 0, [], b""),
    (1, b"", b"", 0, 0, [], b""),
    (1, b"", b"", 0, 1, b"calls", 5, 5, 2, 1, -5, [["z", 1, 1]], b""),
    (1, b"", b"", 0, 1, b"calls", 5, 5, 3, 1, -5, [], b""),
    (1, b"", b"\x01", 0, 1, b"calls", 5, 5, 2, 1, -5, [], b""),
    (1, b"", b"x" * 200, 0, 1, b"calls", 5, 5, 2, 1, -5, [], b""),
])
def test_a_record_like_another_is_read_for_itself(rest: tuple[Any, ...]) -> None:
    """Whoever came before: another customer, another time, or something cut short."""
    for cid, ms in (7, AT), (8, AT + 1), (2**63 - 1, 2**63 - 1), (-1, AT), (7, -1), (7, AT):
        data = directly(cid, ms, *rest)
        for one in (data, data[:-1], data + b"\0", b"\xdd\0\0\0\x10" + data[5:], data[:5] + b"\1" + data[6:], data[:6] + b"\3" + data[7:]):
            assert either(decode, one) == either(lambda packed: decode_any(unpacked(packed)), one)


def either(read: Callable[[bytes], Record], data: bytes) -> Record | None:
    """The record, None where it is refused."""
    try:
        return read(data)
    except RecordError:
        return None


WHOLE_NUMBERS = st.sampled_from([-(2**63), 1 - 2**63, -3, -2, -1, 0, 1, 2, 7, 100, 2**31, AT, 2**63 - 1, 2**63, 2**64 - 1])
TEXTS = st.sampled_from([b"", b"messages", b"credits", "é1".encode(), b"\xff", b"\0"])
ODD = st.one_of(WHOLE_NUMBERS, TEXTS, st.sampled_from([None, True, False, 1.0, 2.5, [], {}, [1], {1: 2}]))
PARTS = st.lists(st.one_of(
    st.tuples(st.integers(0, 2**33), st.integers(-(10**12), 10**12)),
    st.tuples(st.just(-1), TEXTS, st.integers(0, 9), st.integers(0, 9)),
    st.tuples(st.just(-2), st.integers(0, 9), TEXTS, st.integers(-9, 9), st.integers(-1, 9), st.just(NEXT)),
    st.tuples(ODD, ODD),
), max_size=4).map(lambda parts: [element for part in parts for element in part])
INFOS = st.one_of(
    st.just(b""), st.just(b"\x01"),
    st.fixed_dictionaries({}, optional={
        "v": st.sampled_from(["1", "0.50", "", 1, None]), "n": st.sampled_from(["sent", "é", b"x"]),
        "p": st.sampled_from([{}, {"a": [1, 2.5]}, None, 1, {"b": b"\xff"}]), "t": st.sampled_from([0, -5, AT, 2**63, "x", True]),
        "k": st.sampled_from(["key", None, 1]), "r": st.sampled_from([[1, 9], [1], None, 1]), "l": st.sampled_from(["lock", 1]),
        "s": st.just("track"), "f": st.just(b"\xff"),
    }).map(msgpack.packb),
)


@example(b"", [1, -(2**63)], b"", b"m", b"", [])
@example(b"", [], b"", b"m", b"", [("replace", 10, -(2**63))])
@given(
    INFOS, PARTS, TEXTS, TEXTS, st.sampled_from([b"", idempotency(7, AT), idempotency(8, AT), b"\x01"]),
    st.lists(st.tuples(st.sampled_from(["replace", "insert", "remove"]), st.integers(0, 30), ODD), max_size=2),
)
def test_the_usual_way_reads_what_the_general_one_does(
    info: bytes, parts: list[Any], entity_id: bytes, feature_id: bytes, rec: bytes, damage: list[tuple[str, int, Any]],
) -> None:
    """Of whole records and of damaged ones."""
    items = [2, 1, 7, AT, 3, entity_id, info, 0, 1, feature_id, 5, 4, len(parts), *parts, [], rec]
    for what, at, value in damage:
        at %= len(items)
        items[at : at + (what != "insert")] = [] if what == "remove" else [value]
    data = lua(items)
    found = either(decode, data)
    assert found == either(lambda packed: decode_any(unpacked(packed)), data)
    if found is not None:
        assert [type(value) for value in found] == [type(value) for value in decode_any(unpacked(data))]
