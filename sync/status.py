"""How far SQL is behind the log, for whoever asks now and then."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, func, select

from sidecar.engine import keys
from sidecar.engine.engine import Engine
from sidecar.store import partitions, settings_kv
from sidecar.store.db import Store
from sidecar.store.partitions import Cursor
from sidecar.store.tables import sync_rejected

from .reader import stream_id

COUNT_MAX = 100_000


async def status(engine: Engine, store: Store) -> dict[str, Any]:
    """`log_entries` kept in Redis, `behind_entries` that SQL does not have, `rejected` entries set
    aside, and `stopped` partitions with their reason. Raises the stores' errors."""
    cursors, rejected, stopped = await store.read(_read)
    async with engine.redis.pipeline(transaction=False) as pipe:
        for p in cursors:
            pipe.xlen(keys.log(p))
            pipe.xrevrange(keys.log(p), count=1)
        answers = await pipe.execute()
    behind = 0
    for (p, cursor), newest in zip(cursors.items(), answers[1::2]):
        if not newest:
            continue
        gen, seq = (int(part) for part in newest[0][0].split(b"-"))
        if gen == cursor.gen:
            behind += max(0, seq - cursor.seq)
        elif gen > cursor.gen:  # more than one generation: nothing but counting tells
            after = await engine.redis.xrange(keys.log(p), min=f"({stream_id(cursor)}", count=COUNT_MAX)
            behind += len(after)
    return {
        "log_entries": sum(answers[0::2]), "behind_entries": behind, "rejected": rejected, "stopped": stopped,
    }


def _read(conn: Connection) -> tuple[dict[int, Cursor], int, dict[int, str]]:
    rejected: int = conn.execute(select(func.count()).select_from(sync_rejected)).scalar_one()
    return partitions.cursors(conn), rejected, settings_kv.sync_stopped(conn)
