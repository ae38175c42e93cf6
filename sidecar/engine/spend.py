"""check and track as pure steps around one round trip: a call (call.py) to its command, and the
script's answer to a result. `run` makes the trip and does what an answer asks for first (loading a customer,
looking a key up in SQL). This module knows nothing of HTTP or API versions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Sequence

import msgpack
import msgspec

from ..domain import receipt
from ..domain.receipt import Receipt
from ..store import customers, idempotency, partitions, refunds
from . import archive, keys, scripts
from .call import Plan, Spend, arguments, plan_of
from .command import packed
from .errors import REFUSALS, PartitionRefused, ReplyLost, StoreUnavailable

if TYPE_CHECKING:
    from sqlalchemy import Connection as SqlConnection

    from ..catalog.snapshot import Catalog
    from .connection import Connection
    from .engine import Engine

ATTEMPTS_MAX = 20
ASKED_MAX = 3
"""Look-ups of a key in SQL before the partition itself is looked at."""


NONE_OF_ENTITIES = ((),)
FINAL = frozenset((b"CONFLICT", b"FULL", b"REFUSED", b"RANGE", b"SLOTS", b"LOCKED", b"MANY", b"OPEN"))
"""Codes of refusals that nothing done first would change."""


class CustomerMissing(Exception):
    """There is no such customer."""


class EntityMissing(Exception):
    """The customer has no such entity."""


class Refused(Exception):
    """The script refused the call and changed nothing. `code` is the script's; `feature` the number
    of the feature it stopped at, from 0; `reason` why a spend did not fit."""

    def __init__(self, code: str, feature: int = 0, reason: str = ""):
        super().__init__(code)
        self.code = code
        self.feature = feature
        self.reason = reason


class Result(msgspec.Struct):
    """A script's answer. `fields` names the features of `blobs`: packed buckets, b"" where nothing
    is held; `entity_blobs` those of the calling entity and then what it is an entity of, or lists of
    the entities' own; `parts` what each bucket paid, as the log has it (sync/records.py)."""

    event_id: str
    now_ms: int
    fields: tuple[str, ...]
    blobs: Sequence[bytes]
    entity_blobs: Sequence[Any]
    parts: Sequence[Any]
    replayed: bool = False
    applied: Sequence[int] = ()
    held: Sequence[int] = ()
    allowed: bool = True
    reason: str = ""
    shown: int = 0
    required: int = 0
    expires_at: int = 0
    lock_id: str = ""


def start(
    engine: Engine, catalog: Catalog, call: Spend, done: Callable[[Result | Exception | None], None]
) -> bool:
    """Makes the call without a task, where nothing is in its way. `done` gets, once, the result; or
    Refused; or ReplyLost, when it may have run; or None, when the script changed nothing and asks
    for something first: `run` is then to make it; or any other exception, a fault. It must not
    raise. False: it was not started, and `run` is to make it too."""
    connection = engine.connection
    if connection is None:
        return False
    p, run_id, features = engine.partition_of(call.customer_id), connection.run_id, call.features
    generation = engine.partitions.generation(p, run_id)
    if generation is None:
        return False
    names = (features[0][0].id,) if len(features) == 1 else tuple([feature.id for feature, _ in features])
    plan = plan_of(names, catalog)
    record_key = keys.record(p, keys.digest(call.customer_id, call.key)) if call.key else b""
    started = _Started(engine, catalog, call, done, connection, p, generation, run_id, plan)
    command = engine.packer.pack(call, plan, p, generation, run_id, record_key)
    connection.send_packed(command or packed(call.script, *started.arguments()), started.replied)
    return True


