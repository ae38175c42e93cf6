"""The shipped scripts on a real Valkey, called one by one; all but check and track with arguments made by hand."""

from __future__ import annotations

import time
from typing import Any, Iterable

import msgpack
import redis

from sidecar.catalog.model import Feature
from sidecar.catalog.snapshot import Catalog
from sidecar.domain import layout
from sidecar.domain.layout import Row
from sidecar.engine import keys, scripts
from sidecar.engine.call import Spend, arguments, packed_call, plan_of
from sidecar.settings import Settings

GENERATION, RUN_ID, CID = 3, b"run", 7
OPEN = b"%b %d" % (RUN_ID, GENERATION)
"""What opened.lua leaves where nothing is out of the ordinary."""
META, LOG = keys.meta(0), keys.log(0)
NOW_MS = time.time_ns() // 1_000_000
DAY_MS = 86_400_000
TTL_MS = 86_400_000


def bucket(no: int, granted: int, **columns: Any) -> Row:
    """A monthly bucket, full, that resets in ten days."""
    values: dict[str, Any] = dict(
        no=no, balance=granted, granted=granted, flags=0, purchasable=-1, next_reset_at=NOW_MS + 10 * DAY_MS, expires_at=0,
        anchor=NOW_MS - 20 * DAY_MS, interval=5, interval_count=1, entity_id="", plan_id="p", prepaid=0, item=1001,
        created_at=NOW_MS - 20 * DAY_MS, slots=0, over=0, entity_feature="",
    )
    return Row(**{**values, **columns})


