"""The audit: Redis = SQL + unread log, to the last unit, customer by customer; and SQL = its ledger.

Runs beside a live sidecar. For some customers of one partition at a time, it opens a SQL snapshot,
then reads their states and the log after the snapshot's cursor from Redis in one transaction, plays
that log on the snapshot in memory and compares. A difference is looked at again with a new snapshot
before it counts, so that nothing in motion is reported.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Callable, Coroutine, Iterable, Sequence

import msgpack
import structlog
from sqlalchemy import Connection, select

from sidecar.domain import layout, receipt
from sidecar.engine import keys
from sidecar.engine.engine import Engine
from sidecar.engine.partitions import opening_base
from sidecar.store import idempotency, partitions, tables
from sidecar.store.db import Store
from sidecar.store.partitions import Cursor

from . import ledgers
from .apply import follows
from .compare import Difference, State, compare
from .expected import expected_of
from .reader import parse_entries, stream_id
from .records import Record, RecordError, decode
from .rows import Entry
from .working import SqlBehind, Working

__all__ = ["AuditResult", "Difference", "audit"]

log = structlog.get_logger()
CUSTOMERS_PER_LOOK = 200
LOOKS_MAX = 6
LOOK_AGAIN_S = 0.3
KEY_MARGIN_MS = 5_000
"""A record this near its end may be gone from one store and not yet from the other."""
DIFFERENCES_MAX = 10_000

Report = Callable[[str], None]


@dataclass
class AuditResult:
    """What was compared and what differs."""

    customers: int = 0
    buckets: int = 0
    keys: int = 0
    sql_customers: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0: no difference; 1: some."""
        return 1 if self.differences else 0


@dataclass
class _Look:
    """One look at some customers and idempotency keys of one partition."""

    p: int
    names: Sequence[str]
    digests: Sequence[bytes]
    buckets: int = 0
    customers: int = 0
    keys: int = 0
    differences: list[Difference] = field(default_factory=list)

    def add(self, customer: str, kind: str, column: str, redis: Any, sql: Any, bucket: int = 0) -> None:
        self.differences.append(Difference(customer, kind, bucket, column, redis, sql))


async def audit(engine: Engine, store: Store, *, report: Report | None = None) -> AuditResult:
    """Compares everything that Redis holds with SQL, and SQL with its own ledger. `report` gets a
    line of progress now and then. Raises the stores' errors when it could not compare."""
    result = AuditResult()
    count = engine.settings.partitions
    await engine.open_partitions(range(count))
    names, digests = await _scan(engine, count)
    for p in range(count):
        for at in range(0, max(len(names[p]), len(digests[p]), 1), CUSTOMERS_PER_LOOK):
            part = slice(at, at + CUSTOMERS_PER_LOOK)
            look = await _look_until_sure(engine, store, p, names[p][part], digests[p][part])
            result.customers += look.customers
            result.buckets += look.buckets
            result.keys += look.keys
            result.differences += look.differences[: DIFFERENCES_MAX - len(result.differences)]
        if report and names[p]:
            report(f"partition {p}: {len(names[p])} customers, {len(result.differences)} differences so far")
    await _audit_sql(store, result, report)
    return result


async def _scan(engine: Engine, count: int) -> tuple[dict[int, list[str]], dict[int, list[bytes]]]:
    """The customers and the idempotency records in Redis, by partition."""
    names: dict[int, list[str]] = {p: [] for p in range(count)}
    digests: dict[int, list[bytes]] = {p: [] for p in range(count)}
    seen: set[bytes] = set()
    async for key in engine.redis.scan_iter(match=b"{p*}:[ci]:*", count=1000):
        tag, _, rest = key.partition(b"}:")
        p = int(tag[2:])
        if key in seen or p not in names:
            continue
        seen.add(key)
        if rest.startswith(b"c:"):
            names[p].append(rest[2:].decode())
        else:
            digests[p].append(rest[2:])
    return names, digests


async def _look_until_sure(
    engine: Engine, store: Store, p: int, names: Sequence[str], digests: Sequence[bytes]
) -> _Look:
    """Looks again while there are differences: what is in motion looks different once, a drift
    every time."""
    for number in range(LOOKS_MAX):
        look = await _look(engine, store, _Look(p, names, digests))
        if not look.differences:
            break
        if number:
            await asyncio.sleep(LOOK_AGAIN_S)
    return look


async def _look(engine: Engine, store: Store, look: _Look) -> _Look:
    loop = asyncio.get_running_loop()

    def now(work: Coroutine[Any, Any, Any]) -> Any:
        """Redis is read while the SQL snapshot stands."""
        return asyncio.run_coroutine_threadsafe(work, loop).result(timeout=60)

    now_ms = await engine.now_ms()
    await store.read(lambda conn: _compare(conn, engine, look, now, now_ms))
    return look


