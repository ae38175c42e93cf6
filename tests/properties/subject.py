"""The real side of the property tests: one customer in Redis, acted on by the scripts themselves.

It speaks to a real server through the shipped (or a patched) lua/ folder, one script a call, and
reads the customer's state back from its hash and its log. It decides nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack
import redis

from sidecar.catalog.snapshot import Catalog
from sidecar.domain import layout
from sidecar.engine import keys, scripts
from sidecar.engine.call import Spend, arguments
from sidecar.settings import Settings
from tests.lua.scripted import in_full
from tests.model.account import CUSTOMER, Bucket

GENERATION, RUN_ID, CID = b"1", b"r", 7
DRIFT_MS_MAX = 5_000


class Scripts:
    """The scripts of a lua folder on a server, and partition 0 opened for them."""

    def __init__(self, client: redis.Redis, folder: Path | None = None):
        self.client = client
        self._offset_ms = 0
        self._sources = {
            script.name: scripts.build((folder or scripts.lua_dir()) / f"{script.name}.lua") for script in scripts.SCRIPTS
        }
        self._loaded = {name: client.script_load(source) for name, source in self._sources.items()}
        client.hset(keys.meta(0), mapping={"gen": GENERATION, "run": RUN_ID, "n": 1})

    def run(self, name: str, script_keys: tuple[bytes, ...], args: tuple[Any, ...]) -> list[Any]:
        """A fenced script's answer."""
        return self.client.evalsha(
            self._loaded[name], len(script_keys), *script_keys, GENERATION, RUN_ID, *args
        )

    def set_clock(self, now_ms: int) -> None:
        """Makes the scripts' clock say `now_ms`, or up to `DRIFT_MS_MAX` later."""
        real_ms = time.time_ns() // 1_000_000
        if not 0 <= self._offset_ms + real_ms - now_ms <= DRIFT_MS_MAX:
            self._offset_ms = now_ms - real_ms
            self.client.hset(keys.meta(0), "off", self._offset_ms)


@dataclass
class State:
    """A customer as Redis holds it: bucket rows by number, slots by (number, entity)."""

    raw: dict[bytes, bytes]
    rows: dict[int, tuple[str, layout.Row]] = field(default_factory=dict)
    slots: dict[tuple[int, str], layout.Slot] = field(default_factory=dict)
    entities: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    members: set[tuple[str, str]] = field(default_factory=set)


    def blobs(self, touched: list[str], entity_id: str) -> tuple[list[bytes], list[Any]]:
        """What check and track should say of these features: the customer's packed buckets, and
        the entity's, or lists of those of entities with buckets of their own."""
        own = [self.raw.get(b"b:" + f.encode(), b"") for f in touched]
        if entity_id:
            shares = [self.raw.get(keys.entity_field(f, entity_id), b"") for f in touched]
            return own, [*shares, self.entities[entity_id].encode()]
        lists = [msgpack.unpackb(self.raw.get(b"a:" + f.encode(), b"\x90")) for f in touched]
        return own, [[self.raw[keys.entity_field(f, e)] for e in ids] for f, ids in zip(touched, lists)]


