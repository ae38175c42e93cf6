"""The real side of the property test of the whole engine: holds, exact refunds, caps and corrections
beside the calls of `subject`. Arguments are put together by the names that each script gives them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

import msgpack

from sidecar.domain import layout
from sidecar.engine import keys, scripts
from sidecar.engine.call import plan_of
from tests.model.buckets import Bucket
from tests.model.caps import Caps

from .subject import CID, Subject, _record, row_of

TTL_MS = 86_400_000
PLAIN: dict[str, Any] = {
    "info": b"", "fingerprint": b"", "ttl_ms": TTL_MS, "looked_up": "", "bytes_max": 1 << 30, "holds_max": 100,
    "settled_ttl_ms": TTL_MS, "hold_max_ms": 1 << 40, "claimed_ms": 0, "returned": b"", "returned_from": "", "lock_id": "",
}


@dataclass(frozen=True)
class Entry:
    """An event in the log: its entry, time, entity, and per feature what was applied and the parts."""

    gen: int
    seq: int
    ms: int
    entity_id: str
    shares: tuple[tuple[str, int, list[Any]], ...]


class Verbs(Subject):
    """A customer on whom everything can be done."""

    def hold(self, lock_id: str, feature_id: str, amount: int, entity_id: str, expires_at: int) -> list[Any]:
        """hold.lua's answer."""
        return self._call(
            scripts.HOLD, {feature_id: amount}, entity_id, self._hold_keys, lock_id=lock_id, expires_at=expires_at
        )

    def settle(self, lock_id: str, feature_id: str, entity_id: str, action: str, final: Any = "") -> list[Any]:
        """settle.lua's answer."""
        more_keys = (*self._hold_keys, keys.settled(0, f"{self._id} {lock_id}"))
        return self._call(
            scripts.SETTLE, {feature_id: 0}, entity_id, more_keys, lock_id=lock_id, action=action, final=final
        )

    def refund(self, event: Entry, amounts: Sequence[int], mode: str, lock_id: str) -> list[Any]:
        """refund.lua's answer; `amounts` are negative, 0 for all that is left."""
        told = msgpack.packb([[applied, parts] for _, applied, parts in event.shares])
        return self._call(
            scripts.REFUND, dict(zip((name for name, _, _ in event.shares), amounts)), event.entity_id, (), mode=mode,
            gen=event.gen, seq=event.seq, made_ms=event.ms, event=told, lock_id=lock_id,
        )

    def last_entry(self) -> Entry:
        """The newest event in the log."""
        ((entry_id, fields),) = self._real.client.xrevrange(keys.log(0), count=1)
        gen, seq = map(int, entry_id.split(b"-"))
        record = _record(fields[b"d"])
        rest = list(record[7:])
        del rest[: 1 + 7 * rest[0]]
        shares = []
        for _ in range(rest.pop(0)):
            name, _, applied, count = rest[:4]
            shares.append((name, applied, rest[4 : 4 + count]))
            del rest[: 4 + count]
        return Entry(gen, seq, record[3], record[5], tuple(shares))

    def set_caps(self, feature_id: str, entity_id: str, caps: Caps | None, is_system: bool) -> None:
        """Puts caps in force by a step."""
        data = b""
        if caps is not None:
            flat = [False if entries is None else [n for entry in entries for n in entry] for entries in (caps.spend, caps.windows)]
            said = [2, flat[0], -1 if caps.control is None else int(caps.control), flat[1]]
            data = msgpack.packb([*said, 1] if is_system else said)
        self._step(["caps", feature_id, entity_id, data])

    def correct(self, feature_id: str, entity_id: str, numbers: list[int], what: str, value: int) -> bool:
        """Sets or adds to what these buckets hold, by a step; whether it was refused."""
        return self._step(["set", feature_id, entity_id, numbers, what, value])

    def set_grant(self, bucket: Bucket, granted: int) -> None:
        """Changes a bucket's grant by a step."""
        prepaid = row_of(bucket).prepaid
        self._step(["grant", bucket.feature_id, bucket.entity_id, bucket.no, granted - prepaid])

    def recalculate(self, feature_id: str, entity_id: str) -> None:
        """Spends all usage again by a step."""
        self._step(["recalc", feature_id, entity_id])

    def delete(self, bucket: Bucket, respend: bool) -> None:
        """Removes a bucket by a step, its usage spent again or not."""
        self._step(["drop", bucket.feature_id, bucket.no, bucket.entity_id, int(respend), 1])

    def open_locks(self) -> list[tuple[str, int]]:
        """The open holds and their ends, soonest first."""
        return [(name.decode(), int(end)) for name, end in self._real.client.zrange(self._hold_keys[0], 0, -1, withscores=True)]

    def _call(self, script: scripts.Script, amounts: dict[str, int], entity_id: str, more_keys: tuple[bytes, ...], **named: Any) -> list[Any]:
        plan = plan_of(tuple(amounts), self._catalog)
        spec: list[Any] = []
        for (feature_id, at, systems), amount in zip(plan.spec, amounts.values()):
            spec += (feature_id, at, amount, *systems)
        values = {**PLAIN, "carry_debts": self.carry_debts, "entity_id": entity_id, "count": len(plan.fields), "customer_id": self._id, **named}
        args = [values[name] for name in script.args[2:-1]]
        args += [*plan.bucket_fields, *plan.state_fields(entity_id), len(amounts), *spec]
        return self._real.run(script.name, self._keys + more_keys, tuple(args))

    def _step(self, op: list[Any]) -> bool:
        self._version += 1
        step = msgpack.packb({"v": self._version, "at": 0, "ops": [op]}, use_bin_type=False)
        script_keys = self._keys + self._hold_keys
        code, version, refused = self._real.run("project", script_keys, (self.carry_debts, CID, self._id, step))
        assert code == b"OK" and version == self._version and len(refused) == 1
        return bool(refused[0])


def windows_of(raw: dict[bytes, bytes]) -> dict[tuple[str, str, int, int], tuple[int, int]]:
    """(start, used) of every window counter in a customer's hash, by feature, entity, interval, anchor."""
    found = {}
    for name, value in raw.items():
        if name[:2] == b"w:":
            feature_id, _, entity_id = name[2:].decode().partition("\0")
            _, *flat = msgpack.unpackb(value)
            for at in range(0, len(flat), 5):
                interval, anchor, start, _, used = flat[at : at + 5]
                found[feature_id, entity_id, interval, anchor] = start, used
    return found


def rows_by_feature(rows: dict[int, tuple[str, layout.Row]]) -> dict[str, list[layout.Row]]:
    """Rows of each feature."""
    found: dict[str, list[layout.Row]] = {}
    for feature_id, row in rows.values():
        found.setdefault(feature_id, []).append(row)
    return found