def _compare(
    conn: Connection, engine: Engine, look: _Look, now: Callable[[Coroutine[Any, Any, Any]], Any], now_ms: int
) -> None:
    p = look.p
    cursor = partitions.cursors(conn, [p])[p]  # the snapshot begins here
    sql_keys = _sql_keys(conn, look, now_ms)
    wanted = sorted(set(look.digests) | {digest for _, digest in sql_keys})
    states, entries, records, meta = now(_read_redis(engine, p, look.names, cursor, wanted))
    by_name = {name: state for name, state in zip(look.names, states) if state is not None}
    unread = _decode_unread(look, cursor, entries)
    cids = _cids(conn, look, by_name)
    unread_cids = {record.cid for _, record in unread}
    working = Working(conn, unread, whole=cids.values())
    broken = _play(look, working, unread)
    for name, cid in cids.items():
        if cid in broken:
            continue
        look.customers += 1
        expected = expected_of(working, cid)
        if expected is None:
            look.add(name, "customer", "cid", cid, None)
            continue
        look.buckets += len(expected.rows)
        look.differences += compare(name, by_name[name], expected)
    _compare_absent(look, working, now, engine, unread_cids - set(cids.values()) - broken)
    _compare_keys(look, working, unread, sql_keys, dict(zip(wanted, records)), int(meta or 0), now_ms, conn)


async def _read_redis(
    engine: Engine, p: int, names: Sequence[str], cursor: Cursor, digests: Sequence[bytes]
) -> tuple[list[State | None], list[Entry], list[bytes | None], bytes | None]:
    """States, the log after a cursor, and idempotency records, all of one moment."""
    async with engine.redis.pipeline(transaction=True) as pipe:
        for name in names:
            pipe.hgetall(keys.customer(p, name))
            pipe.zrange(keys.entities(p, name), 0, -1)
            pipe.zrange(keys.locks(p, name), 0, -1, withscores=True)
        pipe.zrange(keys.holds(p), 0, -1, withscores=True)
        pipe.xrange(keys.log(p), min=f"({stream_id(cursor)}")
        pipe.hget(keys.meta(p), "kl")
        for digest in digests:
            pipe.get(keys.record(p, digest))
        answers = await pipe.execute()
    at = 3 * len(names)
    held: dict[str, dict[bytes, int]] = defaultdict(dict)
    for member, end in answers[at]:
        name, _, lock_id = member.partition(b"\0")
        held[name.decode()][lock_id] = int(end)
    states = [
        State(fields, frozenset(members), {lock_id: int(end) for lock_id, end in locks}, held[name]) if fields else None
        for name, fields, members, locks in zip(names, answers[:at:3], answers[1:at:3], answers[2:at:3])
    ]
    return states, list(parse_entries(p, answers[at + 1])), answers[at + 3 :], answers[at + 2]


def _decode_unread(look: _Look, cursor: Cursor, entries: Iterable[Entry]) -> list[tuple[Entry, Record]]:
    unread = []
    for entry in entries:
        if not follows(cursor, entry):
            look.add("", "log", f"partition {look.p}", f"next entry {entry.gen}-{entry.seq}", f"cursor {cursor}")
        cursor = Cursor(entry.gen, entry.seq)
        if opening_base(entry.data) is not None:
            continue
        try:
            unread.append((entry, decode(entry.data)))
        except RecordError as error:
            look.add("", "log", keys.event_id(*entry[:3]), f"unreadable: {error}", "")
    return unread


def _cids(conn: Connection, look: _Look, states: dict[str, State]) -> dict[str, int]:
    """The internal ids of the customers Redis has; what a deleted one left behind is none."""
    cids = {}
    for name, state in states.items():
        try:
            header = layout.unpack_header(state.fields[b"h"])
            if not header.dead:
                cids[name] = header.cid
            elif not _is_deleted(conn, header.cid):
                look.add(name, "customer", "state", "deleted", f"cid {header.cid}")
        except (KeyError, ValueError, msgpack.UnpackException) as error:
            look.add(name, "header", "state", f"unreadable: {error}", "")
    return cids


def _play(look: _Look, working: Working, unread: Sequence[tuple[Entry, Record]]) -> set[int]:
    """Plays the unread log; the customers of whom a record cannot be played."""
    broken: set[int] = set()
    for entry, record in unread:
        if record.cid in broken:
            continue
        try:
            working.play_one(entry, record)
        except (RecordError, SqlBehind) as error:
            broken.add(record.cid)
            row = working.rows.customers.get(record.cid)
            look.add(row.id if row else f"cid {record.cid}", "log", keys.event_id(*entry[:3]), str(error), "")
    return broken


