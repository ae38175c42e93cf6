"""One decoded check or track, and what it says to its script."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Sequence

import msgpack
import msgspec

from . import scripts

if TYPE_CHECKING:
    from ..catalog.model import Feature
    from ..catalog.snapshot import Catalog

_AMOUNT, _KEPT, _TEXT = struct.Struct(">q"), struct.Struct(">qqB"), struct.Struct(">BI")


class Lock(msgspec.Struct, frozen=True):
    """What makes a check a hold: its id, when it ends by itself (0: after `life_ms`, as late as it
    may), how many a customer may have open, and when the id was claimed."""

    lock_id: str
    expires_at: int
    life_ms: int = 0
    open_max: int = 0
    claimed_ms: int = 0


class Refunded(msgspec.Struct):
    """The event that a call gives back: its log entry, when it was, per feature the units applied
    and what each bucket paid; the hold it was, if any; the credit systems that paid. `returned` is
    what SQL says was given back before, once it was asked, and of which snapshot that is."""

    gen: int
    seq: int
    made_ms: int
    event: Sequence[tuple[int, Sequence[Any]]]
    lock_id: str = ""
    systems: tuple[str, ...] = ()
    returned: bytes = b""
    returned_from: str = ""


class Spend(msgspec.Struct):  # made in C, in a fourth of the time that a dataclass takes
    """One decoded check or track. Amounts are scaled by their feature's precision; `mode` is cap,
    reject or overflow for track and 'send' or '' for check. A check with a `lock` is a hold; a
    track with `refunded` gives an event back, each amount a negative one or 0 for all. Of a `brief`
    track the event's id is answer enough: its result has no balances."""

    script: scripts.Script
    customer_id: str
    entity_id: str
    features: tuple[tuple[Feature, int], ...]
    mode: str
    info: bytes = b""
    key: str = ""
    fingerprint: bytes = b""
    lock: Lock | None = None
    refunded: Refunded | None = None
    brief: bool = False

    @property
    def changes_nothing(self) -> bool:
        """Whether sending it twice does no harm: a check that spends nothing."""
        return self.script is scripts.CHECK and self.mode != "send"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a call of certain features says to a script beside its amounts: `fields` the features
    it touches, each once; `spec` each feature's place among them and its credit systems'."""

    fields: tuple[str, ...]
    spec: tuple[tuple[str, int, tuple[Any, ...]], ...]
    bucket_fields: tuple[str, ...]
    attached_fields: tuple[str, ...]
    frames: dict[Any, Any] = field(default_factory=dict)
    """What command.py has packed for calls of these features."""

    def state_fields(self, entity_id: str) -> tuple[str, ...]:
        """The fields of the state to read beside the customer's buckets."""
        if not entity_id:
            return self.attached_fields
        return (f"e:{entity_id}", *(f"x:{name}\0{entity_id}" for name in self.fields))


def plan_of(features: tuple[str, ...], catalog: Catalog, also: tuple[str, ...] = ()) -> Plan:
    """The plan of these features, worked out once for each catalog; `also` are features to be
    touched that the catalog may not name as their credit systems any more."""
    known: Plan | None = None if also else catalog.call_plans.get(features)
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
    for name in also:
        touched.setdefault(name, len(touched) + 1)
    fields = tuple(touched)
    plan = Plan(
        fields, tuple(spec), ("h", *(f"b:{name}" for name in fields)), tuple(f"a:{name}" for name in fields)
    )
    if not also:
        catalog.call_plans[features] = plan
    return plan


def arguments(call: Spend, catalog: Catalog, settings: Any, looked_up: str) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """The script's own arguments (after generation and run_id) and the features they touch."""
    also = call.refunded.systems if call.refunded is not None else ()
    plan = plan_of(tuple([feature.id for feature, _ in call.features]), catalog, also)
    if call.lock is None and call.refunded is None:
        said = packed_call(call, plan, int(settings.persist_free_overage)), b"".join([_AMOUNT.pack(amount) for _, amount in call.features])
        if not call.key:
            return (*said, packed_text(call.info)) if is_logged(call) else said, plan.fields
        kept = packed_kept(settings.idempotency_ttl_s * 1000, settings.idempotency_bytes_max // settings.partitions, call.fingerprint)
        return (*said, packed_text(call.info), kept, *([looked_up] if looked_up else [])), plan.fields
    more: tuple[Any, ...]
    if call.lock is not None:
        lock = call.lock
        first = lock.lock_id
        more = (lock.expires_at, call.customer_id, lock.open_max, lock.life_ms, lock.claimed_ms)
    else:
        assert call.refunded is not None
        of = call.refunded
        first = call.mode
        more = (of.gen, of.seq, of.made_ms, msgpack.packb(of.event), of.returned, of.returned_from, of.lock_id)
    return (
        int(settings.persist_free_overage), first, call.entity_id, call.info, call.fingerprint,
        settings.idempotency_ttl_s * 1000, looked_up,
        settings.idempotency_bytes_max // settings.partitions, len(plan.fields), *more,
        *of_features(plan, call.entity_id, [amount for _, amount in call.features]),
    ), plan.fields


def of_features(plan: Plan, entity_id: str, amounts: Sequence[int]) -> list[Any]:
    """What a script is told of the features: the fields to read, then each feature with its amount."""
    told: list[Any] = [*plan.bucket_fields, *plan.state_fields(entity_id), len(plan.spec)]
    for (feature_id, at, systems), amount in zip(plan.spec, amounts):
        told += (feature_id, at, amount, *systems)
    return told


def packed_call(call: Spend, plan: Plan, carry_debts: int) -> bytes:
    """What all calls like this one say to check.lua or track.lua, whatever their amounts; see
    lua/include/begin_directly.lua."""
    is_track = call.script is scripts.TRACK
    choice = call.brief if is_track else call.mode == "send"
    feature_id, _, _ = plan.spec[0]
    single = len(plan.fields) == len(plan.spec) == 1 and not call.entity_id
    names = (plan.bucket_fields[1].encode(), plan.attached_fields[0].encode(), b"\0\1%b\xd3" % packed_text(feature_id.encode()))
    parts = [struct.pack(">BB", single, choice)]
    for name in names if single else (b"", b"", b""):
        parts.append(struct.pack(">H", len(name)) + name)
    told = of_features(plan, call.entity_id, [0] * len(plan.spec))  # the script puts the amounts in
    words = ["", "", str(carry_debts), call.mode, call.entity_id, len(plan.fields), *told]
    return b"".join((*parts, msgpack.packb(words)))


def is_logged(call: Spend) -> bool:
    """Whether a check or track may become an event of its own, whose info the log keeps."""
    return call.script is scripts.TRACK or call.mode == "send"


def packed_kept(ttl_ms: int, bytes_max: int, fingerprint: bytes) -> bytes:
    """What check.lua and track.lua are told of a call's key."""
    return _KEPT.pack(ttl_ms, bytes_max, len(fingerprint)) + fingerprint


def packed_text(data: bytes) -> bytes:
    """A string as the log has it: MessagePack, its size in four bytes."""
    return _TEXT.pack(219, len(data)) + data
