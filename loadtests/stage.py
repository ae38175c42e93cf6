"""An open partition of a Valkey, customers put there by the shipped scripts, and the commands that the
sidecar would send for their calls.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Mapping

import msgpack
import redis

from sidecar.api.decode import decode_check, decode_track
from sidecar.api.wire import DEFAULT_VERSION
from sidecar.catalog.model import Feature
from sidecar.catalog.snapshot import Catalog
from sidecar.domain import layout
from sidecar.domain.layout import Row
from sidecar.engine import keys, scripts
from sidecar.engine.call import Spend, arguments
from sidecar.settings import Settings

GENERATION, RUN_ID = 1, "bench"
DAY_MS = 86_400_000
PLENTY = 10**11
"""Units that no run uses up."""
CALLS = 200
"""Of one kind for one customer in a round."""
LOAD_FIELDS_MAX = 2000
LOADS_AT_ONCE = 500


@dataclass(frozen=True)
class Call:
    """A kind of call: of which verb, for how much, by an entity or not."""

    verb: str
    amount: int = 1
    entity: str = ""


def bucket(no: int, granted: int = PLENTY, **columns: Any) -> Row:
    """A full monthly bucket of a plan, not due for years."""
    now_ms = time.time_ns() // 1_000_000
    values: dict[str, Any] = dict(
        no=no, balance=granted, granted=granted, flags=0, purchasable=-1, next_reset_at=now_ms + 3650 * DAY_MS,
        expires_at=0, anchor=now_ms - DAY_MS, interval=5, interval_count=120, entity_id="", plan_id="base", prepaid=0,
        item=1001, created_at=now_ms - DAY_MS + no, slots=0, over=0, entity_feature="",
    )
    return Row(**{**values, **columns})


def top_up(no: int, granted: int) -> Row:
    """Units bought once."""
    return bucket(no, granted, flags=layout.PREPAID, prepaid=granted, next_reset_at=0, anchor=0, interval=0, interval_count=1)


@dataclass
class Stage:
    """One open partition of a Valkey, and the customers put there."""

    client: redis.Redis
    settings: Settings = field(default_factory=lambda: Settings(secret_keys=("am_sk_test_cost",), partitions=1))
    catalog: Catalog = field(default_factory=lambda: Catalog.of(1, [Feature("msg", "Messages", "single_use")], []))
    cids: int = 0

    def __post_init__(self) -> None:
        for script in scripts.SCRIPTS:
            self.client.script_load(script.source)
        self.client.hset(keys.meta(0), mapping={"gen": GENERATION, "run": f"{RUN_ID} {GENERATION}", "n": 1})

    def run(self, script: scripts.Script, script_keys: tuple[bytes, ...], *args: Any) -> list[Any]:
        """A script's answer, which must be OK."""
        answer: list[Any] = self.client.evalsha(script.sha, len(script_keys), *script_keys, GENERATION, RUN_ID, *args)
        assert isinstance(answer, bytes) or answer[0] == b"OK", (script.name, answer)
        return answer

    def load_many(self, names: Iterable[str], buckets: Mapping[str, list[Row]], told: Callable[[int], None] = lambda done: None) -> None:
        """A customer of each name, all with these buckets. `told` hears now and then how many there are."""
        fields: list[Any] = []
        for feature_id, rows in buckets.items():
            fields += [f"b:{feature_id}", layout.pack(rows)]
        pipe = self.client.pipeline(transaction=False)
        nothing = msgpack.packb([])

        def send() -> None:
            assert all(answer[0] == b"OK" for answer in pipe.execute())
            told(self.cids)

        for name in names:
            self.cids += 1
            header = layout.pack_header(layout.Header(self.cids, 1, GENERATION, -1, 0))
            moving = keys.meta(0), keys.customer(0, name), keys.entities(0, name), keys.locks(0, name), keys.holds(0)
            pipe.execute_command(
                "EVALSHA", scripts.LOAD.sha, len(moving), *moving, GENERATION, RUN_ID, GENERATION, GENERATION, -1, self.cids,
                name, nothing, nothing, header, *fields,
            )
            if len(pipe.command_stack) == LOADS_AT_ONCE:
                send()
        send()

    def load(self, buckets: dict[str, list[Row]], entities: list[str] | None = None, slots: dict[int, int] | None = None) -> str:
        """A customer with these buckets and entities of `seats`, each of whom has used some of the
        grants per entity in `slots` (balance by number); its name."""
        self.cids += 1
        name, entities = f"c{self.cids}", entities or []
        fields: list[Any] = []
        for feature_id, rows in buckets.items():
            fields += [f"b:{feature_id}", layout.pack(rows)]
        for entity_id in entities:
            fields += [f"e:{entity_id}", "seats"]
            for row in buckets["msg"]:
                if slots and row.no in slots:
                    slot = layout.Slot(row.no, slots[row.no], row.next_reset_at)
                    fields += [f"x:msg\0{entity_id}", layout.pack([], [slot])]
        if entities:
            fields += ["n:seats", len(entities)]
        members, header = [f"seats\0{entity_id}" for entity_id in entities], layout.Header(self.cids, 1, GENERATION, -1, 0)
        moving = keys.meta(0), keys.customer(0, name), keys.entities(0, name), keys.locks(0, name), keys.holds(0)
        self.run(
            scripts.LOAD, moving, GENERATION, GENERATION, -1, self.cids, name, msgpack.packb(members[:LOAD_FIELDS_MAX]),
            msgpack.packb([]), layout.pack_header(header), *fields[:LOAD_FIELDS_MAX],
        )
        # What is more than a script takes at once.
        for at in range(LOAD_FIELDS_MAX, len(fields), LOAD_FIELDS_MAX):
            some = fields[at : at + LOAD_FIELDS_MAX]
            self.client.hset(keys.customer(0, name), mapping=dict(zip(some[::2], some[1::2])))
        for at in range(LOAD_FIELDS_MAX, len(members), LOAD_FIELDS_MAX):
            self.client.zadd(keys.entities(0, name), {member: 0 for member in members[at : at + LOAD_FIELDS_MAX]})
        return name

    def step(self, name: str, version: int, *ops: list[Any]) -> None:
        """Carries a step out."""
        packed = msgpack.packb({"v": version, "at": 0, "ops": ops})
        more = keys.locks(0, name), keys.holds(0)
        self.run(scripts.PROJECT, (*keys.of_customer(0, name), *more), 0, int(name[1:]), name, packed)

    def command(self, name: str, call: Call) -> tuple[Any, ...]:
        """The command that a server sends for a call."""
        script = scripts.TRACK if call.verb == "track" else scripts.CHECK
        spend = Spend(
            script, name, call.entity, ((self.catalog.features["msg"], call.amount),), "cap" if call.verb == "track" else "",
        )
        args, _ = arguments(spend, self.catalog, self.settings, "")
        script_keys = keys.of_customer(0, name)
        return "EVALSHA", script.sha, len(script_keys), *script_keys, GENERATION, RUN_ID, *args

    def asked(self, verb: str, body: Mapping[str, Any]) -> tuple[Any, ...]:
        """The command that a server sends for a body, as the API reads it."""
        if verb == "track":
            call = decode_track(body, None, DEFAULT_VERSION, self.catalog).spend
        else:
            call = decode_check(body, None, self.catalog).spend
        args, _ = arguments(call, self.catalog, self.settings, "")
        script_keys: tuple[bytes, ...] = keys.of_customer(0, call.customer_id)
        if call.key:
            script_keys = (*script_keys, keys.record(0, keys.digest(call.customer_id, call.key)))
        return "EVALSHA", call.script.sha, len(script_keys), *script_keys, GENERATION, RUN_ID, *args

    def spent_us(self, name: str, call: Call, count: int = CALLS) -> float:
        """What such a call took of Redis' time, on average over so many."""
        command, pipe = self.command(name, call), self.client.pipeline(transaction=False)
        for _ in range(count):
            pipe.execute_command(*command)
        before = self._stat()
        answers = pipe.execute()
        after = self._stat()
        assert all(isinstance(answer, bytes) or answer[0] == b"OK" for answer in answers), answers[0]
        assert after["calls"] - before["calls"] == count
        return float(after["usec"] - before["usec"]) / count

    def _stat(self) -> dict[str, int]:
        return {"calls": 0, "usec": 0, **self.client.info("commandstats").get("cmdstat_evalsha", {})}
