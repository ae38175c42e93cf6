"""Which partitions are open, under which generation, and how a closed one is opened.

A partition is open for one generation on one server process. A restart, a promoted replica or an
emptied server closes it before the first call after it, because the run_id a connection was made
to is no longer the one in the partition's meta. Any process may open it: it takes the next
generation in SQL, closes the partition under it, takes out of Redis what SQL is ahead of, and only
then writes the run_id. Whoever finds a higher generation stops.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Sequence

import msgpack
import structlog
from sqlalchemy import Connection as SqlConnection
from sqlalchemy.exc import SQLAlchemyError

from ..store import customers, partitions as partition_rows
from ..store.partitions import Opening
from . import keys, scripts
from .many import send_all
from .connection import Connection
from .errors import PartitionRefused, StoreUnavailable

if TYPE_CHECKING:
    from ..clock import Clock
    from ..settings import Settings
    from ..store.db import Store

log = structlog.get_logger()
ATTEMPTS_MAX = 80
NOTHING = (0, -1)
"""The place before the first entry of a log."""

OPENING_KIND = 4
"""The kind of the record that begins a generation's part of a log: [1, 4, base gen, base seq]."""

OTHERS_TURN_MS = 3_000
"""How long one process leaves the opening to another before it opens by itself."""


class Partitions:
    """The generations this process knows, each for the server process it was learnt on."""

    def __init__(self, settings: Settings, store: Store, clock: Clock):
        self._count = settings.partitions
        self._ttl_ms = settings.idempotency_ttl_s * 1000
        self._store = store
        self._clock = clock
        self._open: dict[int, tuple[bytes, bytes]] = {}
        self._acknowledged: dict[int, tuple[int, int]] = {}
        self._opening = asyncio.Lock()
        self.lost_acknowledged = 0
        """Answered operations that neither store had when a partition was opened again."""

    def generation(self, p: int, run_id: bytes) -> bytes | None:
        """The generation `p` is open for on that server process, None if not known to be."""
        known = self._open.get(p)
        return known[1] if known is not None and known[0] == run_id else None

    def close(self, p: int, generation: bytes) -> None:
        """Forgets that `p` is open, after a script said that it is not."""
        known = self._open.get(p)
        if known is not None and known[1] == generation:
            del self._open[p]

    def acknowledge(self, p: int, gen: int, seq: int) -> None:
        """Remembers the highest entry answered, so that its loss can be told."""
        if (gen, seq) > self._acknowledged.get(p, NOTHING):
            self._acknowledged[p] = (gen, seq)

    async def open(self, connection: Connection, ps: Iterable[int]) -> None:
        """Opens partitions, or learns the generation someone else opened them for.

        Raises StoreUnavailable when a store does not answer, PartitionRefused when Redis is ahead
        of SQL or set up for another number of partitions."""
        wanted = sorted({p for p in ps if self.generation(p, connection.run_id) is None})
        if not wanted:
            return
        async with self._opening:
            waited_ms = 0
            for _ in range(ATTEMPTS_MAX):
                wanted, expected = await self._adopt(connection, wanted)
                if not wanted:
                    return
                if not expected:
                    raise StoreUnavailable(f"partition {wanted[0]} is closed, and SQL does not answer")
                mine = await connection.call("SET", keys.OPENING, os.getpid(), "NX", "PX", OTHERS_TURN_MS)
                if mine is None and waited_ms < OTHERS_TURN_MS:
                    await asyncio.sleep(0.05)
                    waited_ms += 50
                    continue
                await self._take(connection, {p: expected[p] for p in wanted})
                await connection.call("DEL", keys.OPENING)
        raise StoreUnavailable(f"partitions {wanted[:5]} are being opened by others again and again")

    async def verify(self, connection: Connection, p: int) -> None:
        """Opens a partition again whose generation in SQL is not the one it is open for: someone
        who took the next died before closing this one. Loads and sync wait for it; calls do not."""
        self._open.pop(p, None)
        await self.open(connection, [p])

    async def _adopt(self, connection: Connection, ps: Sequence[int]) -> tuple[list[int], dict[int, int]]:
        """Learns the generations of partitions that are open on this server; the rest of them, and
        every one's generation in SQL (empty while SQL does not answer: an open partition goes on
        without it)."""
        try:
            newest = {p: place.generation for p, place in (await self._store.read(partition_rows.places, ps)).items()}
        except SQLAlchemyError as problem:
            log.warning("sql_unavailable", error=str(problem).splitlines()[0])
            newest = {}
        metas = await send_all(connection, [("HMGET", keys.meta(p), "gen", "run") for p in ps])
        closed = []
        for p, (generation, run_id) in zip(ps, metas):
            opened = generation is not None and run_id in (connection.run_id, connection.run_id + b" " + generation)  # see opened.lua
            if opened and newest.get(p, int(generation)) == int(generation):
                self._open[p] = (connection.run_id, generation)
            elif opened and int(generation) > newest[p]:
                raise _rolled_back(p, f"generation {int(generation)} in Redis and {newest[p]} in SQL")
            else:
                closed.append(p)
        return closed, newest

    async def _take(self, connection: Connection, expected: Mapping[int, int]) -> None:
        """Takes the next generation of each partition, and opens those nobody took since. Every
        script goes to the server process that `connection` was made to, or nowhere."""
        openings = await self._store.write(partition_rows.take_generations, expected)
        taken = list(openings)
        replies = await asyncio.gather(*(
            connection.script(
                scripts.OPEN, (keys.meta(p), keys.log(p)),
                (openings[p].generation, self._count, openings[p].cursor_gen, openings[p].cursor_seq),
            )
            for p in taken
        ))
        newest = await self._store.read(partition_rows.places, taken)
        plans: dict[int, _Plan] = {}
        for p, (code, *rest) in zip(taken, replies):
            if code == b"COUNT":
                raise PartitionRefused(
                    f"Redis has {rest[0].decode()} partitions, SIDECAR_PARTITIONS says {self._count}"
                )
            if code == b"HIGHER":
                if int(rest[0]) > newest[p].generation:
                    raise _rolled_back(p, f"generation {int(rest[0])} in Redis and {newest[p].generation} in SQL")
            elif newest[p].generation == openings[p].generation:  # else overtaken: this cursor may be old
                plans[p] = self._plan(p, openings[p], rest)
        await self._forget(connection, plans)
        offset_ms = await self._clock.offset_ms()
        await asyncio.gather(*(
            connection.script(
                scripts.OPENED, (keys.meta(p), keys.log(p)),
                (plan.generation, connection.run_id, offset_ms, *plan.base),
            )
            for p, plan in plans.items()
        ))
        log.info("partitions_opened", count=len(plans), first=min(plans, default=None))

    def _plan(self, p: int, opening: Opening, found: Sequence[Any]) -> _Plan:
        """How a closed partition's log and SQL fit together, and what has to go."""
        cursor, last = (opening.cursor_gen, opening.cursor_seq), (found[0], found[1])
        if not last[0]:
            last = NOTHING  # a log that never was
        trimmed = (found[4], found[5])
        if trimmed > cursor:
            raise _rolled_back(p, f"entries up to {trimmed} are gone from Redis, SQL has them up to {cursor}")
        acknowledged = self._acknowledged.pop(p, NOTHING)
        if acknowledged > max(cursor, last):
            self.lost_acknowledged += 1
            log.error("acknowledged_lost", partition=p, acknowledged=acknowledged, redis=last, sql=cursor)
        if cursor <= last and (cursor == last or _succeeds(found[2], found[3], cursor)):
            return _Plan(opening.generation, cursor, last, "none", opening.keys_lost_until_ms)
        ancestor = cursor > last and cursor[0] == last[0]
        log.warning("redis_behind_sql", partition=p, redis=last, sql=cursor)
        return _Plan(opening.generation, cursor, cursor, "past" if ancestor else "all", 0, last)

    async def _forget(self, connection: Connection, plans: Mapping[int, _Plan]) -> None:
        """Takes out of Redis what SQL is ahead of: of a log that is only shorter the customers SQL
        has later records of, of one that went another way everything."""
        now_ms = await self._clock.now_ms()
        everything = await self._scan(connection, {p for p, plan in plans.items() if plan.forget == "all"})
        for p, plan in plans.items():
            lost_until_ms = plan.lost_until_ms
            if plan.forget == "none" and lost_until_ms <= now_ms:
                continue
            states = everything.get(p, [])
            if plan.forget != "none":
                lost_until_ms = now_ms + self._ttl_ms
                names = await self._store.write(_note_loss, p, plan.last, lost_until_ms)
                if plan.forget == "past":
                    states = [
                        key for name in names
                        for key in (keys.customer(p, name), keys.entities(p, name), keys.locks(p, name))
                    ]
            for at in range(0, max(1, len(states)), 1000):
                await connection.script(
                    scripts.FORGET, (keys.meta(p), keys.log(p), keys.holds(p), *states[at : at + 1000]),
                    (plan.generation, *plan.cursor, lost_until_ms, int(plan.forget == "all")),
                )

    async def _scan(self, connection: Connection, ps: set[int]) -> dict[int, list[bytes]]:
        """Every state, lock and record key of these partitions."""
        found: dict[int, list[bytes]] = {p: [] for p in ps}
        cursor: bytes = b"0"
        while ps:
            cursor, names = await connection.call("SCAN", cursor, "MATCH", "{p*}:[ceih]:*", "COUNT", 1000)
            for name in names:
                p = int(name[2 : name.index(b"}")])
                if p in ps:
                    found[p].append(name)
            if cursor == b"0":
                break
        return found