class Subject:
    """One customer of a catalog, without buckets at first."""

    carry_debts = 0
    """1 where overage of free buckets outlives a reset."""

    def __init__(self, real: Scripts, customer_id: str, catalog: Catalog, settings: Settings):
        self._real = real
        self._id = customer_id
        self._catalog = catalog
        self._settings = settings
        self._version = 0
        self._keys = (keys.meta(0), keys.customer(0, customer_id), keys.log(0), keys.entities(0, customer_id))
        header = layout.pack_header(layout.Header(CID, 0, 0, 0, 0))
        meta, customer, _, entities = self._keys
        self._hold_keys = (keys.locks(0, customer_id), keys.holds(0))
        snapshot = (GENERATION, 0, -1, CID, customer_id, msgpack.packb([]), msgpack.packb([]), header)
        loaded = real.run("load", (meta, customer, entities, *self._hold_keys), snapshot)
        _expect(loaded == [b"OK"], "the customer was not loaded")
        self._log_from = real.client.xinfo_stream(keys.log(0))["last-generated-id"] if real.client.exists(keys.log(0)) else "-"

    # -- calls -----------------------------------------------------------------------------------

    def track(self, values: dict[str, int], mode: str, entity_id: str, key: str | None, fingerprint: bytes) -> list[Any]:
        """track.lua's answer."""
        return self._spend(scripts.TRACK, mode, values, entity_id, key, fingerprint)

    def check(self, feature_id: str, required: int, entity_id: str, send: bool, key: str | None, fingerprint: bytes) -> list[Any]:
        """check.lua's answer."""
        return self._spend(scripts.CHECK, "send" if send else "", {feature_id: required}, entity_id, key, fingerprint)

    def grant(self, bucket: Bucket) -> None:
        """Adds a bucket by a step."""
        self._step(["add", bucket.feature_id, list(row_of(bucket)), [], 0, 0])

    def revoke(self, bucket: Bucket) -> None:
        """Removes a bucket by a step."""
        self._step(["drop", bucket.feature_id, bucket.no, bucket.entity_id])

    def open_entity(self, entity_id: str, feature_id: str, seat: int) -> bool:
        """Creates an entity by a step; whether it was accepted."""
        return not self._step(["entity", entity_id, feature_id, seat, 1])

    def close_entity(self, entity_id: str, feature_id: str, seat: int) -> None:
        """Deletes an entity by a step."""
        self._step(["unentity", entity_id, feature_id, seat])

    def look(self) -> None:
        """Reads the whole customer, which does what is due."""
        _expect(self._real.run("view", self._keys, (self.carry_debts, 1))[0] == b"OK", "the customer was not read")

    # -- what is there ---------------------------------------------------------------------------

    def state(self) -> State:
        """The customer's hash and entity set, decoded."""
        pipeline = self._real.client.pipeline(transaction=False)
        raw, members = pipeline.hgetall(self._keys[1]).zrange(self._keys[3], 0, -1).execute()
        found = State(raw)
        for name, value in raw.items():
            kind, rest = name[:2], name[2:]
            if kind in (b"b:", b"x:"):
                feature_id, _, entity_id = rest.decode().partition("\0")
                blob = layout.unpack(value)
                found.rows |= {row.no: (feature_id, row) for row in blob.rows}
                found.slots |= {(slot.no, entity_id): slot for slot in blob.slots}
            elif kind == b"e:":
                found.entities[rest.decode()] = value.decode()
            elif kind == b"n:":
                found.counts[rest.decode()] = int(value)
        found.members = {tuple(member.decode().split("\0")) for member in members}
        return found

    def records(self) -> list[Any]:
        """The customer's log records, decoded, in order."""
        start = "-" if self._log_from == "-" else "(" + _text(self._log_from)
        return [_record(fields[b"d"]) for _, fields in self._real.client.xrange(keys.log(0), start)]

    def touched(self, values: dict[str, int]) -> list[str]:
        """The features a call reads: its own and their systems', each once."""
        names = [name for f in values for name in (f, *(s.feature_id for s in self._catalog.systems_of.get(f, ())))]
        return list(dict.fromkeys(names))

    # -- within ----------------------------------------------------------------------------------

    def _spend(
        self, script: scripts.Script, mode: str, values: dict[str, int], entity_id: str, key: str | None, fingerprint: bytes
    ) -> list[Any]:
        features = tuple((self._catalog.features[name], amount) for name, amount in values.items())
        call = Spend(
            script, self._id, entity_id, features, mode, key=key or "", fingerprint=fingerprint if key else b""
        )
        args, _ = arguments(call, self._catalog, self._settings, looked_up="")
        record = () if key is None else (keys.record(0, keys.digest(self._id, key)),)
        answer = self._real.run(script.name, self._keys + record, args)
        return in_full(answer, *values.values()) if script is scripts.CHECK else answer

    def _step(self, op: list[Any]) -> bool:
        """Applies one step; whether it was refused."""
        self._version += 1
        step = msgpack.packb({"v": self._version, "at": 0, "ops": [op]})
        code, version, refused = self._real.run("project", self._keys + self._hold_keys, (self.carry_debts, CID, self._id, step))
        _expect(code == b"OK" and version == self._version and len(refused) == 1, "the step was not applied")
        return bool(refused[0])


def _expect(condition: bool, otherwise: str) -> None:
    """Not an assertion: what goes wrong here is the test's own doing, and no bug that was found."""
    if not condition:
        raise RuntimeError(otherwise)


def row_of(bucket: Bucket) -> layout.Row:
    """The row by which a step grants a bucket of the model."""
    flags = sum(flag for flag, is_set in (
        (layout.UNLIMITED, bucket.unlimited), (layout.USAGE_ALLOWED, bucket.usage_allowed),
        (layout.PREPAID, bucket.paid and not bucket.usage_allowed), (layout.PAID, bucket.paid),
        (layout.CONTINUOUS, bucket.feature_id in ("seat", "room")), (layout.ADD_ON, bucket.add_on),
        (layout.PER_ENTITY, bucket.per_entity), (layout.BOOLEAN, bucket.feature_id == "flag"),
    ) if is_set)
    return layout.Row(
        no=bucket.no, balance=bucket.balance, granted=bucket.granted, flags=flags,
        purchasable=-1 if bucket.purchasable is None else bucket.purchasable,
        next_reset_at=bucket.next_reset_at, expires_at=bucket.expires_at, anchor=bucket.anchor,
        interval=bucket.interval, interval_count=bucket.interval_count, entity_id=bucket.entity_id or CUSTOMER,
        plan_id=bucket.plan_id, prepaid=bucket.granted if bucket.paid and not bucket.usage_allowed else 0, item=0,
        created_at=bucket.created_at, slots=0, over=0, entity_feature=bucket.entity_feature, **_roll_columns(bucket),
    )


def _roll_columns(bucket: Bucket) -> dict[str, int]:
    rule = bucket.rolls
    if rule is None:
        return {}
    return {
        "roll_length": rule.length, "roll_max": -1 if rule.max is None else rule.max,
        "roll_percent": -1 if rule.percent is None else rule.percent,
    }


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _record(data: bytes) -> Any:
    """Lua has one string type: ids are text in a record, and so, to msgpack, are its bytes."""
    return msgpack.unpackb(data, unicode_errors="surrogateescape", strict_map_key=False)
