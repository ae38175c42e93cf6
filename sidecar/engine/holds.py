"""Holds: making one under a lock id, settling it, and ending those whose time is over. The receipt of
a hold lives with the customer. It must not know about HTTP.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgpack
from msgspec.structs import replace

from ..domain.quantities import scale
from ..store import holds
from . import archive, keys, locks, scripts, spend
from .errors import PartitionRefused, ReplyLost, StoreUnavailable
from .locks import KEPT_MS, LockTaken, Owner
from .call import Lock, Spend, plan_of
from .spend import CustomerMissing, EntityMissing, Refused, Result

if TYPE_CHECKING:
    from ..catalog.snapshot import Catalog
    from .engine import Engine

OPEN_MAX = 10_000
"""How many holds a customer may have open at once."""

DUE_PAGE = 500
AS_IT_IS = ("h", 0)
"""What the script reads, and no feature, where nothing is spent beyond the hold."""

CONFIRMED, RELEASED, EXPIRED = "confirmed", "released", "expired"
OUTCOMES = {1: CONFIRMED, 2: RELEASED, 3: EXPIRED}


class HoldMissing(Exception):
    """No hold of that name is known."""


class FeatureMissing(Exception):
    """The catalog has no such feature."""


class HoldEnded(Exception):
    """The hold was settled before. `outcome`: confirmed, released or expired; `final` what it came
    to, scaled; `feature_id` of what."""

    def __init__(self, outcome: str, final: int, feature_id: str):
        super().__init__(outcome)
        self.outcome = outcome
        self.final = final
        self.feature_id = feature_id


@dataclass(frozen=True, slots=True)
class Settlement:
    """A caller's finalize: `action` confirm or release, `value` what was used in the end where that
    is not what is held."""

    lock_id: str
    action: str
    value: int | Decimal | None = None
    info: bytes = b""
    key: str = ""
    fingerprint: bytes = b""


@dataclass(frozen=True, slots=True)
class Settled:
    """What a hold came to, `final` scaled."""

    outcome: str
    final: int
    replayed: bool = False


# -- making a hold ---------------------------------------------------------------------------------


async def hold(engine: Engine, catalog: Catalog, call: Spend, resent: bool = False) -> Result:
    """Makes a check with a lock. As `spend.run`; Refused LOCKED when the lock id is in use."""
    assert call.lock is not None
    lock = replace(call.lock, life_ms=engine.settings.hold_max_s * 1000, open_max=OPEN_MAX, claimed_ms=await engine.now_ms())
    mine = msgpack.packb([call.customer_id, call.features[0][0].id, call.entity_id, lock.claimed_ms])
    try:
        before = await locks.claim(engine, lock, mine)
    except LockTaken:
        return await _repeated(engine, catalog, call, lock, resent)
    try:
        result = await spend.run(engine, catalog, replace(call, lock=lock), resent)
    except (CustomerMissing, EntityMissing, Refused):
        await locks.give_back(engine, lock.lock_id, mine, before)
        raise
    other = result.replayed and (before or result.lock_id != lock.lock_id)
    if other or not result.event_id:
        await locks.give_back(engine, lock.lock_id, mine, before)
    return result


async def _repeated(engine: Engine, catalog: Catalog, call: Spend, lock: Lock, resent: bool) -> Result:
    """The first answer, if the one who has the lock id is this very call, made before: a hold where
    none more may be open, which only a repeat gets past."""
    if not call.key:
        raise Refused("LOCKED")
    try:
        return await spend.run(engine, catalog, replace(call, lock=replace(lock, open_max=0)), resent)
    except Refused as refusal:
        raise Refused("LOCKED") if refusal.code == "MANY" else refusal from None


# -- settling it -----------------------------------------------------------------------------------


async def settle(engine: Engine, catalog: Catalog, asked: Settlement) -> Settled:
    """Confirms or releases a hold, once. Raises HoldMissing, HoldEnded, QuantityError for a value
    that does not fit, FeatureMissing where its feature is not in the catalog, Refused (CONFLICT,
    FULL, RANGE, SLOTS), and the engine's errors."""
    owner = await locks.owner_of(engine, asked.lock_id)
    if owner is None:
        raise HoldMissing(asked.lock_id)
    if asked.value is None:
        return await _settle(engine, owner, asked, "", AS_IT_IS, "", ())
    feature = catalog.features.get(owner.feature_id)
    if feature is None:
        raise FeatureMissing(owner.feature_id)
    final = scale(asked.value, feature.precision)
    plan = plan_of((feature.id,), catalog)
    (_, at, systems), = plan.spec
    while True:
        fields = (*plan.bucket_fields, *plan.state_fields(owner.entity_id), 1, feature.id, at, 0, *systems)
        try:
            return await _settle(engine, owner, asked, final, fields, owner.entity_id, plan.fields)
        except EntityMissing:  # deleted meanwhile: what goes beyond the hold is the customer's
            owner = owner._replace(entity_id="")


async def expire_hold(engine: Engine, customer_id: str, lock_id: str) -> bool:
    """Ends a hold whose time is over: everything it has goes back. False if there is none, or its
    time is not over. Raises the engine's errors."""
    owner = Owner(customer_id, "", "")
    asked = Settlement(lock_id, "expire", info=msgpack.packb({"s": "expire", "l": lock_id}))
    try:
        await _settle(engine, owner, asked, "", AS_IT_IS, "", ())
    except (HoldMissing, HoldEnded, CustomerMissing, Refused):
        return False
    return True


