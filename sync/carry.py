"""Carries the log into SQL: read after the cursors, apply, trim what SQL has, again.

One partition whose log and SQL do not fit together stops alone and says why; the others go on.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Iterable, Sequence

import structlog

from sidecar.clock import real_now_ms
from sidecar.engine import keys, scripts
from sidecar.engine.engine import Engine
from sidecar.engine.errors import PartitionRefused
from sidecar.engine.many import run_all
from sidecar.store import partitions, settings_kv
from sidecar.store.db import Store
from sidecar.store.partitions import Cursor, CursorConflict, Place

from .apply import Applied, Decoded, LogGap, SqlBehind, apply_decoded, batch_max, decoded
from .reader import Portion, Reader

log = structlog.get_logger()
TRIM_MARGIN = 1000
"""Entries kept behind a cursor: for readers that started earlier, and should SQL lose its last
commits."""
TRIM_EVERY = 200
MOST = 0.75
"""Where more of the partitions than this had entries, so will they again: to read all costs less than to ask which have."""
STOPPED_RETRY_S = 5.0
CONFLICT_PAUSE_MAX_S = 0.1
PAUSE_S = 0.02
"""After a batch on SQLite, so that others who write get their turn: its lock has no queue."""


class Carrier:
    """The state of the loop: where every cursor is, and which partitions are stopped."""

    def __init__(self, store: Store, engine: Engine):
        self._store = store
        self._engine = engine
        self._reader = Reader(engine)
        self._places: dict[int, Place] | None = None
        self._trimmed: dict[int, Cursor] = {}
        self.stopped: dict[int, str] = {}
        """Why a partition does not get on; kept until it does, or has nothing left to read."""
        self._left_out: set[int] = set()
        self._stopped_at = 0.0
        self._told: str | None = None
        self._moved: set[int] = set()
        """The partitions that the last turn found entries of."""
        self.left_some = False
        """Whether the last turn ended though some partition was likely to have more."""
        self.conflicts = 0
        """How often another worker had moved a cursor first."""

    async def turn(self, stop: asyncio.Event, block_ms: int) -> int:
        """Reads once and applies what came, batch by batch; how many entries were applied. Ends
        early, between batches, when `stop` is set. Raises the stores' errors; then nothing is lost
        and the next turn starts from SQL's cursors."""
        try:
            return await self._turn(stop, block_ms)
        except BaseException:
            self._places = None
            raise

    async def _turn(self, stop: asyncio.Event, block_ms: int) -> int:
        if self.stopped and time.monotonic() - self._stopped_at > STOPPED_RETRY_S:
            self._places = None  # SQL may have been restored meanwhile
            self._left_out.clear()
        if self._places is None:
            self._places = await self._store.read(partitions.places)
        tried = self._places.keys() - self._left_out
        if len(self._moved) > MOST * len(tried) and not self.stopped:
            busy = sorted(tried)
        else:
            busy = await self._reader.busy({p: self._places[p] for p in tried}, block_ms)
        self._moved.clear()
        for p in tried.difference(busy):
            self.stopped.pop(p, None)  # nothing left to read
        done, more = await self._carry(busy, stop)
        if more and self._places is not None:  # or a partition busier than the others would fall behind
            again, more = await self._carry([p for p in more if p not in self._left_out], stop, usual=False)
            done += again
        self.left_some = bool(more)
        await self._tell()
        return done

    async def _carry(self, busy: Sequence[int], stop: asyncio.Event, usual: bool = True) -> tuple[int, list[int]]:
        """Applies entries of these partitions, some of each; while one batch is written, the next one,
        of other partitions, is read. How many, and which partitions may have more."""
        done, more = 0, list[int]()
        ahead = self._read_ahead(busy, usual)
        try:
            while ahead is not None and not stop.is_set() and self._places is not None:
                portion, batch = await ahead
                busy = busy[len(portion.ps) :]
                more += portion.more
                for problem in portion.behind:
                    self._stop(problem.p, str(problem))
                if portion.closed:
                    for p in portion.closed:
                        try:
                            await self._engine.verify(p)
                        except PartitionRefused as problem:
                            self._stop(p, str(problem))
                    self._places = None
                    break
                ahead = self._read_ahead(busy, usual)
                if batch.entries:
                    done += await self._apply(batch)
                    await self._trim(portion.ps)
                    if self._store.is_sqlite:
                        await asyncio.sleep(PAUSE_S)
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)
        return done, more

    def _read_ahead(self, busy: Sequence[int], usual: bool) -> asyncio.Task[tuple[Portion, Decoded]] | None:
        """Begins to read and decode the next batch; None when there is nothing left to read."""
        if not busy or self._places is None:
            return None
        places = dict(self._places)

        async def read() -> tuple[Portion, Decoded]:
            portion = await self._reader.read(places, busy, batch_max(self._store), usual)
            return portion, await asyncio.to_thread(decoded, portion.entries)

        return asyncio.create_task(read())

    async def _apply(self, batch: Decoded) -> int:
        while self._places is not None and batch.entries:
            try:
                applied = await finished(self._store, batch, self._places)
            except CursorConflict as conflict:
                self.conflicts += 1
                log.info("cursor_conflict", detail=str(conflict))
                self._places = None
                await asyncio.sleep(random.uniform(0, CONFLICT_PAUSE_MAX_S))  # so that two workers fall out of step
                return 0
            except (LogGap, SqlBehind) as problem:
                self._stop(problem.p, str(problem))
                batch = decoded([entry for entry in batch.entries if entry.p not in self._left_out])
                continue
            for p, cursor in applied.cursors.items():
                self._places[p] = self._places[p]._replace(cursor=cursor)
                self._moved.add(p)
                self.stopped.pop(p, None)
            for entry, error in applied.rejected:
                log.error("entry_rejected", partition=entry.p, gen=entry.gen, seq=entry.seq, error=error)
            return applied.applied
        return 0

    async def _trim(self, ps: Iterable[int]) -> None:
        if self._places is None:
            return
        due: dict[int, Cursor] = {}
        for p in ps:
            cursor, last = self._places[p].cursor, self._trimmed.get(p)
            if last is None or cursor.gen > last.gen or cursor.seq >= last.seq + TRIM_EVERY:
                due[p] = cursor
        if not due:
            return
        connection = await self._engine.connected()
        await run_all(connection, scripts.TRIM, [
            ((keys.meta(p), keys.log(p)), (self._places[p].generation, connection.run_id, *_may_go(cursor)))
            for p, cursor in due.items()
        ])
        self._trimmed.update(due)

    def _stop(self, p: int, reason: str) -> None:
        self.stopped[p] = reason
        self._left_out.add(p)
        self._stopped_at = time.monotonic()

    async def _tell(self) -> None:
        """Writes which partitions are stopped where `/readyz` looks; only when that changed."""
        told = json.dumps({str(p): reason for p, reason in sorted(self.stopped.items())})
        if told != self._told:
            if self.stopped:
                log.error("partitions_stopped", partitions=self.stopped)
            await self._store.write(settings_kv.put, settings_kv.SYNC_STOPPED, told)
            self._told = told


def _may_go(cursor: Cursor) -> Cursor:
    """The last entry behind the cursor and its margin; of the generation before, all but the last
    readers' reach."""
    if cursor.seq > TRIM_MARGIN:
        return Cursor(cursor.gen, cursor.seq - TRIM_MARGIN)
    return Cursor(max(0, cursor.gen - 1), -1)


async def finished(store: Store, batch: Decoded, places: dict[int, Place]) -> Applied:
    """Applies a batch off the event loop. Cancelling the caller does not cut it short."""
    work = asyncio.create_task(asyncio.to_thread(apply_decoded, store, batch, dict(places), real_now_ms()))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
