"""What must agree between the model and Redis, and between Redis and its own log."""

from __future__ import annotations

from collections import Counter
from typing import Any, Iterable, Iterator

from sidecar.domain import layout
from tests.model.account import Bucket, Owed
from tests.model.calls import FeatureAnswer, Model

from .subject import State


def changes(features: Iterable[FeatureAnswer], model: Model | None = None) -> dict[tuple[Any, str], int]:
    """The model's changes of a call, summed by bucket and slot."""
    total: Counter[tuple[Any, str]] = Counter()
    names = rollover_names(model) if model else {}
    for answer in features:
        for no, entity_id, delta in answer.changes:
            total[names.get(no, no), entity_id] += delta
    return {where: delta for where, delta in total.items() if delta}


def told(parts: list[Any], state: State | None = None) -> dict[tuple[Any, str], int]:
    """The same of a script's answer."""
    total: Counter[tuple[Any, str]] = Counter()
    for no, entity_id, delta in moves(parts):
        total[row_name(state.rows[no][1]) if state and no in state.rows else no, entity_id] += delta
    return {where: delta for where, delta in total.items() if delta}


def moves(parts: list[Any]) -> Iterator[tuple[int, str, int]]:
    """(bucket, entity of a slot or '', delta) of what each bucket paid."""
    at = 0
    while at < len(parts):
        if parts[at] == -1:
            at += 4
        elif parts[at] == -2:
            entity_id = parts[at + 2]
            yield parts[at + 1], entity_id if isinstance(entity_id, str) else entity_id.decode(), parts[at + 3]
            at += 6
        else:
            yield parts[at], "", parts[at + 1]
            at += 2


def rollover_names(model: Model) -> dict[int, Any]:
    """What a rollover of the model is called where both sides call it the same."""
    return {
        roll.no: (bucket.no, roll.created_at if roll.expires_at else 0) for bucket in model.account.buckets for roll in bucket.rollovers
    }


def row_name(row: layout.Row) -> Any:
    """The number of a bucket, or what a rollover is called."""
    return (row.parent, row.created_at if row.expires_at else 0) if row.rollover else row.no


def same_rollovers(model: Model, bucket: Bucket, state: State) -> None:
    """The rollovers of one bucket, by entity, that live and were not cut to nothing."""
    mine = {
        (roll.created_at if roll.expires_at else 0, roll.entity_id): (roll.balance, roll.granted)
        for roll in bucket.rollovers if not roll.expired(model.now)
    }
    theirs = {}
    for _, row in state.rows.values():
        if row.parent != bucket.no or not row.rollover or 0 < row.expires_at <= model.now:
            continue
        if not row.per_entity:
            theirs[row_name(row)[1], ""] = (row.balance, row.granted)
            continue
        slots = {e: slot for (no, e), slot in state.slots.items() if no == row.no}
        theirs |= {(row_name(row)[1], e): (slot.balance, slot.granted) for e, slot in slots.items()}
        sums = (sum(slot.balance for slot in slots.values()), sum(slot.granted for slot in slots.values()))
        assert (row.balance, row.prepaid) == sums, f"sums of rollover {row.no}"
    assert {k: v for k, v in theirs.items() if v != (0, 0)} == {k: v for k, v in mine.items() if v != (0, 0)}, f"rollovers of {bucket.no}"


def same_state(model: Model, state: State) -> None:
    """Every bucket and slot in Redis stands as in the model; those whose reset is due and not yet
    done (nobody has looked) are left out."""
    assert state.entities == model.account.entities
    assert state.members == {(f, e) for e, f in model.account.entities.items()}
    assert {f: n for f, n in state.counts.items() if n} == Counter(model.account.entities.values())
    assert {no for no, (_, row) in state.rows.items() if not row.rollover} == {bucket.no for bucket in model.account.buckets}
    for bucket in model.account.buckets:
        feature_id, row = state.rows[bucket.no]
        assert feature_id == bucket.feature_id and row.entity_id == bucket.entity_id
        if not 0 < row.next_reset_at <= model.now:
            _same_bucket(model, bucket, row, state)
            same_rollovers(model, bucket, state)


def _same_bucket(model: Model, bucket: Bucket, row: layout.Row, state: State) -> None:
    what = f"bucket {bucket.no} of {bucket.feature_id}"
    assert row.next_reset_at == bucket.next_reset_at, what
    if bucket.unlimited:
        assert layout.used(row) == bucket.used, what
    elif not bucket.per_entity:
        assert (row.granted, row.balance) == (bucket.granted, bucket.balance), what
    else:
        slots = {e: effective(row, state.slots.get((row.no, e))) for e in bucket.slots}
        assert slots == bucket.slots, what
        sums = (len(slots), sum(slots.values()), sum(max(0, -balance) for balance in slots.values()))
        assert (row.slots, row.balance, row.over) == sums, f"sums of {what}"


def effective(row: layout.Row, slot: layout.Slot | None) -> int:
    """An entity's balance: its slot's, or the grant if it has none of this period."""
    return slot.balance if slot is not None and slot.period == row.next_reset_at else row.granted


def same_log(model: Model, state: State, records: list[Any]) -> None:
    """The log says what happened: adding up its records gives the balances in Redis, no period is
    reset twice, and what periods owe is what the model says."""
    balances: dict[int, int] = {}
    resets: list[tuple[int, int]] = []
    owed: set[Owed] = set()
    for record in records:
        _, _kind, _cid, _ms, _version, _entity, _info, *rest = record
        for (no, delta, over, period_end, *_) in _take(rest, 7):
            balances[no] += delta
            resets.append((no, period_end))
            if over and no in state.rows and not state.rows[no][1].unlimited:
                owed.add(Owed(no, over, period_end))
        paid: list[Any] = []
        for _ in range(rest.pop(0)):
            del rest[:3]
            paid += [part for (part,) in _take(rest, 1)]
        early = [change for change in rest[0] if change[0] in ("+", "r")]  # as the worker plays a record
        for change in sorted(early, key=lambda change: change[0] != "+"):
            _structure(balances, change)
        for no, _entity, delta in moves(paid):
            balances[no] += delta
        for change in rest[0]:
            if change not in early:
                _structure(balances, change)
    assert len(resets) == len(set(resets)), "a period was reset twice"
    assert balances == {no: row.balance for no, (_, row) in state.rows.items()}
    assert owed == {debt for debt in model.account.owed if debt.no in state.rows}


def _structure(balances: dict[int, int], change: list[Any]) -> None:
    if change[0] == "+":
        row = layout.Row(*change[2])
        balances[row.no] = row.balance
    elif change[0] == "-":
        del balances[change[2]]
    elif change[0] == "~":
        balances[change[2]] += change[3]
    elif change[0] == "=":
        row = layout.Row(*change[2])
        balances[row.no] = row.balance
    elif change[0] == "r":
        balances[change[1]] += change[2]


def _take(rest: list[Any], width: int) -> list[list[Any]]:
    """The next counted list of a record, in groups; takes it off."""
    count = rest.pop(0)
    flat, rest[:] = rest[: count * width], rest[count * width :]
    return list(_groups(flat, width))


def _groups(flat: list[Any], width: int) -> list[list[Any]]:
    return [flat[i : i + width] for i in range(0, len(flat), width)]