def _compare_absent(
    look: _Look, working: Working, now: Callable[[Coroutine[Any, Any, Any]], Any], engine: Engine, cids: Iterable[int]
) -> None:
    """A customer with unread entries must be in Redis: only what SQL has may leave it."""
    for cid in cids:
        row = working.rows.customers.get(cid)
        if row is None or cid in working.deleted or row.id in look.names:
            continue
        if not now(engine.redis.exists(keys.customer(look.p, row.id))):
            look.add(row.id, "customer", "state", "absent, with unread log entries", f"cid {cid}")


# -- idempotency -----------------------------------------------------------------------------------

_Key = tuple[int, bytes]


def _sql_keys(conn: Connection, look: _Look, now_ms: int) -> dict[_Key, tuple[int, int, int, bytes]]:
    """(gen, seq, end, record) by (cid, digest): of the digests Redis has, and of the customers."""
    i, c = tables.idempotency.c, tables.customers.c
    query = select(i.cid, i.digest, i.gen, i.seq, i.expires_at, i.record).where(i.p == look.p)
    found: dict[_Key, tuple[int, int, int, bytes]] = {}
    if look.names:
        mine = select(c.cid).where(c.id.in_(look.names), c.deleted_at.is_(None))
        wheres = [i.cid.in_(mine)]
    else:
        wheres = []
    if look.digests:
        wheres.append(i.digest.in_(list(look.digests)))
    for where in wheres:
        for cid, digest, *rest in conn.execute(query.where(where, i.expires_at > now_ms)):
            found[cid, bytes(digest)] = (rest[0], rest[1], rest[2], bytes(rest[3]))
    return found


def _compare_keys(
    look: _Look, working: Working, unread: Sequence[tuple[Entry, Record]],
    sql_keys: dict[_Key, tuple[int, int, int, bytes]], redis: dict[bytes, bytes | None], lost_until_ms: int,
    now_ms: int, conn: Connection,
) -> None:
    """Every live record is in both stores, and the same, unless Redis lost its own and knows it."""
    expected = dict(sql_keys)
    for entry, record in unread:
        row = working.rows.customers.get(record.cid)
        if record.idempotency is not None and record.info.key is not None and row is not None:
            digest = idempotency.digest(row.id, record.info.key)
            if digest in redis:
                end, packed = record.idempotency.end_ms, record.idempotency.record
                expected[record.cid, digest] = (entry.gen, entry.seq, end, packed)
    gone = _deleted_cids(conn, working)
    for (cid, digest), (gen, seq, end_ms, packed) in expected.items():
        row = working.rows.customers.get(cid)
        name = row.id if row else f"cid {cid}"
        look.keys += 1
        stored = redis.get(digest)
        if stored is None:
            if end_ms > now_ms + KEY_MARGIN_MS and lost_until_ms < now_ms and cid not in gone:
                look.add(name, "idempotency", digest.hex(), None, f"{gen}-{seq}")
            continue
        try:
            (ours, entry_id), theirs = receipt.unpack_record(stored), receipt.unpack(packed)
        except ValueError as error:
            look.add(name, "idempotency", digest.hex(), f"unreadable: {error}", f"{gen}-{seq}")
            continue
        if ours.cid == cid and (ours != theirs or entry_id != b"%d-%d" % (gen, seq)):
            look.add(name, "idempotency", digest.hex(), [*ours, entry_id], [*theirs, f"{gen}-{seq}"])
    known = {digest for _, digest in expected}
    for digest in look.digests:
        stored = redis.get(digest)
        if stored is None or digest in known:
            continue
        found, _ = receipt.unpack_record(stored)
        if found.end_ms > now_ms + KEY_MARGIN_MS and not _is_deleted(conn, found.cid):
            look.add("", "idempotency", digest.hex(), list(found), None)


def _deleted_cids(conn: Connection, working: Working) -> set[int]:
    return {cid for cid, row in working.rows.customers.items() if row.deleted_at is not None} | set(working.deleted)


def _is_deleted(conn: Connection, cid: int) -> bool:
    """Whether a customer is: SQL forgets its records at once, Redis with time."""
    c = tables.customers.c
    return conn.execute(select(c.cid).where(c.cid == cid, c.deleted_at.is_not(None))).first() is not None


# -- SQL against itself ----------------------------------------------------------------------------


async def _audit_sql(store: Store, result: AuditResult, report: Report | None) -> None:
    """Every bucket is the sum of its ledger, and nothing was set aside."""
    after = 0
    while True:
        cids, differences = await store.read(ledgers.compare_ledger, after)
        result.differences += differences
        if not cids:
            break
        result.sql_customers += len(cids)
        after = cids[-1]
    rejected = await store.read(ledgers.set_aside)
    result.differences += rejected
    if report:
        report(f"SQL: {result.sql_customers} customers' buckets are the sum of their ledger, {len(rejected)} entries set aside")
