"""Log records as the Lua scripts write them, and rows for them to act on."""

from __future__ import annotations

from typing import Any, Sequence

import msgpack
from sqlalchemy import Connection, func, insert, select

from sidecar.domain import receipt
from sidecar.domain.layout import PAID, ROLLOVER, ROLLOVER_NO_MIN, USAGE_ALLOWED, Row
from sidecar.store import customers, partitions, tables
from sidecar.store.db import Store
from sidecar.store.partitions import Cursor, Place
from sync.rows import Entry

AT = 1_700_000_000_000
NEXT = AT + 30 * 86_400_000
P = 3


def lua(value: Any) -> bytes:
    """Packed as Lua packs: one type of string."""
    return msgpack.packb(value, use_bin_type=False)


def record(
    cid: int, kind: int = 1, ms: int = AT, version: int = 0, entity_id: str = "", info: dict[str, Any] | None = None,
    resets: Sequence[Sequence[Any]] = (), uses: Sequence[Sequence[Any]] | None = None,
    deltas: Sequence[Sequence[Any]] = (), slots: Sequence[Sequence[Any]] = (), changes: Sequence[Any] = (),
    rec: bytes = b"",
) -> bytes:
    """A record; by default a use of the feature `messages` that applied what `deltas` and `slots`
    took, which are the parts of the first use. A use may bring its parts as a flat list, a reset its
    last two elements."""
    if uses is None:
        taken = -sum(delta for _, delta in deltas) - sum(slot[2] for slot in slots)
        uses = [("messages", taken, taken)] if kind == 1 else []
    if info is None:
        info = {"v": "1"} if kind == 1 else {}
    flat: list[Any] = [2, kind, cid, ms, version, entity_id, msgpack.packb(info) if info else b"", len(resets)]
    for reset in resets:
        flat.extend(reset if len(reset) == 7 else (*reset, reset[3], 0))
    flat.append(len(uses))
    paid = [part for delta in deltas for part in delta] + [part for slot in slots for part in (-2, *slot)]
    for i, (feature_id, requested, applied, *parts) in enumerate(uses):
        own = [*(parts[0] if parts else []), *(paid if i == 0 else [])]
        flat.extend((feature_id, requested, applied, len(own), *own))
    return lua([*flat, [list(change) for change in changes], rec])


def idempotency(cid: int, end_ms: int, reply: bytes = b"reply") -> bytes:
    """An idempotency record as kept in both stores."""
    return receipt.pack(receipt.Receipt(end_ms, cid, b"f" * 16, reply))


def opening(gen: int = 0, seq: int = -1) -> bytes:
    """The record that begins a generation, going on after that entry."""
    return lua([1, 4, gen, seq])


def entries(*data: bytes, p: int = P, gen: int = 1, seq: int = 1) -> list[Entry]:
    """Log entries in order, from `gen`-`seq` on; `gen`-0 is the generation's opening."""
    return [Entry(p, gen, seq + i, one) for i, one in enumerate(data)]


def row(no: int = 1, balance: int = 10, granted: int = 10, **values: Any) -> Row:
    """A bucket: monthly, due at NEXT."""
    base = Row(no, balance, granted, 0, -1, NEXT, 0, AT, 5, 1, "", "free", 0, 0, AT, 0, 0, "")
    return base._replace(**values)


def rollover(no: int, balance: int = 5, parent: int = 1, **values: Any) -> Row:
    """What was left of the bucket `parent` at its reset: never ends."""
    made = {"flags": ROLLOVER, "next_reset_at": 0, "interval": 0, "anchor": 0, "parent": parent}
    return row(ROLLOVER_NO_MIN + no, balance, balance)._replace(**(made | values))


def pay_per_use(no: int = 1, balance: int = -200, item: int = 7001) -> Row:
    """A pay-per-use bucket of plan 7's first item."""
    return row(no, balance, 1000, flags=USAGE_ALLOWED | PAID, item=item)


def seed(store: Store, *rows: Row, name: str = "ann", p: int = P, feature_id: str = "messages") -> int:
    """A customer with these buckets as SQL has them once their grants are applied; the cid. Its
    partition is open for generation 1, of whose log SQL has the opening."""

    def fill(conn: Connection) -> int:
        partitions.ensure(conn, 8)
        if partitions.places(conn, [p])[p].generation == 0:
            partitions.take_generations(conn, {p: 0})
            partitions.move_cursors(conn, [(p, Place(1, Cursor(0, -1)), Cursor(1, 0))])
        cid = customers.create(conn, name, p, AT)[0].cid
        values = [r._asdict() | {"cid": cid, "feature_id": feature_id} for r in rows]
        grants = [
            {"p": p, "gen": 0, "seq": cid, "line": i, "cid": cid, "no": r.no, "feature_id": feature_id,
             "entity_id": "", "kind": "grant", "delta": r.balance - (r.granted << 52 if r.unlimited else 0), "at": AT}
            for i, r in enumerate(rows)
        ]
        if rows:
            conn.execute(insert(tables.buckets), values)
            conn.execute(insert(tables.ledger), grants)
        return cid

    return store.write_sync(fill)


def prices(store: Store, items: list[dict[str, Any]], precision: int = 0) -> None:
    """The feature `messages` and plan 7 with these items."""

    def fill(conn: Connection) -> None:
        conn.execute(insert(tables.features), {
            "id": "messages", "name": "Messages", "type": "single_use", "precision": precision, "created_at": AT,
        })
        conn.execute(insert(tables.plans), {
            "uid": 7, "id": "pro", "version": 1, "name": "Pro", "items": items, "created_at": AT,
        })

    store.write_sync(fill)


def bucket(store: Store, cid: int, no: int = 1) -> Any:
    """A bucket's row."""
    b = tables.buckets
    return store.read_sync(lambda c: c.execute(select(b).where(b.c.cid == cid, b.c.no == no)).one_or_none())


def count(store: Store, table: Any, **equal: Any) -> int:
    """How many rows a table has."""
    query = select(func.count()).select_from(table).where(*(table.c[k] == v for k, v in equal.items()))
    return store.read_sync(lambda c: c.execute(query).scalar_one())


def ledger_sum(store: Store, cid: int, no: int = 1) -> int:
    """What a bucket's ledger adds up to."""
    line = tables.ledger
    query = select(line.c.delta).where(line.c.cid == cid, line.c.no == no)
    return sum(store.read_sync(lambda c: c.execute(query).scalars().all()))