async def expire_due(engine: Engine) -> int:
    """Ends every hold whose time is over; how many."""
    now_ms = await engine.now_ms()
    connection = await engine.connected()
    ended = 0
    for _ in range(OPEN_MAX):
        found = await asyncio.gather(*(
            connection.call("ZRANGE", keys.holds(p), "-inf", now_ms, "BYSCORE", "LIMIT", 0, DUE_PAGE)
            for p in range(engine.settings.partitions)
        ))
        due = [member.decode().split("\0", 1) for members in found for member in members]
        done = sum(await asyncio.gather(*(expire_hold(engine, *one) for one in due)))
        ended += done
        if not done:
            break
    for one in await engine.store.read(holds.due, now_ms, DUE_PAGE):
        ended += await expire_hold(engine, *one)
    return ended


async def _settle(
    engine: Engine, owner: Owner, asked: Settlement, final: int | str, fields: tuple[Any, ...], entity_id: str,
    touched: tuple[str, ...],
) -> Settled:
    """Runs the script until it answers; `fields` is what it reads of the state, and the feature;
    `touched` the features whose buckets are among them."""
    name, lock_id, settings = owner.customer_id, asked.lock_id, engine.settings
    p = engine.partition_of(name)
    script_keys: tuple[bytes, ...] = (
        *keys.of_customer(p, name), keys.locks(p, name), keys.holds(p), keys.settled(p, lock_id)
    )
    digest = keys.digest(name, asked.key) if asked.key else b""
    if digest:
        script_keys = (*script_keys, keys.record(p, digest))
    looked_up, resent = "", False
    for attempt in range(spend.ATTEMPTS_MAX):
        args = (
            engine.carry_debts, lock_id, entity_id, asked.info, asked.fingerprint, settings.idempotency_ttl_s * 1000,
            looked_up, settings.idempotency_bytes_max // settings.partitions, len(touched), asked.action, final, name, KEPT_MS,
            *fields,
        )
        try:
            code, *rest = await engine.run(scripts.SETTLE, p, script_keys, args)
        except ReplyLost:
            if not asked.key or resent:
                raise
            resent = True  # the key finds out whether it ran
            continue
        except (StoreUnavailable, PartitionRefused) as problem:
            if resent:
                raise ReplyLost(f"its answer was lost, and then: {problem}") from problem
            raise
        if code == b"OK":
            engine.partitions.acknowledge(p, *map(int, rest[0].split(b"-")))
            return Settled(OUTCOMES[rest[1]], rest[2])
        if code == b"REPLAY":
            return _replayed(rest[1], resent)
        if code == b"MISSING":
            if await engine.project(name) is None:
                raise HoldMissing(lock_id)
        elif code == b"ABSENT":
            raise await _ended(engine, lock_id, owner, rest[0])
        elif code == b"EXPIRED":
            raise HoldEnded(EXPIRED, 0, owner.feature_id)
        elif code == b"ENTITY":
            raise EntityMissing(entity_id)
        elif code == b"ASK":
            if attempt > spend.ASKED_MAX:
                await engine.verify(p)
            looked_up, found = await engine.store.read(spend.recorded, p, rest[0], digest)
            if found is not None and found[1].end_ms > await engine.now_ms():
                if found[1].fingerprint != asked.fingerprint:
                    raise Refused("CONFLICT")
                return _replayed(found[1].reply, resent)
        elif code == b"ARCHIVED":
            await archive.restore(engine, name, {*touched, *await _held_features(engine, name, lock_id)}, attempt)
        else:
            raise Refused(code.decode())
    raise StoreUnavailable(f"customer {name!r} could not be loaded in {spend.ATTEMPTS_MAX} attempts")


def _replayed(reply: bytes, resent: bool) -> Settled:
    outcome, final = msgpack.unpackb(reply)
    return Settled(OUTCOMES[outcome], final, replayed=not resent)


async def _held_features(engine: Engine, customer_id: str, lock_id: str) -> set[str]:
    """The features that an open hold has units of, by its receipt."""
    p = engine.partition_of(customer_id)
    packed = await (await engine.connected()).call("HGET", keys.customer(p, customer_id), b"l:" + lock_id.encode())
    if packed is None:
        return set()
    receipt = msgpack.unpackb(msgpack.unpackb(packed, raw=True)[2], raw=True)
    return {name.decode() for name in (receipt[4], *receipt[7][::7])}


async def _ended(engine: Engine, lock_id: str, owner: Owner, settled: bytes) -> Exception:
    """What is to be said of a hold that is not open: by what Redis remembers, else by SQL."""
    if settled:
        outcome, final, *_ = msgpack.unpackb(settled)
        return HoldEnded(OUTCOMES[outcome], final, owner.feature_id)
    _, found = await engine.store.read(locks.in_sql, engine.partition_of(lock_id), lock_id)
    if found is None or found.status == holds.OPEN:
        return HoldMissing(lock_id)
    return HoldEnded(found.status, found.final, found.feature_id)
