"""The Lua scripts: reading them from lua/, resolving includes, and what each takes.

`SCRIPTS` is the Python side of every script's header: names of keys and arguments in order. A test
parses the headers and compares. A script's hash is computed here, so that what Redis runs is what
this release ships.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_INCLUDE = re.compile(r'^--- @include "([a-z_]+)"$')


class IncludeError(ValueError):
    """A script includes a file that is missing, or that includes itself."""


def lua_dir() -> Path:
    """Where the scripts are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "lua"
    return inside if inside.is_dir() else package.parent / "lua"


def resolve(path: Path) -> str:
    """The text of a script with every include in its place, each once.

    Raises IncludeError for a missing file and for a circle."""
    seen: set[Path] = set()

    def expand(file: Path, above: tuple[Path, ...]) -> list[str]:
        if file in above:
            raise IncludeError(f"{file.name} includes itself by way of {above[-1].name}")
        if not file.is_file():
            raise IncludeError(f"{above[-1].name if above else 'nothing'} includes {file.name}, which does not exist")
        lines: list[str] = []
        for line in file.read_text().splitlines():
            match = _INCLUDE.match(line)
            if not match:
                lines.append(line)
                continue
            included = path.parent / "include" / f"{match[1]}.lua"
            if included not in seen or included in (*above, file):
                lines.extend(expand(included, (*above, file)))
                seen.add(included)
        return lines

    return "\n".join(expand(path, ())) + "\n"


_CONSTANTS = re.compile(r"^local ([A-Z][A-Z0-9_]*(?:, [A-Z][A-Z0-9_]*)*) = ((?:-?[0-9]+|'[^']*')(?:, (?:-?[0-9]+|'[^']*'))*)$", re.MULTILINE)
_WORDS = re.compile(r"'(?:\\.|[^'\\])*'|\b[A-Z][A-Z0-9_]*\b")


_SMALL_FUNCTION = re.compile(r"^local function (\w+)\([^)]*\) return .* end\n", re.MULTILINE)


def build(path: Path) -> str:
    """The text of a script that Redis runs: includes in their place, constants written out and
    one-line functions left out where nobody calls them (a script may have 200 locals), and without
    what says nothing to Redis."""
    text = re.sub(r"\A--\[\[.*?--\]\]\n", "", resolve(path), flags=re.DOTALL)
    text = "\n".join(line for line in text.splitlines() if line.strip() and not re.match(r"\s*--", line)) + "\n"
    constants: dict[str, str] = {}
    for names, values in _CONSTANTS.findall(text):
        constants.update(zip(names.split(", "), re.findall(r"'[^']*'|-?[0-9]+", values), strict=True))
    text = _WORDS.sub(lambda word: constants.get(word[0], word[0]), _CONSTANTS.sub("", text))
    times = Counter(re.findall(r"\w+", text))
    return _SMALL_FUNCTION.sub(lambda one: one[0] if times[one[1]] > 1 else "", text)


@dataclass(frozen=True)
class Script:
    """One script: `keys` and `args` name what it takes, in order; a last name may stand for any
    number of them. `codes` are the tags an answer may begin with besides OK."""

    name: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    codes: tuple[str, ...]

    @cached_property
    def source(self) -> str:
        """The text that Redis runs."""
        return build(lua_dir() / f"{self.name}.lua")

    @cached_property
    def sha(self) -> str:
        """The hash `EVALSHA` names it by."""
        return hashlib.sha1(self.source.encode()).hexdigest()


_FENCED = ("generation", "run_id")
_STATE = (*_FENCED, "carry_debts")
_CUSTOMER = ("meta", "customer", "log", "entities")
_KEYED = ("entity_id", "info", "fingerprint", "ttl_ms", "looked_up", "bytes_max", "count")
_PACKED = ("call", "amounts", "info", "kept", "looked_up")
_KEYED_CODES = ("STALE", "MISSING", "ENTITY", "REPLAY", "CONFLICT", "ASK", "FULL")

