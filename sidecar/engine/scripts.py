"""The Lua scripts: reading them from lua/, resolving includes, and what each takes.

`SCRIPTS` is the Python side of every script's header: names of keys and arguments in order. A test
parses the headers and compares. A script's hash is computed here, so that what Redis runs is what
this release ships.
"""

from __future__ import annotations

import hashlib
import re
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
        """The text that Redis runs, with what costs bytes and says nothing to Redis left out."""
        text = re.sub(r"\A--\[\[.*?--\]\]\n", "", resolve(lua_dir() / f"{self.name}.lua"), flags=re.DOTALL)
        return "\n".join(line for line in text.splitlines() if not re.match(r"\s*--", line) and line.strip()) + "\n"

    @cached_property
    def sha(self) -> str:
        """The hash `EVALSHA` names it by."""
        return hashlib.sha1(self.source.encode()).hexdigest()


_FENCED = ("generation", "run_id")
_SPEND_KEYS = ("meta", "customer", "log", "entities", "record")
_SPEND_ARGS = ("entity_id", "info", "fingerprint", "ttl_ms", "looked_up", "bytes_max", "count", "fields")
_SPEND_CODES = ("STALE", "MISSING", "ENTITY", "REPLAY", "CONFLICT", "ASK", "FULL")

TRACK = Script("track", _SPEND_KEYS, (*_FENCED, "mode", *_SPEND_ARGS), (*_SPEND_CODES, "REFUSED", "RANGE", "SLOTS"))
CHECK = Script("check", _SPEND_KEYS, (*_FENCED, "send", *_SPEND_ARGS), (*_SPEND_CODES, "RANGE", "SLOTS"))
VIEW = Script("view", ("meta", "customer", "log"), (*_FENCED, "quiet"), ("STALE", "MISSING"))
PROJECT = Script(
    "project", ("meta", "customer", "log", "entities"), (*_FENCED, "cid", "steps"), ("STALE", "MISSING", "OTHER", "GAP")
)
LOAD = Script(
    "load", ("meta", "customer", "entities"),
    (*_FENCED, "sql_generation", "cursor_gen", "cursor_seq", "cid", "members", "header", "fields"),
    ("STALE", "EXISTS", "OTHER", "BEHIND"),
)
EVICT = Script(
    "evict", ("meta", "customer", "entities"), (*_FENCED, "cursor_gen", "cursor_seq", "cid"),
    ("STALE", "ABSENT", "AHEAD"),
)
OPEN = Script("open", ("meta", "log"), ("generation", "partitions", "cursor_gen", "cursor_seq"), ("HIGHER", "COUNT"))
FORGET = Script(
    "forget", ("meta", "log", "states"), ("generation", "cursor_gen", "cursor_seq", "lost_until_ms", "cut"),
    ("HIGHER",),
)
OPENED = Script("opened", ("meta", "log"), (*_FENCED, "offset_ms", "base_gen", "base_seq"), ("HIGHER",))
READ = Script("read", ("meta", "log"), (*_FENCED, "cursor_gen", "cursor_seq", "count"), ("STALE", "BEHIND"))
TRIM = Script("trim", ("meta", "log"), (*_FENCED, "gen", "seq"), ("STALE",))
CLOCK = Script("clock", ("meta",), ("offset_ms",), ())

SCRIPTS = (TRACK, CHECK, VIEW, PROJECT, LOAD, EVICT, OPEN, FORGET, OPENED, READ, TRIM, CLOCK)
"""Every script; each connection loads and verifies all of them."""
