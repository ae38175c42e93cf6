"""What must agree between the model and Redis, and between Redis and its own log."""

from __future__ import annotations

from collections import Counter
from typing import Any, Iterable

from sidecar.domain import layout
from tests.model.account import Bucket, Owed
from tests.model.calls import FeatureAnswer, Model

from .subject import State


def changes(features: Iterable[FeatureAnswer]) -> dict[tuple[int, str], int]:
    """The model's changes of a call, summed by bucket and slot."""
    total: Counter[tuple[int, str]] = Counter()
    for answer in features:
        for no, entity_id, delta in answer.changes:
            total[no, entity_id] += delta
    return {where: delta for where, delta in total.items() if delta}


def told(deltas: list[int], slots: list[Any]) -> dict[tuple[int, str], int]:
    """The same of a script's answer."""
    total: Counter[tuple[int, str]] = Counter()
    for no, delta in _groups(deltas, 2):
        total[no, ""] += delta
    for no, entity_id, delta, _base, _period in _groups(slots, 5):
        total[no, entity_id.decode()] += delta
    return {where: delta for where, delta in total.items() if delta}


def same_state(model: Model, state: State) -> None:
    """Every bucket and slot in Redis stands as in the model; those whose reset is due and not yet
    done (nobody has looked) are left out."""
    assert state.entities == model.account.entities
    assert state.members == {(f, e) for e, f in model.account.entities.items()}
    assert {f: n for f, n in state.counts.items() if n} == Counter(model.account.entities.values())
    assert set(state.rows) == {bucket.no for bucket in model.account.buckets}
    for bucket in model.account.buckets:
        feature_id, row = state.rows[bucket.no]
        assert feature_id == bucket.feature_id and row.entity_id == bucket.entity_id
        if not 0 < row.next_reset_at <= model.now:
            _same_bucket(model, bucket, row, state)


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
        for (no, delta, over, period_end, _next) in _take(rest, 5):
            balances[no] += delta
            resets.append((no, period_end))
            if over and no in state.rows and not state.rows[no][1].unlimited:
                owed.add(Owed(no, over, period_end))
        _take(rest, 3)
        for no, delta in _take(rest, 2):
            balances[no] += delta
        for no, _entity, delta, _base, _period in _take(rest, 5):
            balances[no] += delta
        for change in rest[0]:
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


def _take(rest: list[Any], width: int) -> list[list[Any]]:
    """The next counted list of a record, in groups; takes it off."""
    count = rest.pop(0)
    flat, rest[:] = rest[: count * width], rest[count * width :]
    return list(_groups(flat, width))


def _groups(flat: list[Any], width: int) -> list[list[Any]]:
    return [flat[i : i + width] for i in range(0, len(flat), width)]
