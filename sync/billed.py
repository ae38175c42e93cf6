"""What a bucket's past periods still owe, for credits: billed overage minus what was credited."""

from __future__ import annotations

from typing import Sequence

from sqlalchemy import Connection, select

from sidecar.store.events import LedgerLine
from sidecar.store.tables import ledger

from .rows import Bucket

KINDS = ("reset", "credit")


class Billed:
    """Looks in SQL and in lines not yet written; each bucket is read once."""

    def __init__(self, conn: Connection):
        self._conn = conn
        self._stored: dict[tuple[int, int], list[tuple[int | None, int]]] = {}

    def owed(self, bucket: Bucket, period_end_ms: int, unwritten: Sequence[LedgerLine]) -> int:
        """The units that the bucket's period which ended then owes."""
        lines = self._lines(bucket) + [
            (line.period_end, line.over_units) for line in unwritten
            if (line.cid, line.no) == (bucket.cid, bucket.no) and line.kind in KINDS
        ]
        return sum(units for end, units in lines if end == period_end_ms)

    def _lines(self, bucket: Bucket) -> list[tuple[int | None, int]]:
        key = (bucket.cid, bucket.no)
        if key not in self._stored:
            x = ledger.c
            query = select(x.period_end, x.over_units).where(
                x.cid == bucket.cid, x.no == bucket.no, x.kind.in_(KINDS), x.over_units != 0
            )
            self._stored[key] = [(end, units) for end, units in self._conn.execute(query)]
        return self._stored[key]
