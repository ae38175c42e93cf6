"""Partitions in SQL: how many there are, each one's generation and the cursor of its log.

The cursor is the id of the last log entry that SQL has. It moves by compare-and-set only.
"""

from __future__ import annotations

from typing import Iterable, Mapping, NamedTuple, Sequence

from sqlalchemy import Connection, func, select, update

from . import bulk, dialects, settings_kv
from .tables import partitions


class PartitionCountDiffers(RuntimeError):
    """The database was set up for another number of partitions."""


class CursorConflict(RuntimeError):
    """Someone else moved a cursor first; nothing of this transaction may stay."""


class Cursor(NamedTuple):
    """The last log entry of a partition that SQL has; (0, -1) before the first."""

    gen: int
    seq: int


class Place(NamedTuple):
    """Where SQL stands with a partition: its newest generation and the cursor."""

    generation: int
    cursor: Cursor


class Opening(NamedTuple):
    """What whoever opens a partition works with: the generation it took, and where SQL stands."""

    generation: int
    cursor_gen: int
    cursor_seq: int
    keys_lost_until_ms: int


def ensure(conn: Connection, count: int) -> None:
    """Makes the partitions of an empty database. Raises PartitionCountDiffers if the database
    has another number of them: customers would be looked for in the wrong place."""
    had = int(settings_kv.put_if_absent(conn, settings_kv.PARTITION_COUNT, count))
    if had != count:
        raise PartitionCountDiffers(
            f"the database has {had} partitions, SIDECAR_PARTITIONS says {count}: set it to {had}"
        )
    found: int = conn.execute(select(func.count()).select_from(partitions)).scalar_one()
    if found < count:
        conn.execute(
            dialects.insert(conn, partitions).on_conflict_do_nothing(), [{"p": p} for p in range(count)]
        )


def take_generations(conn: Connection, expected: Mapping[int, int]) -> dict[int, Opening]:
    """The next generation of each partition that is at the generation expected of it, given to this
    caller and to nobody else; the others are left out. From here on a worker that read the log
    under the generation before cannot move the cursor."""
    at = _lock(conn, expected)
    wanted = [p for p, place in at.items() if place.generation == expected[p]]
    taken = conn.execute(
        update(partitions)
        .where(partitions.c.p.in_(wanted))
        .values(generation=partitions.c.generation + 1)
        .returning(
            partitions.c.p, partitions.c.generation, partitions.c.cursor_gen,
            partitions.c.cursor_seq, partitions.c.keys_lost_until_ms,
        )
    )
    return {p: Opening(*rest) for p, *rest in taken}


def places(conn: Connection, ps: Iterable[int] | None = None) -> dict[int, Place]:
    """The generation and cursor of each partition, of all by default."""
    query = select(partitions.c.p, partitions.c.generation, partitions.c.cursor_gen, partitions.c.cursor_seq)
    if ps is not None:
        query = query.where(partitions.c.p.in_(list(ps)))
    return {p: Place(generation, Cursor(gen, seq)) for p, generation, gen, seq in conn.execute(query).all()}


def cursors(conn: Connection, ps: Iterable[int] | None = None) -> dict[int, Cursor]:
    """The cursor of each partition, of all by default."""
    query = select(partitions.c.p, partitions.c.cursor_gen, partitions.c.cursor_seq)
    if ps is not None:
        query = query.where(partitions.c.p.in_(list(ps)))
    return {p: Cursor(gen, seq) for p, gen, seq in conn.execute(query).all()}


def generations(conn: Connection) -> dict[int, int]:
    """The newest generation taken of each partition; 0 if it was never opened."""
    return {p: gen for p, gen in conn.execute(select(partitions.c.p, partitions.c.generation))}


def move_cursors(conn: Connection, moves: Sequence[tuple[int, Place, Cursor]]) -> None:
    """Moves each partition's cursor (p, from, to), all or none. From here to its end the
    transaction is the only one that can move them, and no other can take a generation. Raises
    CursorConflict if a partition is not where, and under the generation that, the caller read."""
    moves = sorted(moves)
    at = _lock(conn, [p for p, _, _ in moves])
    for p, was, _ in moves:
        if at.get(p) != was:
            raise CursorConflict(f"partition {p} is at {at.get(p)}, not at {was}")
    bulk.update(conn, partitions, ("cursor_gen", "cursor_seq"), ("p",), [(*to, p) for p, _, to in moves])


def set_keys_lost_until(conn: Connection, ps: Iterable[int], until_ms: int) -> None:
    """Says that idempotency keys unknown to Redis must be looked up in SQL until then."""
    conn.execute(
        update(partitions).where(partitions.c.p.in_(list(ps))).values(keys_lost_until_ms=until_ms)
    )


def _lock(conn: Connection, ps: Iterable[int]) -> dict[int, Place]:
    """Locks the rows, always in order of p, so that two callers cannot wait for each other."""
    rows = bulk.select(conn, partitions, ("p", "generation", "cursor_gen", "cursor_seq"), ("p",), [(p,) for p in ps], lock=True)
    return {p: Place(generation, Cursor(gen, seq)) for p, generation, gen, seq in rows}
