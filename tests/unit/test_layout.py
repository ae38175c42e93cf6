"""Guarantee: Python and the scripts read packed buckets by the same numbers and in the same order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar.domain import layout
from sidecar.domain.layout import Row, Slot

INCLUDES = Path(__file__).parents[2] / "lua/include"
COLUMNS = {  # what rows.lua calls a column, and what layout.Row does
    "BALANCE": "balance", "GRANTED": "granted", "FLAGS": "flags", "PURCHASABLE": "purchasable",
    "NEXT_RESET": "next_reset_at", "EXPIRES": "expires_at", "ANCHOR": "anchor", "INTERVAL": "interval",
    "INTERVAL_COUNT": "interval_count", "ENTITY": "entity_id", "PREPAID": "prepaid", "CREATED": "created_at",
    "SLOTS": "slots", "OVER": "over", "ENTITY_FEATURE": "entity_feature",
}


@pytest.fixture(scope="module")
def in_lua() -> dict[str, int]:
    """Every number that rows.lua and formats.lua name."""
    named: dict[str, int] = {}
    text = (INCLUDES / "rows.lua").read_text() + (INCLUDES / "formats.lua").read_text()
    for names, values in re.findall(r"^local ([A-Z_, ]+) = ([\d, ]+)$", text, re.M):
        named |= dict(zip(names.split(", "), map(int, values.split(", ")), strict=True))
    return named


def test_columns_are_the_same(in_lua):
    assert {name: in_lua[name] for name in COLUMNS} == {name: Row._fields.index(of) for name, of in COLUMNS.items()}
    assert (in_lua["ROW_WIDTH"], in_lua["SLOT_WIDTH"]) == (layout.ROW_WIDTH, layout.SLOT_WIDTH)
    assert (len(Row._fields), len(Slot._fields)) == (layout.ROW_WIDTH, layout.SLOT_WIDTH)
    assert in_lua["PERIOD"] == Slot._fields.index("period")


def test_packed_forms_are_the_same(in_lua):
    """Lua's struct and Python's name the same types differently."""
    found = re.search(r"^local COUNTS, HOT, SLOT, HEADER = (.+)$", (INCLUDES / "formats.lua").read_text(), re.M)
    assert found is not None
    types = {"B": "B", "I2": "H", "I4": "I", "i8": "q"}
    lua = [">" + "".join(types[t] for t in re.findall(r"[BIi]\d?", form)) for form in found[1].split(", ")]
    assert lua == [form.format for form in (layout.COUNTS, layout.HOT, layout.SLOT, layout.HEADER)]
    assert (in_lua["COUNTS_SIZE"], in_lua["HOT_SIZE"]) == (layout.COUNTS.size, layout.HOT.size)
    assert in_lua["HOT_WIDTH"] == layout.HOT_WIDTH == len(layout.HOT.unpack(bytes(layout.HOT.size)))
    assert (in_lua["BALANCE_AT"], in_lua["BALANCE_SIZE"]) == (4, 8)


def test_a_header_comes_back():
    header = layout.Header(7, 3, 1, 2**53, 1_767_225_600_000, layout.DEAD | layout.CAPS, layout.ROLLOVER_NO_MIN + 5)
    assert layout.unpack_header(layout.pack_header(header)) == header
    with pytest.raises(ValueError, match="46 bytes in format 9"):
        layout.unpack_header(b"\x09" + layout.pack_header(header)[1:])


def test_flags_and_limits_are_the_same(in_lua):
    flags = ("UNLIMITED", "USAGE_ALLOWED", "CONTINUOUS", "ADD_ON", "PER_ENTITY", "BOOLEAN", "PAID")
    assert {flag: in_lua[flag] for flag in flags} == {flag: getattr(layout, flag) for flag in flags}
    assert in_lua["FORMAT"] == layout.FORMAT and in_lua["USED_HIGH_UNIT"] == layout.USED_HIGH_UNIT
    assert in_lua["MAX"] == 2**53 - 1


def row(no: int = 1, **columns) -> Row:
    blank = dict.fromkeys(Row._fields, 0) | {"entity_id": "", "plan_id": "", "entity_feature": "", "purchasable": -1}
    return Row(**blank | {"no": no} | columns)


def test_what_is_packed_comes_back():
    rows = (row(1, balance=-(2**53 - 1), entity_feature="seats"), row(2, plan_id="pro", created_at=1_767_225_600_000))
    slots = (Slot(1, -5, 7), Slot(2, 2**53 - 1, 0))
    assert layout.unpack(layout.pack(rows, slots)) == layout.Blob(rows, slots)
    assert layout.unpack(layout.pack([])) == layout.Blob()


def test_a_format_of_another_release_is_refused():
    with pytest.raises(ValueError, match="format 9, this release reads 2"):
        layout.unpack(layout.COUNTS.pack(9, 0, 0, 0, 0, 0))
    with pytest.raises(ValueError, match="damaged"):
        layout.unpack(layout.pack([row(1)])[:20])


def test_usage_of_an_unlimited_bucket_has_two_parts():
    assert layout.used(row(flags=layout.UNLIMITED, granted=2, balance=-5)) == 2 * 2**52 + 5
    assert layout.used(row(granted=10, balance=-3)) == 13
    assert layout.used(row(flags=layout.PER_ENTITY, granted=10, slots=3, balance=12)) == 18


def test_rows_sort_into_spending_order():
    """Each row is before the next by one criterion, which beats all those after it."""
    month, year, day = 5, 8, 3
    later = {"created_at": 9}
    in_order = [
        row(9, flags=layout.UNLIMITED, **later),
        row(8, interval=day, interval_count=2, **later),
        row(7, interval=month, interval_count=1, expires_at=50, **later),
        row(6, interval=month, interval_count=1, **later),
        row(5, interval=month, interval_count=1, flags=layout.USAGE_ALLOWED, **later),
        row(4, interval=month, interval_count=1, flags=layout.ADD_ON, created_at=3),
        row(3, interval=year, interval_count=1),
        row(2, expires_at=10, **later),
        row(1, created_at=1),
        row(12, created_at=1),
    ]
    assert sorted(reversed(in_order), key=layout.spending_key) == in_order
