"""check and track as pure steps around one round trip: a call to script arguments, and the script's
answer to a result. `run` makes the trip and does what an answer asks for first (loading a customer,
looking a key up in SQL). This module knows nothing of HTTP or API versions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Sequence

import msgpack

from ..store import idempotency, partitions
from . import keys, scripts
from .errors import REFUSALS, PartitionRefused, ReplyLost, StoreUnavailable

if TYPE_CHECKING:
    from sqlalchemy import Connection as SqlConnection

    from ..catalog.model import Feature
    from ..catalog.snapshot import Catalog
    from .engine import Engine

ATTEMPTS_MAX = 20
ASKED_MAX = 3
"""Look-ups of a key in SQL before the partition itself is looked at."""


FINAL = frozenset((b"CONFLICT", b"FULL", b"REFUSED", b"RANGE", b"SLOTS"))
"""Codes of refusals that nothing done first would change."""


class CustomerMissing(Exception):
    """There is no such customer."""


class EntityMissing(Exception):
    """The customer has no such entity."""


class Refused(Exception):
    """The script refused the call and changed nothing. `code` is the script's; `feature` the number
    of the feature it stopped at, from 0."""

    def __init__(self, code: str, feature: int = 0):
        super().__init__(code)
        self.code = code
        self.feature = feature


@dataclass(slots=True)  # not frozen: that would treble what making one costs
class Spend:
    """One decoded check or track. Amounts are scaled by their feature's precision; `mode` is cap,
    reject or overflow for track and 'send' or '' for check."""

    script: scripts.Script
    customer_id: str
    entity_id: str
    features: tuple[tuple[Feature, int], ...]
    mode: str
    info: bytes = b""
    key: str = ""
    fingerprint: bytes = b""

    @property
    def changes_nothing(self) -> bool:
        """Whether sending it twice does no harm: a check that spends nothing."""
        return self.script is scripts.CHECK and self.mode != "send"


@dataclass(slots=True)
class Result:
    """A script's answer. `fields` names the features of `blobs`: packed buckets, b"" where nothing
    is held; `entity_blobs` those of the calling entity, or lists of the entities' own."""

    event_id: str
    now_ms: int
    fields: tuple[str, ...]
    blobs: Sequence[bytes]
    entity_blobs: Sequence[Any]
    deltas: Sequence[Any]
    slots: Sequence[Any]
    replayed: bool = False
    applied: Sequence[int] = ()
    held: Sequence[int] = ()
    allowed: bool = True
    reason: str = ""
    shown: int = 0
    required: int = 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a call of certain features says to a script beside its amounts: `fields` the features
    it touches, each once; `spec` each feature's place among them and its credit systems'."""

    fields: tuple[str, ...]
    spec: tuple[tuple[str, int, tuple[Any, ...]], ...]
    bucket_fields: tuple[str, ...]
    attached_fields: tuple[str, ...]


def _plan(features: tuple[str, ...], catalog: Catalog) -> _Plan:
    """The plan of these features, worked out once for each catalog."""
    known: _Plan | None = catalog.call_plans.get(features)
    if known is not None:
        return known
    touched: dict[str, int] = {}
    spec = []
    for feature_id in features:
        at = touched.setdefault(feature_id, len(touched) + 1)
        systems: list[Any] = []
        for system in catalog.systems_of.get(feature_id, ()):
            systems += [touched.setdefault(system.feature_id, len(touched) + 1), system.n, system.d]
        spec.append((feature_id, at, (len(systems) // 3, *systems)))
    fields = tuple(touched)
    plan = _Plan(
        fields, tuple(spec), ("h", *(f"b:{name}" for name in fields)), tuple(f"a:{name}" for name in fields)
    )
    catalog.call_plans[features] = plan
    return plan


def arguments(call: Spend, catalog: Catalog, settings: Any, looked_up: str) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """The script's own arguments (after generation and run_id) and the features they touch."""
    plan = _plan(tuple([feature.id for feature, _ in call.features]), catalog)
    spec: list[Any] = []
    for (feature_id, at, systems), (_, amount) in zip(plan.spec, call.features):
        spec += (feature_id, at, amount, *systems)
    if call.entity_id:
        rest: tuple[str, ...] = (
            f"e:{call.entity_id}", *(f"x:{name}\0{call.entity_id}" for name in plan.fields)
        )
    else:
        rest = plan.attached_fields
    mode = call.mode if call.script is scripts.TRACK else ("1" if call.mode == "send" else "0")
    return (
        mode, call.entity_id, call.info, call.fingerprint, settings.idempotency_ttl_s * 1000, looked_up,
        settings.idempotency_bytes_max // settings.partitions, len(plan.fields), *plan.bucket_fields, *rest,
        len(call.features), *spec,
    ), plan.fields


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
    p = engine.partition_of(call.customer_id)
    generation = engine.partitions.generation(p, connection.run_id)
    if generation is None:
        return False
    script_keys, _digest = _keys(p, call)
    args, fields = arguments(call, catalog, engine.settings, "")

    def outcome(reply: Any) -> Result | Exception | None:
        if isinstance(reply, Exception):
            return None if isinstance(reply, StoreUnavailable) or str(reply).startswith(REFUSALS) else reply
        code, *rest = reply
        if code == b"OK":
            if rest[0]:
                engine.partitions.acknowledge(p, *map(int, rest[0].split(b"-")))
            return _result(call, p, rest[0], fields, rest[1:])
        if code == b"REPLAY":
            return _result(call, p, rest[0], fields, msgpack.unpackb(rest[1], raw=True), replayed=True)
        return Refused(code.decode(), rest[0] - 1 if rest else 0) if code in FINAL else None

    def replied(reply: Any) -> None:
        try:
            found = outcome(reply)
        except Exception as fault:  # here it would end the connection, and this call never be answered
            found = fault
        done(found)

    connection.run_script(call.script, script_keys, (generation, connection.run_id, *args), replied)
    return True


