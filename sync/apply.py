"""One batch of log entries, of any partitions, into SQL: exactly once, all or nothing.

Events, ledger, counters and structure of the batch are written in the transaction that moves the
cursors by compare-and-set. An entry that cannot be applied is kept verbatim in `sync_rejected` and
the others go on; the audit fails from then on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, NamedTuple, Sequence

from sqlalchemy import Connection, insert
from sqlalchemy.exc import DBAPIError, DataError, IntegrityError

from sidecar.engine.partitions import opening_base
from sidecar.store import partitions
from sidecar.store.db import Store
from sidecar.store.partitions import Cursor, CursorConflict, Place
from sidecar.store.tables import sync_rejected

from .flush import flush
from .records import Record, RecordError, decode
from .rows import Entry
from .working import SqlBehind, Working

__all__ = ["BATCH_MAX", "Applied", "CursorConflict", "Decoded", "Entry", "LogGap", "SqlBehind", "apply", "apply_decoded", "batch_max",
           "decoded", "follows"]

BATCH_MAX = 2000
"""Entries in one transaction, usually half as many: bounds how long others wait for SQLite's one writer."""
BATCH_MAX_POSTGRES = 4000
"""As BATCH_MAX, where others wait only for the same customers."""

ERROR_CHARS_MAX = 2000


class LogGap(RuntimeError):
    """An entry is not the one after the cursor: SQL or Redis was rolled back."""

    def __init__(self, p: int, cursor: Cursor, entry: Cursor):
        super().__init__(f"partition {p}: the cursor is at {cursor.gen}-{cursor.seq}, the next entry is "
                         f"{entry.gen}-{entry.seq}")
        self.p = p


@dataclass(frozen=True)
class Applied:
    """What a batch did: where the cursors are now, and which entries were set aside."""

    cursors: dict[int, Cursor]
    applied: int
    rejected: tuple[tuple[Entry, str], ...]


class Decoded(NamedTuple):
    """Entries with the records in them, and those that are damaged, with what is wrong."""

    entries: Sequence[Entry]
    records: list[tuple[Entry, Record]]
    damaged: list[tuple[Entry, str]]


def batch_max(store: Store) -> int:
    """How many entries this database takes in one transaction."""
    return BATCH_MAX if store.is_sqlite else BATCH_MAX_POSTGRES


def decoded(entries: Sequence[Entry]) -> Decoded:
    """The entries with their records. Needs no database, so it can be done while another batch is
    written."""
    found = Decoded(entries, [], [])
    for entry in entries:
        try:
            found.records.append((entry, decode(entry.data)))
        except (RecordError, RecursionError) as error:
            if opening_base(entry.data) is None:
                found.damaged.append((entry, f"{type(error).__name__}: {error}"[:ERROR_CHARS_MAX]))
    return found


def follows(cursor: Cursor, entry: Entry) -> bool:
    """Whether an entry is the next after a cursor: the next of its generation, or the opening of a
    later one that goes on after the cursor."""
    if entry.gen == cursor.gen:
        return entry.seq == cursor.seq + 1
    return entry.gen > cursor.gen and entry.seq == 0 and opening_base(entry.data) == cursor


def apply(store: Store, entries: Sequence[Entry], places: Mapping[int, Place], now_ms: int) -> Applied:
    """As `apply_decoded`, of entries as they were read."""
    return apply_decoded(store, decoded(entries), places, now_ms)


def apply_decoded(store: Store, batch: Decoded, places: Mapping[int, Place], now_ms: int) -> Applied:
    """Applies up to `batch_max` entries, those of a partition in their order, from the places where
    and under whose generations they were read.

    Raises LogGap for an entry that is not the next, CursorConflict if someone else moved a cursor
    or took a generation, SqlBehind if SQL is older than Redis, and the database's own errors; then
    nothing happened."""
    entries = batch.entries
    if len(entries) > batch_max(store):
        raise ValueError(f"{len(entries)} entries in one batch")
    last: dict[int, Entry] = {}
    for entry in entries:
        before = last.get(entry.p)
        if before is None or entry.gen != before.gen or entry.seq != before.seq + 1:
            at = places[entry.p].cursor if before is None else Cursor(before.gen, before.seq)
            if not follows(at, entry):
                raise LogGap(entry.p, at, Cursor(entry.gen, entry.seq))
        last[entry.p] = entry
    if not last:
        return Applied({}, 0, ())
    moved = {p: Cursor(entry.gen, entry.seq) for p, entry in last.items()}
    moves = [(p, places[p], to) for p, to in moved.items()]
    rejected = store.write_sync(_apply, batch, moves, now_ms)
    return Applied(moved, len(batch.records) + len(batch.damaged) - len(rejected), tuple(rejected))


def _apply(
    conn: Connection, batch: Decoded, moves: Sequence[tuple[int, Place, Cursor]], now_ms: int
) -> list[tuple[Entry, str]]:
    partitions.move_cursors(conn, moves)  # first: from here on these partitions' rows are ours
    rejected = list(batch.damaged)
    _apply_or_split(conn, batch.records, rejected)
    if rejected:
        conn.execute(insert(sync_rejected), [
            {"p": e.p, "gen": e.gen, "seq": e.seq, "entry": e.data, "error": error, "at": now_ms}
            for e, error in rejected
        ])
    return rejected


def _apply_or_split(
    conn: Connection, batch: Sequence[tuple[Entry, Record]], rejected: list[tuple[Entry, str]]
) -> None:
    """Applies a batch in a savepoint; on failure its first half, then its second, and so on down
    to the single entry to reject. So one bad entry costs some ten tries, not a thousand."""
    if not batch:
        return
    try:
        with conn.begin_nested():
            working = Working(conn, batch)
            working.play()
            flush(conn, working)
    except Exception as error:
        if not _is_entrys_fault(error):
            raise
        if len(batch) == 1:
            rejected.append((batch[0][0], f"{type(error).__name__}: {error}"[:ERROR_CHARS_MAX].replace("\0", "")))
            return
        middle = len(batch) // 2
        _apply_or_split(conn, batch[:middle], rejected)
        _apply_or_split(conn, batch[middle:], rejected)


def _is_entrys_fault(error: Exception) -> bool:
    """Whether an entry is to blame, rather than the database, the schema or the moment."""
    if isinstance(error, (SqlBehind, CursorConflict)):
        return False
    if isinstance(error, DBAPIError):
        return isinstance(error, (IntegrityError, DataError)) and not error.connection_invalidated
    return not isinstance(error, (MemoryError, OSError))
