"""One layout on both sides: what rows.lua calls a column is what layout.py packs there."""

from __future__ import annotations

import re
import struct
from typing import Any

import pytest
import redis

from sidecar.domain import layout
from sidecar.domain.intervals import LIFETIME, YEAR, length_ms
from sidecar.domain.layout import Row, Slot
from sidecar.domain.quantities import QUANTITY_MAX
from tests.lua.source import LUA, included, without_comments

IN_LUA = {"B": "B", "H": "I2", "I": "I4", "q": "i8"}
COLUMNS = {
    "BALANCE": "balance", "GRANTED": "granted", "FLAGS": "flags", "PURCHASABLE": "purchasable", "NEXT_RESET": "next_reset_at",
    "EXPIRES": "expires_at", "ANCHOR": "anchor", "INTERVAL": "interval", "INTERVAL_COUNT": "interval_count", "ENTITY": "entity_id",
    "PREPAID": "prepaid", "CREATED": "created_at", "SLOTS": "slots", "OVER": "over", "ENTITY_FEATURE": "entity_feature",
    "PLAN": "plan_id", "ITEM": "item", "PARENT": "parent", "ROLL_LENGTH": "roll_length", "ROLL_MAX": "roll_max", "ROLL_PERCENT": "roll_percent",
    "RESET_AT": "reset_at", "RESET_OVER": "reset_over", "HELD": "held",
}
FLAGS = ("UNLIMITED", "USAGE_ALLOWED", "CONTINUOUS", "ADD_ON", "PER_ENTITY", "BOOLEAN", "PAID", "ROLLOVER", "DEAD", "CAPS", "LOADING")


@pytest.fixture(scope="module")
def constants() -> dict[str, Any]:
    """Every constant of formats.lua and rows.lua."""
    found: dict[str, Any] = {}
    for name in ("formats", "rows"):
        source = without_comments((LUA / "include" / f"{name}.lua").read_text())
        for names, values in re.findall(r"^local ([A-Z][A-Z_, ]*) = ([^\n{]+)$", source, re.MULTILINE):
            for constant, value in zip(names.split(", "), values.split(", "), strict=True):
                assert constant not in found, f"{constant} is set twice"
                found[constant] = value.strip("'") if value.startswith("'") else int(value)
    return found


def test_columns_are_at_the_same_place(constants: dict[str, Any]) -> None:
    for constant, column in COLUMNS.items():
        assert constants[constant] == Row._fields.index(column), constant
    assert constants["ROW_WIDTH"] == layout.ROW_WIDTH == len(Row._fields)
    assert constants["SLOT_WIDTH"] == layout.SLOT_WIDTH == len(Slot._fields)
    assert (constants["SLOT_GRANTED"], constants["SLOT_HELD"]) == (Slot._fields.index("granted"), Slot._fields.index("held"))
    assert constants["PERIOD"] == Slot._fields.index("period") and Slot._fields.index("balance") == constants["BALANCE"]
    assert Row._fields[0] == Slot._fields[0] == "no"


def test_flags_and_bounds_are_the_same(constants: dict[str, Any]) -> None:
    for flag in FLAGS:
        assert constants[flag] == getattr(layout, flag), flag
    assert constants["FORMAT"] == layout.FORMAT
    assert constants["MAX"] == QUANTITY_MAX
    assert constants["USED_HIGH_UNIT"] == layout.USED_HIGH_UNIT


def test_every_constant_is_known_here(constants: dict[str, Any]) -> None:
    known = {
        *COLUMNS, *FLAGS, "FORMAT", "MAX", "USED_HIGH_UNIT", "ROW_WIDTH", "SLOT_WIDTH", "PERIOD", "COUNTS", "HOT", "SLOT", "HEADER",
        "SLOT_GRANTED", "SLOT_HELD", "ABSENT", "HOT_WIDTH", "COUNTS_SIZE", "HOT_SIZE", "BALANCE_AT", "BALANCE_SIZE", "PACKED_MAX",
        "COUNTS_HEAD", "HOT_PARTS", "HOT_FLAGS", "FLAGS_AT", "HEADER_PARTS", "CID_AT", "HEADER_END", "LAST_MS_AT", "HEADER_AGAIN",
        "FIRST_BALANCE", "RECEIPT", "RECORD_MORE", "LEDGER", "LEDGER_HEAD", "LEDGER_COUNTS", "OLDER_AT", "WINDOWS", "LEDGER_SIZE",
    }
    assert set(constants) == known, "a new constant needs its comparison"


