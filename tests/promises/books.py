"""What both stores hold, read for the tests of the promises: the ledger, the buckets, and a digest of
everything a call could have changed."""

from __future__ import annotations

import json
from typing import Any

import msgpack
from sqlalchemy import select

from sidecar.domain.layout import Row
from sidecar.engine import keys
from sidecar.engine.state import CustomerState
from sidecar.store import customers, events, tables
from sidecar.store.customers import Snapshot
from sidecar.store.events import LedgerLine
from tests.http import PARTITIONS, Api

UNIT = 10**6
"""One unit as stored, at the usual precision."""
REPLAYED = "idempotency-replayed"

NOT_USAGE = frozenset(("partitions", "settings", "outbox", "idempotency"))
"""Tables that say how far the stores are, or how often one was asked."""
NOT_BALANCES = frozenset(("structure_version", "applied_version", "log_gen", "log_seq", "last_ms", "next_bucket_no", "uid"))
"""Columns that count steps and numbers given, a refused step's too."""


def snapshot(api: Api, customer_id: str) -> Snapshot:
    """The customer in SQL, once SQL has everything."""
    api.sync()
    found = api.ctx.store.read_sync(customers.load_snapshot, customer_id)
    assert found is not None
    return found


def state(api: Api, customer_id: str) -> CustomerState:
    """The customer in Redis, loaded if need be, what was due having happened."""
    found = api.run(api.ctx.engine.view(customer_id))
    assert found is not None
    return found


def balances(api: Api, customer_id: str) -> dict[tuple[int, str], int]:
    """What every bucket, rollover and entity's share has left, scaled: by (number, entity)."""
    now, found = state(api, customer_id), {}
    for of in [*now.features.values(), *(own for own, _ in now.entities.values())]:
        found |= {(row.no, ""): row.balance for row in of}
    for feature_id, of in now.features.items():
        for row in of:
            sharing = [name for name, kind in now.entity_features.items() if kind == row.entity_feature] if row.per_entity else []
            for name in sharing:
                _, slots = now.entities.get((feature_id, name), ((), ()))
                left = [slot.balance for slot in slots if slot.no == row.no and slot.period == row.next_reset_at]
                found[row.no, name] = left[0] if left else row.granted
    return found


def rows(api: Api, customer_id: str) -> dict[int, Row]:
    """The buckets and rollovers in Redis, by number."""
    now = state(api, customer_id)
    return {row.no: row for of in [*now.features.values(), *(own for own, _ in now.entities.values())] for row in of}


def ledger(api: Api, customer_id: str) -> list[LedgerLine]:
    """The customer's whole ledger, once SQL has everything."""
    cid = snapshot(api, customer_id).customer.cid
    return api.ctx.store.read_sync(events.ledger_of, cid)


def modes(api: Api) -> dict[tuple[int, int, int], str]:
    """The mode that each event in the log was sent in, by (partition, generation, sequence); read
    before the worker trims it."""
    found = {}
    for p in range(PARTITIONS):
        for entry_id, fields in api.redis.xrange(keys.log(p)):
            gen, seq = map(int, entry_id.split(b"-"))
            record = msgpack.unpackb(fields[b"d"], raw=True)
            if len(record) > 6 and record[6]:  # else an opening, or a change that no event made
                found[p, gen, seq] = msgpack.unpackb(record[6]).get("m", "")
    return found


def evict(api: Api, customer_id: str) -> None:
    """Has the customer leave Redis, as the worker does with idle ones."""
    api.sync()
    engine = api.ctx.engine
    last = api.redis.xinfo_stream(keys.log(engine.partition_of(customer_id)))["last-generated-id"]
    assert api.run(engine.evict(customer_id, *map(int, last.split(b"-"))))


def lose_redis(api: Api) -> None:
    """Everything in Redis is gone; SQL had it all. The partitions are closed until somebody calls."""
    api.sync()
    api.redis.flushall()


def open_all(api: Api) -> None:
    """Opens every partition, so that no call does it."""
    for p in range(PARTITIONS):
        api.run(api.ctx.engine.verify(p))


def digest(api: Api, *customer_ids: str) -> dict[str, Any]:
    """Everything that a call about these customers could have changed: what Redis says of them, and
    their rows of SQL, and the catalog's, but for how far they are."""
    found: dict[str, Any] = {f"redis {name}": _hot(api, name) for name in customer_ids}
    api.sync()
    c = tables.customers.c
    cids = api.ctx.store.read_sync(lambda conn: conn.execute(select(c.cid).where(c.id.in_(customer_ids))).scalars().all())
    for table in tables.metadata.sorted_tables:
        if table.name in NOT_USAGE:
            continue
        columns = [column for column in table.columns if column.name not in NOT_BALANCES]
        query = select(*columns)
        if "cid" in table.c:
            query = query.where(table.c.cid.in_(cids))
        read = api.ctx.store.read_sync(lambda conn: conn.execute(query).mappings().all())
        lines = [dict(row) for row in read if not (table.name == "ledger" and row["kind"] == "step")]
        found[table.name] = sorted((json.dumps(line, sort_keys=True, default=repr) for line in lines))
    return found


def _hot(api: Api, customer_id: str) -> dict[str, Any]:
    now = state(api, customer_id)
    return {name: getattr(now, name) for name in ("features", "entities", "entity_features", "archived", "caps", "windows", "holds")}


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The parts of two digests that differ, the rows of tables one by one."""
    return {
        name: (_less(before[name], after[name]), _less(after[name], before[name]))
        for name in before if before[name] != after[name]
    }


def _less(some: Any, others: Any) -> Any:
    return [one for one in some if one not in others] if isinstance(some, list) else some

