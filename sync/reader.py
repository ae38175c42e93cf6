"""Reads the log of every partition from a cursor on, and cuts what it read into batches.

The place to read from is the caller's to keep: it comes from SQL, never from Redis.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Iterator, Mapping, Sequence

from sidecar.engine import keys, scripts
from sidecar.engine.engine import Engine
from sidecar.store.partitions import Cursor, Place

from .apply import BATCH_MAX
from .rows import Entry

COUNT_MIN, COUNT_MAX = 100, 1000
KEY = re.compile(rb"\{p(\d+)\}:log")


class Behind(RuntimeError):
    """Redis no longer has what follows SQL's cursor: SQL was rolled back."""

    def __init__(self, p: int, message: str):
        super().__init__(message)
        self.p = p


class Reader:
    """Reads entries after cursors. Entries of one partition come in their order."""

    def __init__(self, engine: Engine):
        self._engine = engine

    async def read(self, places: Mapping[int, Place], block_ms: int) -> tuple[list[Entry], list[int], list[Behind]]:
        """What follows the cursors, waiting up to `block_ms` for the first entry, not everything
        when there is much; the partitions that are not open for the generation SQL has; and those
        whose log begins after the cursor. Raises what the client raises.

        The wait is not fenced and only tells where to look; the reading is: entries of a server
        that has since been emptied or put back must not reach SQL."""
        streams: dict[Any, Any] = {keys.log(p): stream_id(place.cursor) for p, place in places.items()}
        if not streams:
            return [], [], []
        busy = parse_partitions(await self._engine.redis.xread(streams, count=1, block=block_ms))
        if not busy:
            return [], [], []
        count = max(COUNT_MIN, min(COUNT_MAX, 4 * BATCH_MAX // len(busy)))
        connection = await self._engine.connected()
        answers = await asyncio.gather(*(
            connection.script(
                scripts.READ, (keys.meta(p), keys.log(p)),
                (places[p].generation, connection.run_id, *places[p].cursor, count),
            )
            for p in busy
        ))
        entries: list[Entry] = []
        closed: list[int] = []
        behind: list[Behind] = []
        for p, (code, *rest) in zip(busy, answers):
            if code == b"STALE":
                closed.append(p)
            elif code == b"BEHIND":
                behind.append(Behind(
                    p, f"partition {p}: SQL is at {places[p].cursor}, Redis has nothing before {tuple(rest)}"
                ))
            else:
                entries.extend(parse_entries(p, rest[0]))
        return entries, closed, behind


def stream_id(cursor: Cursor) -> str:
    """A cursor as a stream id to read after."""
    return f"{cursor.gen}-{cursor.seq}" if cursor.seq >= 0 else "0-0"


def parse_partitions(answer: Any) -> list[int]:
    """The partitions that an XREAD answer has entries of."""
    if not answer:
        return []
    names = answer.keys() if isinstance(answer, dict) else [name for name, _ in answer]
    return [_partition(name) for name in names]


def parse_entries(p: int, items: Any) -> Iterator[Entry]:
    """The entries in an XRANGE answer."""
    for item_id, fields in items:
        gen, _, seq = item_id.partition(b"-")
        data = dict(zip(fields[::2], fields[1::2])) if isinstance(fields, list) else fields or {}
        yield Entry(p, int(gen), int(seq), data.get(b"d", b""))


def _partition(name: bytes) -> int:
    found = KEY.fullmatch(name)
    assert found is not None, f"an answer of a stream nobody asked for: {name!r}"
    return int(found[1])


def batches(entries: Sequence[Entry], size: int = BATCH_MAX) -> Iterator[Sequence[Entry]]:
    """The entries in batches of at most `size`, in the order given."""
    for at in range(0, len(entries), size):
        yield entries[at : at + size]
