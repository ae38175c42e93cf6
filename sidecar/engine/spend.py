"""check and track as pure steps around one round trip: a call to script arguments, and the script's
answer to a result. `run` makes the trip and does what an answer asks for first (loading a customer,
looking a key up in SQL). This module knows nothing of HTTP or API versions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Sequence

import msgpack

from ..store import idempotency, partitions
from . import keys, scripts
from .errors import ReplyLost, StoreUnavailable

if TYPE_CHECKING:
    from sqlalchemy import Connection as SqlConnection

    from ..catalog.model import Feature
    from ..catalog.snapshot import Catalog
    from .engine import Engine

ATTEMPTS_MAX = 20
ASKED_MAX = 3
"""Look-ups of a key in SQL before the partition itself is looked at."""


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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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


@dataclass(slots=True)
class _Plan:
    """The features a call touches, each once, and where the call's features find theirs."""

    fields: list[str] = field(default_factory=list)
    spec: list[Any] = field(default_factory=list)

    def index(self, feature_id: str) -> int:
        if feature_id not in self.fields:
            self.fields.append(feature_id)
        return self.fields.index(feature_id) + 1


def arguments(call: Spend, catalog: Catalog, settings: Any, looked_up: str) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """The script's own arguments (after generation and run_id) and the features they touch."""
    plan = _Plan()
    for feature, amount in call.features:
        systems = catalog.systems_of.get(feature.id, ())
        plan.spec += [feature.id, plan.index(feature.id), amount, len(systems)]
        for system in systems:
            plan.spec += [plan.index(system.feature_id), system.n, system.d]
    fields: list[Any] = ["h", *(f"b:{name}" for name in plan.fields)]
    if call.entity_id:
        fields.append(f"e:{call.entity_id}")
        fields += [f"x:{name}\0{call.entity_id}" for name in plan.fields]
    else:
        fields += [f"a:{name}" for name in plan.fields]
    mode = call.mode if call.script is scripts.TRACK else ("1" if call.mode == "send" else "0")
    return (
        mode, call.entity_id, call.info, call.fingerprint, settings.idempotency_ttl_s * 1000, looked_up,
        settings.idempotency_bytes_max // settings.partitions, len(plan.fields), *fields, len(call.features), *plan.spec,
    ), tuple(plan.fields)


async def run(engine: Engine, catalog: Catalog, call: Spend) -> Result:
    """Makes the call and returns its result, of the first time if its key was used before.

    Raises CustomerMissing, EntityMissing, Refused, StoreUnavailable (it did not run) and ReplyLost
    (nobody knows, and there is no key to find out by)."""
    p = engine.partition_of(call.customer_id)
    script_keys = [keys.meta(p), keys.customer(p, call.customer_id), keys.log(p), keys.entities(p, call.customer_id)]
    digest = b""
    if call.key:
        digest = keys.digest(call.customer_id, call.key)
        script_keys.append(keys.record(p, digest))
    looked_up, resent = "", False
    for attempt in range(ATTEMPTS_MAX):
        args, fields = arguments(call, catalog, engine.settings, looked_up)
        try:
            code, *rest = await engine.run(call.script, p, tuple(script_keys), args)
        except ReplyLost:
            if call.changes_nothing and not resent:
                resent = True
                continue
            if not call.key or resent:
                raise
            resent = True  # the key finds out whether it ran
            continue
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

