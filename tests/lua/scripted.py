"""The shipped scripts on a real Valkey, called one by one with arguments made by hand."""

from __future__ import annotations

import time
from typing import Any, Iterable

import msgpack
import redis

from sidecar.domain import layout
from sidecar.domain.layout import Row
from sidecar.engine import keys, scripts

GENERATION, RUN_ID, CID = 3, b"run", 7
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


class Scripted:
    """Partition 0, open for `GENERATION` on `RUN_ID`."""

    def __init__(self, client: redis.Redis):
        self.client = client
        for script in scripts.SCRIPTS:
            assert client.script_load(script.source) == script.sha
        client.hset(META, mapping={"gen": GENERATION, "run": RUN_ID, "n": 8})

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
        meta, customer, _, zset = self.state_keys(name)
        cursor = kw.pop("cursor", (GENERATION, -1))
        return self.run(scripts.LOAD, (meta, customer, zset), kw.pop("sql_generation", GENERATION), *cursor, cid, members, head, *flat, **kw)

    def spend(
        self, verb: str, amounts: dict[str, int], mode: str = "", entity: str = "", key: str = "", fingerprint: bytes = b"f" * 16,
        looked_up: str = "", bytes_max: int = 1 << 20, name: str = "c", **kw: Any,
    ) -> list[Any]:
        """track (mode cap, reject, overflow) or check (mode send or '')."""
        fields = ["h", *(f"b:{f}" for f in amounts)]
        fields += [f"e:{entity}", *(f"x:{f}\0{entity}" for f in amounts)] if entity else [f"a:{f}" for f in amounts]
        spec = [part for i, (f, amount) in enumerate(amounts.items(), 1) for part in (f, i, amount, 0)]
        script = scripts.TRACK if verb == "track" else scripts.CHECK
        word = (mode or "cap") if verb == "track" else str(int(mode == "send"))
        record = (keys.record(0, keys.digest(name, key)),) if key else ()
        return self.run(
            script, self.state_keys(name) + record, word, entity, b"", fingerprint if key else b"", TTL_MS, looked_up, bytes_max,
            len(amounts), *fields, len(amounts), *spec, **kw,
        )

    def project(self, *steps: tuple[int, list[Any]], cid: int = CID, name: str = "c", **kw: Any) -> list[Any]:
        """project.lua over steps, each (version, operations)."""
        packed = [msgpack.packb({"v": version, "at": 0, "ops": ops}) for version, ops in steps]
        return self.run(scripts.PROJECT, self.state_keys(name), cid, *packed, **kw)

    def balances(self, feature_id: str, name: str = "c") -> list[int]:
        return [row.balance for row in layout.unpack(self.client.hget(self.state_keys(name)[1], f"b:{feature_id}")).rows]