def _keys(p: int, call: Spend) -> tuple[tuple[bytes, ...], bytes]:
    """The script's keys, and the digest of the call's key (b"" without one)."""
    name = call.customer_id
    script_keys = (keys.meta(p), keys.customer(p, name), keys.log(p), keys.entities(p, name))
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
            code, *rest = await engine.run(call.script, p, script_keys, args)
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
        if code == b"OK":
            result = _result(call, p, rest[0], fields, rest[1:])
            if rest[0]:
                engine.partitions.acknowledge(p, *map(int, rest[0].split(b"-")))
            return result
        if code == b"MISSING":
            if await engine.project(call.customer_id) is None:
                raise CustomerMissing(call.customer_id)
        elif code == b"REPLAY":
            return _result(call, p, rest[0], fields, msgpack.unpackb(rest[1], raw=True), replayed=not resent)
        elif code == b"ASK":
            if attempt > ASKED_MAX:
                await engine.verify(p)
            looked_up, found = await engine.store.read(_recorded, p, rest[0], digest)
            now_ms = await engine.now_ms()
            if found is not None and found[1][1] > now_ms:
                record_id, record = found
                if record[3] != call.fingerprint:
                    raise Refused("CONFLICT")
                return _result(call, p, record_id, fields, msgpack.unpackb(record[4], raw=True), replayed=not resent)
        elif code == b"ENTITY":
            raise EntityMissing(call.entity_id)
        else:
            raise Refused(code.decode(), rest[0] - 1 if rest else 0)
    raise StoreUnavailable(f"customer {call.customer_id!r} could not be loaded in {ATTEMPTS_MAX} attempts")


def _recorded(
    conn: SqlConnection, p: int, cid: int, digest: bytes
) -> tuple[str, tuple[bytes, list[Any]] | None]:
    """What SQL has under a key, and the snapshot it was looked for in."""
    generation, cursor = partitions.places(conn, [p])[p]
    snapshot = f"{generation} {cursor.gen} {cursor.seq}"
    found = idempotency.find_with_entry(conn, cid, digest)
    return snapshot, None if found is None else (b"%d-%d" % found[:2], msgpack.unpackb(found[2], raw=True))


def _result(
    call: Spend, p: int, entry: bytes, fields: tuple[str, ...], reply: Sequence[Any], replayed: bool = False
) -> Result:
    event_id = keys.event_id(p, *map(int, entry.split(b"-"))) if entry else ""
    if call.script is scripts.TRACK:
        now_ms, applied, _dropped, held, blobs, entity_blobs, deltas, slots = reply
        return Result(event_id, now_ms, fields, blobs, entity_blobs, deltas, slots, replayed, applied, held)
    now_ms, allowed, reason, shown, required, blobs, entity_blobs, deltas, slots = reply
    return Result(
        event_id, now_ms, fields, blobs, entity_blobs, deltas, slots, replayed,
        allowed=bool(allowed), reason=reason.decode(), shown=shown, required=required,
    )

