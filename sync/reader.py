"""Reads the log of every partition from a cursor on, a batch at a time.

The place to read from is the caller's to keep: it comes from SQL, never from Redis.
"""

from __future__ import annotations

import re
from typing import Any, Mapping, NamedTuple, Sequence

from sidecar.engine import keys, scripts
from sidecar.engine.many import run_all
from sidecar.engine.engine import Engine
from sidecar.store.partitions import Cursor, Place

from .rows import Entry

ENTRIES_MAX = 200
"""Of one partition at a time, while others wait too."""
ROOM = 2
"""Partitions that are likely to fill a portion to this part of it are read for it: they may have more."""
KEY = re.compile(rb"\{p(\d+)\}:log")


class Behind(RuntimeError):
    """Redis no longer has what follows SQL's cursor: SQL was rolled back."""

    def __init__(self, p: int, message: str):
        super().__init__(message)
        self.p = p


class Portion(NamedTuple):
    """What was read: of which partitions, their entries in order; those that are not open for the
    generation SQL has; those whose log begins after the cursor; and those that may have more."""

    ps: Sequence[int]
    entries: list[Entry]
    closed: list[int]
    behind: list[Behind]
    more: list[int]


class Reader:
    """Reads entries after cursors. Entries of one partition come in their order."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._likely = ENTRIES_MAX
        """How many entries a partition is likely to have: so many partitions make a batch."""

    async def busy(self, places: Mapping[int, Place], block_ms: int) -> list[int]:
        """The partitions that have entries after their cursors, waiting up to `block_ms` for the
        first. Raises what the client raises.

        This is not fenced and only tells where to look."""
        streams: dict[Any, Any] = {keys.log(p): stream_id(place.cursor) for p, place in places.items()}
        if not streams:
            return []
        return parse_partitions(await self._engine.redis.xread(streams, count=1, block=block_ms))

    async def read(self, places: Mapping[int, Place], busy: Sequence[int], size: int, usual: bool = True) -> Portion:
        """What follows the cursors of some of the busy partitions, the first ones: up to `size`
        entries, and of no partition necessarily all. `usual`: these partitions tell how much others
        are likely to have. Raises what the client raises.

        This is fenced: entries of a server that has since been emptied or put back must not reach
        SQL."""
        wanted = size // ROOM
        ps = busy[: max(1, wanted // self._likely)]
        count = min(size // len(ps), max(ENTRIES_MAX, wanted // len(ps)))
        connection = await self._engine.connected()
        answers = await run_all(connection, scripts.READ, [
            ((keys.meta(p), keys.log(p)), (places[p].generation, connection.run_id, *places[p].cursor, count)) for p in ps
        ])
        portion = Portion(ps, [], [], [], [])
        for p, (code, *rest) in zip(ps, answers):
            if code == b"STALE":
                portion.closed.append(p)
            elif code == b"BEHIND":
                portion.behind.append(Behind(
                    p, f"partition {p}: SQL is at {places[p].cursor}, Redis has nothing before {tuple(rest)}"
                ))
            else:
                portion.entries.extend(parse_entries(p, rest[0]))
                if len(rest[0]) == count:
                    portion.more.append(p)
        if usual:
            self._likely = max(1, min(ENTRIES_MAX, -(-len(portion.entries) // len(ps))))
        return portion


def stream_id(cursor: Cursor) -> str:
    """A cursor as a stream id to read after."""
    return f"{cursor.gen}-{cursor.seq}" if cursor.seq >= 0 else "0-0"


def parse_partitions(answer: Any) -> list[int]:
    """The partitions that an XREAD answer has entries of."""
    if not answer:
        return []
    names = answer.keys() if isinstance(answer, dict) else [name for name, _ in answer]
    return [_partition(name) for name in names]


def parse_entries(p: int, items: Any) -> list[Entry]:
    """The entries in an XRANGE answer."""
    found = []
    for item_id, fields in items:
        gen, _, seq = item_id.partition(b"-")
        if type(fields) is list and len(fields) == 2 and fields[0] == b"d":
            data = fields[1]
        else:
            data = (dict(zip(fields[::2], fields[1::2])) if isinstance(fields, list) else fields or {}).get(b"d", b"")
        found.append(Entry(p, int(gen), int(seq), data))
    return found


def _partition(name: bytes) -> int:
    found = KEY.fullmatch(name)
    assert found is not None, f"an answer of a stream nobody asked for: {name!r}"
    return int(found[1])
