"""In Lua a quantity becomes text only as an argument of a command: `tostring`, `..`, `table.concat`
and `cjson` keep 14 digits and are wrong from 10^14 on.

A join is allowed where both sides are known to be strings: ids (include/keys.lua and ids.lua),
literals, and packed bytes.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import redis

from tests.lua.source import FILES, INCLUDES, without_comments

FORBIDDEN = re.compile(r"\btostring\b|\btable\.concat\b|\bcjson\b|\bloadstring\b|\bstring\.gsub\b")
STRING_CALLS = {"string.sub", "sub", "string.rep", "string.char", "struct.pack", "pack", "cmsgpack.pack", "pack_columns", "entity_member"}
"""Functions whose result is a string made of no number's text."""
STRING_NAMES = {"packed", "parts", "receipt", "reply", "fingerprint", "id", "of_feature", "generation"}
"""What is packed, as are all names that begin with `packed_`, and ids of log entries."""

OF_IDS = ("keys", "ids")
"""Includes that join what they are given, which the tests below hold to be ids."""

each_file = pytest.mark.parametrize("path", [*FILES, *INCLUDES], ids=lambda path: path.stem)


def unsafe_joins(source: str) -> list[str]:
    """The joins of which a side may be a number."""
    found = []
    source = re.sub(r"error\('[^']*' \.\. \w+\)", "error('')", source)  # a message for people
    for join in re.finditer(r"\s*\.\.\s*", source):
        if source[join.start() - 1] == "." or source[join.end() : join.end() + 1] == ".":
            continue  # the dots of varargs
        left, right = source[: join.start()], source[join.end() :]
        if not (_ends_in_string(left) and _begins_with_string(right)):
            found.append(source[max(0, join.start() - 40) : join.end() + 40])
    return found


def _ends_in_string(text: str) -> bool:
    if text.endswith("'") or re.search(r"ARGV\[\d+\]$", text):  # arguments are strings
        return True
    if not text.endswith(")"):
        name = re.search(r"(\w+)$", text)
        return name is not None and _is_string(name[1])
    depth = 0
    for at in range(len(text) - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(text[at], 0)
        if depth == 0:
            callee = re.search(r"([\w.]*)$", text[:at])[1]  # type: ignore[index]
            return callee in STRING_CALLS or callee == "" and _only_strings(text[at + 1 : -1])
    return False


def _begins_with_string(text: str) -> bool:
    if text.startswith("'"):
        return True
    if text.startswith("("):
        return _only_strings(text[1 : text.index("''") + 2])
    if re.match(r"ARGV\[\d+\]", text):
        return True
    name = re.match(r"([\w.]*)", text)[1]  # type: ignore[index]
    return name in STRING_CALLS or _is_string(name)


def _is_string(name: str) -> bool:
    return name in STRING_NAMES or name.startswith("packed_")


def _only_strings(text: str) -> bool:
    """`condition and string or string`."""
    sides = re.fullmatch(r"[^,]+ and (.+) or (''|'[^']*')", text, re.DOTALL)
    return bool(sides) and _begins_with_string(sides[1])  # type: ignore[index]


@each_file
def test_nothing_makes_text_of_a_quantity(path: Path) -> None:
    source = without_comments(path.read_text())
    assert not FORBIDDEN.search(without_comments(path.read_text(), blank_strings=True))
    for use in re.findall(r"string\.format\(([^,]+),", source) + re.findall(r":format\(", source):
        assert use == "'%d'", f"string.format({use}"
    if path.stem not in OF_IDS:
        assert unsafe_joins(source) == []


@pytest.mark.parametrize("path", [path for path in INCLUDES if path.stem in OF_IDS], ids=lambda path: path.stem)
def test_ids_are_joined_from_ids_alone(path: Path) -> None:
    """keys.lua and ids.lua join nothing but literals and what their functions are given."""
    for line in without_comments(path.read_text()).splitlines():
        if ".." not in line:
            continue
        function = re.fullmatch(r"local function \w+\(([\w, ]+)\) return (.+) end", line)
        assert function, line
        for operand in re.split(r" \.\. ", function[2]):
            assert operand.startswith("'") or operand in function[1].split(", "), line


@each_file
def test_ids_of_entries_are_made_of_text(path: Path) -> None:
    """Callers of ids.lua give the texts they were given, or a number by %d."""
    for call in re.findall(r"\b(?:entry_id|after_id|log_id)\(((?:[^()]|\([^()]*\))*)\)", without_comments(path.read_text())):
        for argument in re.split(r", (?![^(]*\))", call):
            assert re.fullmatch(r"ARGV\[\d+\]|string\.format\('%d', .*\)|generation|seq", argument), call


@pytest.mark.parametrize(
    "line",
    ["redis.call('SET', k, '' .. balance)", "local t = balance .. 'x'", "x = 'a' .. math.floor(n)", "x = tonumber(a) .. 'b'",
     "s = s .. string.rep('x', n)", "x = row[1] .. 'units'"],
)
def test_the_search_finds_what_it_is_for(line: str) -> None:
    assert unsafe_joins(line) != []


@pytest.mark.parametrize("line", ["local function f(...) return ... end", "x = string.sub(a, 1, 2) .. struct.pack('>i8', n)"])
def test_and_leaves_alone_what_is_fine(line: str) -> None:
    assert unsafe_joins(line) == []


def test_why(client: redis.Redis) -> None:
    """What the rule is about, measured: fifteen digits come out as fourteen; %d is exact."""
    largest = 2**53 - 1
    assert client.eval("return tonumber(ARGV[1]) .. ''", 0, largest) != b"%d" % largest
    assert client.eval("return tostring(tonumber(ARGV[1]))", 0, largest) != b"%d" % largest
    assert client.eval("return string.format('%d', tonumber(ARGV[1]))", 0, largest) == b"%d" % largest
    client.eval("redis.call('SET', KEYS[1], tonumber(ARGV[1]), 'EX', 5)", 1, "k", largest)
    assert client.get("k") == b"%d" % largest, "as an argument of a command it is exact"