@dataclass(frozen=True)
class _Plan:
    """How to open a partition: after which entry its log goes on (`base`), and what to forget:
    "none", "past" (customers with records past `last`) or "all"."""

    generation: int
    cursor: tuple[int, int]
    base: tuple[int, int]
    forget: str
    lost_until_ms: int
    last: tuple[int, int] = NOTHING


def _succeeds(entry_id: bytes, entry: bytes, cursor: tuple[int, int]) -> bool:
    """Whether the first entry after a cursor is its successor: the next of its generation, or the
    opening of a later one that goes on after the cursor."""
    if not entry_id:
        return False
    gen, seq = map(int, entry_id.split(b"-"))
    if gen == cursor[0]:
        return seq == cursor[1] + 1
    return seq == 0 and opening_base(entry) == cursor


def opening_base(entry: bytes) -> tuple[int, int] | None:
    """The entry after which the generation that this record opens goes on; None for another
    record."""
    try:
        record = msgpack.unpackb(entry, raw=True)
    except (ValueError, msgpack.exceptions.UnpackException):
        return None
    if isinstance(record, list) and len(record) == 4 and record[:2] == [1, OPENING_KIND]:
        return record[2], record[3]
    return None


def _rolled_back(p: int, found: str) -> PartitionRefused:
    return PartitionRefused(
        f"partition {p} has {found}: SQL was rolled back; restore it, or empty Redis to go on from what SQL has"
    )


def _note_loss(conn: SqlConnection, p: int, last: tuple[int, int], lost_until_ms: int) -> list[str]:
    partition_rows.set_keys_lost_until(conn, [p], lost_until_ms)
    return customers.ahead_of_log(conn, p, *last)