def test_packed_forms_are_the_same(constants: dict[str, Any]) -> None:
    for name in ("COUNTS", "HOT", "SLOT", "HEADER"):
        form: struct.Struct = getattr(layout, name)
        assert constants[name] == ">" + "".join(IN_LUA[letter] for letter in form.format[1:]), name
    assert constants["HOT_WIDTH"] == layout.HOT_WIDTH == len(layout.HOT.format) - 1
    assert (constants["COUNTS_SIZE"], constants["HOT_SIZE"]) == (layout.COUNTS.size, layout.HOT.size)
    assert constants["COUNTS"].startswith(constants["COUNTS_HEAD"])
    assert constants["HOT"].replace("I4", "c4", 1) == constants["HOT_PARTS"]
    assert constants["HOT"][: -len("i8")].endswith(constants["HOT_FLAGS"][1:])
    assert constants["FLAGS_AT"] == constants["HOT_SIZE"] - _size(constants["HOT_FLAGS"]) - 8
    # The header: cid, version's lower half and all that follows; the time of the last call and the flags; all but
    # the log's entry, the time and the flags as it was.
    assert constants["CID_AT"] == 1 + struct.calcsize(">B") and constants["HEADER_PARTS"] == ">c8I4c4i8i8i8Bc4"
    assert _size(constants["HEADER_PARTS"]) == layout.HEADER.size - struct.calcsize(">B")
    assert constants["LAST_MS_AT"] == 1 + struct.calcsize(">Bqqqq") and constants["HEADER_END"] == ">i8B"
    assert constants["HEADER_AGAIN"] == f">c{struct.calcsize('>Bqq')}i8i8i8Bc4"
    assert _size(constants["HEADER_AGAIN"]) == layout.HEADER.size
    before_balance = struct.Struct(layout.HOT.format[: 1 + Row._fields.index("balance")])
    assert (constants["BALANCE_AT"], constants["BALANCE_SIZE"]) == (before_balance.size, 8)
    assert constants["FIRST_BALANCE"] == f">c{constants['COUNTS_SIZE'] + constants['BALANCE_AT']}i8"
    assert constants["LEDGER"].startswith(constants["LEDGER_HEAD"]) and constants["OLDER_AT"] == 1 + _size(constants["LEDGER_HEAD"])
    assert constants["LEDGER_HEAD"] == ">Bi8" + constants["LEDGER_COUNTS"].removeprefix(">c9")
    assert constants["LEDGER_SIZE"] == _size(constants["LEDGER"]) == _size(constants["LEDGER_HEAD"]) + 8 * (constants["WINDOWS"] - 1)


def _size(form: str) -> int:
    """The size of what a format of Lua's struct packs."""
    return sum(int(size or 1) for size in re.findall(r"[BIic](\d*)", form))


def test_numbers_written_out_in_the_direct_way_are_the_flags() -> None:
    source = without_comments((LUA / "include" / "direct.lua").read_text())
    assert "flags % 2 > 0 or flags % 128 > 31" in source
    for flags in range(512):
        special = flags & (layout.UNLIMITED | layout.PER_ENTITY | layout.BOOLEAN)
        assert (flags % 2 > 0 or flags % 128 > 31) == bool(special)
    assert {int(n) for n in re.findall(r"\b\d{10,}\b", source)} <= {QUANTITY_MAX}


ROWS = [
    Row(1, -5, 10, 2, -1, 1_900_000_000_000, 0, 1_800_000_000_000, 5, 1, "", "pro", 3, 2001, 1_800_000_000_000, 0, 0, ""),
    Row(2**32 - 1, QUANTITY_MAX, -QUANTITY_MAX, 255, QUANTITY_MAX, QUANTITY_MAX, QUANTITY_MAX, 1, 8, 100, "e\u00e9", "p\u20ac", QUANTITY_MAX,
        QUANTITY_MAX, 1, 10_000, QUANTITY_MAX, "seats"),
]
SLOTS = [Slot(1, -QUANTITY_MAX, 0), Slot(2**32 - 1, QUANTITY_MAX, 1_900_000_000_000)]


def lua(client: redis.Redis, *includes: str, then: str, args: tuple[Any, ...]) -> Any:
    """Runs lines of Lua after some includes."""
    return client.eval("\n".join(map(included, includes)) + "\n" + then, 0, *args)


@pytest.mark.parametrize("rows", [[], ROWS[:1], ROWS, ROWS * 40], ids=len)
@pytest.mark.parametrize("slots", [[], SLOTS, SLOTS * 700], ids=len)
def test_what_one_side_packs_the_other_unpacks(client: redis.Redis, rows: list[Row], slots: list[Slot]) -> None:
    packed = layout.pack(rows, slots)
    again = lua(client, "rows", then="return pack_blob(unpack_blob(ARGV[1]))", args=(packed,))
    assert layout.unpack(again) == layout.Blob(tuple(rows), tuple(slots))
    columns = lua(client, "rows", then="return unpack_blob(ARGV[1])", args=(packed,))
    flat = [layout.FORMAT, len(rows), *(c for row in rows for c in row), len(slots), *(c for slot in slots for c in slot)]
    assert columns == [part.encode() if isinstance(part, str) else part for part in flat]


@pytest.mark.parametrize("header", [layout.Header(1, 0, 0, -1, 0), layout.Header(QUANTITY_MAX, 5, 9, QUANTITY_MAX, QUANTITY_MAX, True)], ids=str)
def test_headers_are_the_same(client: redis.Redis, header: layout.Header) -> None:
    packed = layout.pack_header(header)
    assert lua(client, "rows", then="return pack_header(unpack_header(ARGV[1]))", args=(packed,)) == packed
    assert layout.unpack_header(packed) == header


def test_another_format_is_refused_on_both_sides(client: redis.Redis) -> None:
    packed = bytes([layout.FORMAT + 1]) + layout.pack(ROWS)[1:]
    with pytest.raises(ValueError, match="format"):
        layout.unpack(packed)
    with pytest.raises(redis.ResponseError, match="format"):
        lua(client, "rows", then="return unpack_blob(ARGV[1])", args=(packed,))


def test_lengths_of_intervals_order_alike(client: redis.Redis) -> None:
    codes = list(range(LIFETIME, YEAR + 1))
    lengths = lua(client, "rows", "order", then="local r = {} for i = 0, 8 do r[i + 1] = LENGTH_MS[i] end return r", args=())
    assert lengths == [length_ms(code, 1) for code in codes]