def due(no: int, granted: int, **columns: Any) -> Row:
    """One whose period is over, half used."""
    return bucket(no, granted, **{"balance": granted // 2, "next_reset_at": NOW_MS - DAY_MS, "anchor": NOW_MS - 32 * DAY_MS, **columns})


def in_full(answer: Any, amount: int) -> Any:
    """A check's answer as it is where it is not short: only the time and the blob that allows it."""
    if not isinstance(answer, bytes):
        return answer
    return [b"OK", b"", int.from_bytes(answer[:8], "big"), 1, b"", 0, amount, [answer[8:]], [[]], []]


class Scripted:
    """Partition 0, open for `GENERATION` on `RUN_ID`."""

    def __init__(self, client: redis.Redis):
        self.client = client
        for script in scripts.SCRIPTS:
            assert client.script_load(script.source) == script.sha
        client.hset(META, mapping={"gen": GENERATION, "run": OPEN, "n": 8})

    def run(self, script: scripts.Script, script_keys: Iterable[bytes], *args: Any, gen: Any = GENERATION, run_id: Any = RUN_ID) -> list[Any]:
        """A fenced script's answer."""
        script_keys = tuple(script_keys)
        answer: list[Any] = self.client.evalsha(script.sha, len(script_keys), *script_keys, gen, run_id, *args)
        return answer

    def unfenced(self, script: scripts.Script, script_keys: Iterable[bytes], *args: Any) -> list[Any]:
        script_keys = tuple(script_keys)
        answer: list[Any] = self.client.evalsha(script.sha, len(script_keys), *script_keys, *args)
        return answer

    def digest(self) -> bytes:
        """Changes whenever anything in the server does."""
        return self.client.execute_command("DEBUG", "DIGEST")

    # -- a customer ------------------------------------------------------------------------------

    def state_keys(self, name: str = "c") -> tuple[bytes, bytes, bytes, bytes]:
        return META, keys.customer(0, name), LOG, keys.entities(0, name)

    def moving_keys(self, name: str = "c") -> tuple[bytes, ...]:
        """What load.lua and evict.lua take."""
        return META, keys.customer(0, name), keys.entities(0, name), keys.locks(0, name), keys.holds(0)

    def view(self, quiet: int = 0, name: str = "c", **kw: Any) -> list[Any]:
        """view.lua's answer."""
        return self.run(scripts.VIEW, self.state_keys(name), 0, quiet, **kw)

    def explain(self, feature_id: str = "a", amount: int = 1, entity: str = "", name: str = "c", **kw: Any) -> list[Any]:
        """explain.lua's answer."""
        own = [f"e:{entity}", f"x:{feature_id}\0{entity}"] if entity else [f"a:{feature_id}"]
        return self.run(
            scripts.EXPLAIN, (*self.state_keys(name), keys.locks(0, name)), 0, entity, 1, "h", f"b:{feature_id}", *own, 1,
            feature_id, 1, amount, 0, **kw,
        )

    def evict(self, seq: int, cid: int = 0, name: str = "c", **kw: Any) -> list[Any]:
        """evict.lua's answer, SQL's cursor being at that entry of this generation."""
        return self.run(scripts.EVICT, self.moving_keys(name), GENERATION, seq, cid, name, **kw)

    def load(self, buckets: dict[str, list[Row]], name: str = "c", cid: int = CID, entities: Iterable[str] = (), **kw: Any) -> list[Any]:
        """Puts a customer there by load.lua, entities of `seats` among it."""
        entities = list(entities)
        head = layout.pack_header(layout.Header(cid, 1, GENERATION, -1, NOW_MS - DAY_MS))
        flat: list[Any] = []
        for feature_id, rows in buckets.items():
            flat += [f"b:{feature_id}", layout.pack(rows)]
        for entity_id in entities:
            flat += [f"e:{entity_id}", "seats"]
        if entities:
            flat += ["n:seats", len(entities)]
        members = msgpack.packb([f"seats\0{entity_id}" for entity_id in entities])
        locks: list[Any] = []
        for lock_id, expires_at in kw.pop("locks", ()):
            locks += [lock_id, expires_at]
        cursor = kw.pop("cursor", (GENERATION, -1))
        return self.run(
            scripts.LOAD, self.moving_keys(name), kw.pop("sql_generation", GENERATION), *cursor, cid, name, members,
            msgpack.packb(locks), head, *flat, **kw,
        )

    def spend(
        self, verb: str, amounts: dict[str, int], mode: str = "", entity: str = "", key: str = "", fingerprint: bytes = b"f" * 16,
        looked_up: str = "", bytes_max: int = 1 << 20, name: str = "c", brief: bool = False, info: bytes = b"", also: tuple[str, ...] = (),
        **kw: Any,
    ) -> Any:
        """track (mode cap, reject, overflow) or check (mode send or ''), a short answer of check in full; `also` are
        features beside those of the call."""
        features = {f: Feature(f, f, "single_use") for f in (*amounts, *also)}
        script, mode = (scripts.TRACK, mode or "cap") if verb == "track" else (scripts.CHECK, mode)
        call = Spend(
            script, name, entity, tuple((features[f], amount) for f, amount in amounts.items()), mode, info, key,
            fingerprint if key else b"", brief=brief,
        )
        chosen = Settings(idempotency_ttl_s=TTL_MS // 1000, partitions=1).model_copy(update={"idempotency_bytes_max": bytes_max})
        catalog = Catalog.of(1, features.values(), ())
        args, _ = arguments(call, catalog, chosen, looked_up)
        if also:
            args = (packed_call(call, plan_of(tuple(amounts), catalog, also), 0), *args[1:])
        record = (keys.record(0, keys.digest(name, key)),) if key else ()
        answer = self.run(script, self.state_keys(name) + record, *args, **kw)
        return in_full(answer, *amounts.values()) if verb == "check" else answer

    def _named(
        self, script: scripts.Script, first: Any, feature_id: str, amount: int, entity: str, key: str, fingerprint: bytes,
        more: tuple[Any, ...], more_keys: tuple[bytes, ...], looked_up: str, bytes_max: int, name: str, **kw: Any,
    ) -> list[Any]:
        own = [f"e:{entity}", f"x:{feature_id}\0{entity}"] if entity else [f"a:{feature_id}"]
        record = (keys.record(0, keys.digest(name, key)),) if key else ()
        return self.run(
            script, self.state_keys(name) + more_keys + record, 0, first, entity, b"", fingerprint if key else b"", TTL_MS,
            looked_up, bytes_max, 1, *more, "h", f"b:{feature_id}", *own, 1, feature_id, 1, amount, 0, **kw,
        )

    def hold(
        self, amount: int, feature_id: str = "a", lock: str = "l", life_ms: int = DAY_MS, holds_max: int = 100, entity: str = "",
        key: str = "", fingerprint: bytes = b"f" * 16, looked_up: str = "", bytes_max: int = 1 << 20, name: str = "c", **kw: Any,
    ) -> list[Any]:
        """hold.lua's answer."""
        more_keys = (keys.locks(0, name), keys.holds(0))
        return self._named(
            scripts.HOLD, lock, feature_id, amount, entity, key, fingerprint, (0, name, holds_max, life_ms, NOW_MS), more_keys, looked_up,
            bytes_max, name, **kw,
        )

    def settle(
        self, action: str = "confirm", final: Any = "", feature_id: str = "a", lock: str = "l", entity: str = "", key: str = "",
        fingerprint: bytes = b"f" * 16, looked_up: str = "", bytes_max: int = 1 << 20, name: str = "c", **kw: Any,
    ) -> list[Any]:
        """settle.lua's answer."""
        more_keys = (keys.locks(0, name), keys.holds(0), keys.settled(0, lock))
        return self._named(
            scripts.SETTLE, lock, feature_id, 0, entity, key, fingerprint, (action, final, name, DAY_MS), more_keys, looked_up,
            bytes_max, name, **kw,
        )

    def refund(
        self, entry: bytes, parts: list[Any], applied: int, amount: int = 0, mode: str = "cap", feature_id: str = "a",
        entity: str = "", lock: str = "", returned: bytes = b"", returned_from: str = "", key: str = "",
        fingerprint: bytes = b"f" * 16, looked_up: str = "", bytes_max: int = 1 << 20, name: str = "c", **kw: Any,
    ) -> list[Any]:
        """refund.lua's answer for an event of one feature, by its log entry and what each bucket paid."""
        gen, seq = entry.split(b"-")
        event = msgpack.packb([[applied, parts]])
        return self._named(
            scripts.REFUND, mode, feature_id, amount, entity, key, fingerprint,
            (gen, seq, NOW_MS, event, returned, returned_from, lock), (), looked_up, bytes_max, name, **kw,
        )

    def claim(self, claim: bytes = b"x", expected: bytes = b"", looked_up: str = "", lock: str = "l", **kw: Any) -> list[Any]:
        """claim.lua's answer."""
        return self.run(scripts.CLAIM, (META, keys.lock(0, lock)), claim, expected, DAY_MS, looked_up, **kw)

    def keep(
        self, action: str = "take", key: str = "k", fingerprint: bytes = b"f" * 16, looked_up: str = "", bytes_max: int = 1 << 20,
        receipt: bytes = b"", **kw: Any,
    ) -> list[Any]:
        """keep.lua's answer, of a key of customer `c`."""
        record = keys.record(0, keys.digest("c", key))
        return self.run(
            scripts.KEEP, (META, record), action, CID, fingerprint, TTL_MS, looked_up, bytes_max, receipt, **kw
        )

    def archive(self, feature_id: str, *numbers: int, cid: int = CID, name: str = "c") -> None:
        """Takes used-up buckets out of the hot state."""
        assert self.project((2, [["archive", feature_id, "", list(numbers)]]), cid=cid, name=name)[0] == b"OK"

    def project(self, *steps: tuple[int, list[Any]], cid: int = CID, name: str = "c", **kw: Any) -> list[Any]:
        """project.lua over steps, each (version, operations)."""
        packed = [msgpack.packb({"v": version, "at": 0, "ops": ops}) for version, ops in steps]
        script_keys = (*self.state_keys(name), keys.locks(0, name), keys.holds(0))
        return self.run(scripts.PROJECT, script_keys, 0, cid, name, *packed, **kw)

    def balances(self, feature_id: str, name: str = "c") -> list[int]:
        return [row.balance for row in layout.unpack(self.client.hget(self.state_keys(name)[1], f"b:{feature_id}")).rows]