TRACK = Script(
    "track", (*_CUSTOMER, "record"), (*_FENCED, *_PACKED),
    (*_KEYED_CODES, "REFUSED", "RANGE", "SLOTS", "ARCHIVED"),
)
CHECK = Script(
    "check", (*_CUSTOMER, "record"), (*_FENCED, *_PACKED), (*_KEYED_CODES, "RANGE", "SLOTS", "ARCHIVED")
)
HOLD = Script(
    "hold", (*_CUSTOMER, "locks", "holds", "record"),
    (*_STATE, "lock_id", *_KEYED, "expires_at", "customer_id", "holds_max", "hold_max_ms", "claimed_ms", "fields"),
    (*_KEYED_CODES, "RANGE", "SLOTS", "ARCHIVED", "LOCKED", "MANY"),
)
SETTLE = Script(
    "settle", (*_CUSTOMER, "locks", "holds", "settled", "record"),
    (*_STATE, "lock_id", *_KEYED, "action", "final", "customer_id", "settled_ttl_ms", "fields"),
    (*_KEYED_CODES, "RANGE", "SLOTS", "ARCHIVED", "ABSENT", "EARLY", "EXPIRED"),
)
REFUND = Script(
    "refund", (*_CUSTOMER, "record"),
    (*_STATE, "mode", *_KEYED, "gen", "seq", "made_ms", "event", "returned", "returned_from", "lock_id", "fields"),
    (*_KEYED_CODES, "REFUSED", "ARCHIVED", "RETURNED", "OPEN"),
)
VIEW = Script("view", _CUSTOMER, (*_STATE, "quiet"), ("STALE", "MISSING"))
EXPLAIN = Script(
    "explain", (*_CUSTOMER, "locks"), (*_STATE, "entity_id", "count", "fields"),
    ("STALE", "MISSING", "ENTITY"),
)
PROJECT = Script(
    "project", (*_CUSTOMER, "locks", "holds"), (*_STATE, "cid", "customer_id", "steps"),
    ("STALE", "MISSING", "OTHER", "GAP"),
)
LOAD = Script(
    "load", ("meta", "customer", "entities", "locks", "holds"),
    (*_FENCED, "sql_generation", "cursor_gen", "cursor_seq", "cid", "customer_id", "members", "locks", "header", "fields"),
    ("STALE", "EXISTS", "OTHER", "BEHIND"),
)
EVICT = Script(
    "evict", ("meta", "customer", "entities", "locks", "holds"),
    (*_FENCED, "cursor_gen", "cursor_seq", "cid", "customer_id"), ("STALE", "ABSENT", "AHEAD"),
)
OPEN = Script("open", ("meta", "log"), ("generation", "partitions", "cursor_gen", "cursor_seq"), ("HIGHER", "COUNT"))
FORGET = Script(
    "forget", ("meta", "log", "holds", "states"), ("generation", "cursor_gen", "cursor_seq", "lost_until_ms", "cut"),
    ("HIGHER",),
)
OPENED = Script("opened", ("meta", "log"), (*_FENCED, "offset_ms", "base_gen", "base_seq"), ("HIGHER",))
READ = Script("read", ("meta", "log"), (*_FENCED, "cursor_gen", "cursor_seq", "count"), ("STALE", "BEHIND"))
TRIM = Script("trim", ("meta", "log"), (*_FENCED, "gen", "seq"), ("STALE",))
CLAIM = Script("claim", ("meta", "lock"), (*_FENCED, "claim", "expected", "ttl_ms", "looked_up"), ("STALE", "TAKEN", "ASK"))
KEEP = Script(
    "keep", ("meta", "record"),
    (*_FENCED, "action", "cid", "fingerprint", "ttl_ms", "looked_up", "bytes_max", "receipt"),
    ("STALE", "REPLAY", "CONFLICT", "ASK", "FULL"),
)
CLOCK = Script("clock", ("meta",), ("offset_ms",), ())

SCRIPTS = (TRACK, CHECK, HOLD, SETTLE, REFUND, VIEW, EXPLAIN, PROJECT, LOAD, EVICT, OPEN, FORGET, OPENED, READ, TRIM, CLAIM, KEEP, CLOCK)
"""Every script; each connection loads and verifies all of them."""