class _Started(msgspec.Struct):
    """A call under way. No closure: one that hands itself on, as `replied` does, is garbage that only the
    collector finds, and finding it for every call would halt the process for milliseconds at a time."""

    engine: Engine
    catalog: Catalog
    call: Spend
    done: Callable[[Result | Exception | None], None]
    connection: Connection
    p: int
    generation: bytes
    run_id: bytes
    plan: Plan

    def arguments(self) -> tuple[tuple[bytes, ...], tuple[Any, ...]]:
        """The script's keys and arguments, as of one that is not put together from packed parts."""
        more, _ = arguments(self.call, self.catalog, self.engine.settings, "")
        return _keys(self.p, self.call)[0], (self.generation, self.run_id, *more)

    def replied(self, reply: Any) -> None:
        """Hands over what the reply means, unless Redis has forgotten the script."""
        try:
            if isinstance(reply, Exception) and self.connection.run_forgotten(reply, self.call.script, *self.arguments(), self.replied):
                return
            found = _outcome(self.engine, self.call, self.p, self.plan.fields, reply)
        except Exception as fault:  # here it would end the connection, and this call never be answered
            found = fault
        self.done(found)


def _outcome(engine: Engine, call: Spend, p: int, fields: tuple[str, ...], reply: Any) -> Result | Exception | None:
    """What `start` hands over for a reply."""
    if isinstance(reply, Exception):
        return None if isinstance(reply, StoreUnavailable) or str(reply).startswith(REFUSALS) else reply
    if type(reply) is bytes:
        return _short(engine, call, p, fields, reply)
    code, *rest = reply
    if code == b"OK":
        if rest[0]:
            engine.partitions.acknowledge(p, *map(int, rest[0].split(b"-")))
        return _result(call, p, rest[0], fields, rest[1:])
    if code == b"REPLAY":
        return _result(call, p, rest[0], fields, replied_before(rest[1]), replayed=True)
    return _refused(code, rest) if code in FINAL else None


def _short(engine: Engine, call: Spend, p: int, fields: tuple[str, ...], reply: bytes) -> Result:
    """The result in a short answer: a brief track's entry id; of an allowed check that spent nothing
    the time and the only blob."""
    if call.script is scripts.TRACK:
        gen, seq = map(int, reply.split(b"-"))
        engine.partitions.acknowledge(p, gen, seq)
        return Result(keys.event_id(p, gen, seq), 0, fields, (), (), ())
    return Result("", int.from_bytes(reply[:8], "big"), fields, (reply[8:],), NONE_OF_ENTITIES, (), required=call.features[0][1])


def replied_before(packed_reply: bytes) -> Sequence[Any]:
    """A reply that was remembered; empty of a brief track."""
    return msgpack.unpackb(packed_reply, raw=True) if packed_reply else ()


def _keys(p: int, call: Spend) -> tuple[tuple[bytes, ...], bytes]:
    """The script's keys, and the digest of the call's key (b"" without one)."""
    name = call.customer_id
    script_keys: tuple[bytes, ...] = keys.of_customer(p, name)
    if call.lock is not None:
        script_keys = (*script_keys, keys.locks(p, name), keys.holds(p))
    if not call.key:
        return script_keys, b""
    digest = keys.digest(name, call.key)
    return (*script_keys, keys.record(p, digest)), digest


async def run(engine: Engine, catalog: Catalog, call: Spend, resent: bool = False) -> Result:
    """Makes the call and returns its result, of the first time if its key was used before; `resent`
    if it has been sent already and got no reply.

    Raises CustomerMissing, EntityMissing, Refused, StoreUnavailable (it did not run) and ReplyLost
    (nobody knows, and there is no key to find out by)."""
    p = engine.partition_of(call.customer_id)
    script_keys, digest = _keys(p, call)
    looked_up = ""
    for attempt in range(ATTEMPTS_MAX):
        args, fields = arguments(call, catalog, engine.settings, looked_up)
        try:
            reply = await engine.run(call.script, p, script_keys, args)
        except ReplyLost:
            if call.changes_nothing and not resent:
                resent = True
                continue
            if not call.key or resent:
                raise
            resent = True  # the key finds out whether it ran
            continue
        except (StoreUnavailable, PartitionRefused) as problem:
            if resent and not call.changes_nothing:  # nothing was done now, but maybe before
                raise ReplyLost(f"its answer was lost, and then: {problem}") from problem
            raise
        if type(reply) is bytes:
            return _short(engine, call, p, fields, reply)
        code, *rest = reply
        if code == b"OK":
            result = _result(call, p, rest[0], fields, rest[1:])
            if rest[0]:
                engine.partitions.acknowledge(p, *map(int, rest[0].split(b"-")))
            return result
        if code == b"MISSING":
            if await engine.project(call.customer_id) is None:
                raise CustomerMissing(call.customer_id)
        elif code == b"REPLAY":
            return _result(call, p, rest[0], fields, replied_before(rest[1]), replayed=not resent)
        elif code == b"ASK":
            if attempt > ASKED_MAX:
                await engine.verify(p)
            looked_up, found = await engine.store.read(recorded, p, rest[0], digest)
            now_ms = await engine.now_ms()
            if found is not None and found[1].end_ms > now_ms:
                record_id, record = found
                if record.fingerprint != call.fingerprint:
                    raise Refused("CONFLICT")
                return _result(call, p, record_id, fields, replied_before(record.reply), replayed=not resent)
        elif code == b"ENTITY":
            raise EntityMissing(call.entity_id)
        elif code == b"ARCHIVED":
            await archive.restore(engine, call.customer_id, fields, attempt)
        elif code == b"RETURNED":
            if attempt > ASKED_MAX:
                await engine.verify(p)
            assert call.refunded is not None
            of = call.refunded
            of.returned_from, of.returned = await engine.store.read(_returned, p, call.customer_id, of.gen, of.seq)
        else:
            raise _refused(code, rest)
    raise StoreUnavailable(f"customer {call.customer_id!r} could not be loaded in {ATTEMPTS_MAX} attempts")


def _refused(code: bytes, rest: Sequence[Any]) -> Refused:
    return Refused(code.decode(), rest[0] - 1 if rest else 0, rest[1].decode() if len(rest) > 1 else "")


def _returned(conn: SqlConnection, p: int, customer_id: str, gen: int, seq: int) -> tuple[str, bytes]:
    """What SQL says was given back of an event, and the snapshot it was looked for in."""
    generation, cursor = partitions.places(conn, [p])[p]
    customer = customers.by_id(conn, customer_id)
    found = refunds.returned(conn, customer.cid, gen, seq) if customer is not None else None
    return f"{generation} {cursor.gen} {cursor.seq}", found or b""


def recorded(
    conn: SqlConnection, p: int, cid: int, digest: bytes
) -> tuple[str, tuple[bytes, Receipt] | None]:
    """What SQL has under a key, and the snapshot it was looked for in."""
    generation, cursor = partitions.places(conn, [p])[p]
    snapshot = f"{generation} {cursor.gen} {cursor.seq}"
    found = idempotency.find_with_entry(conn, cid, digest)
    return snapshot, None if found is None else (b"%d-%d" % found[:2], receipt.unpack(found[2]))


def _result(
    call: Spend, p: int, entry: bytes, fields: tuple[str, ...], reply: Sequence[Any], replayed: bool = False
) -> Result:
    event_id = keys.event_id(p, *map(int, entry.split(b"-"))) if entry else ""
    if not reply:  # a brief track
        return Result(event_id, 0, fields, (), (), (), replayed)
    if call.script is not scripts.CHECK and call.script is not scripts.HOLD:
        now_ms, applied, _dropped, held, blobs, entity_blobs, parts = reply
        return Result(event_id, now_ms, fields, blobs, entity_blobs, parts, replayed, applied, held)
    now_ms, allowed, reason, shown, required, blobs, entity_blobs, parts, *ends = reply
    return Result(
        event_id, now_ms, fields, blobs, entity_blobs, parts, replayed,
        allowed=bool(allowed), reason=reason.decode(), shown=shown, required=required,
        expires_at=ends[0] if ends else 0, lock_id=ends[1].decode() if ends else "",
    )

