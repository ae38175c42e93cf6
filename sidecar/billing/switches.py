"""Enabling a plan in place of another: what moves from the buckets that leave to those that come.

Pure, like `steps`, whose operations it plans. The rules are those of docs/balances.md, "Plans over
time".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from ..catalog.model import Feature, Item
from ..domain import layout
from ..domain.intervals import LIFETIME, length_ms
from ..domain.layout import Row
from ..domain.quantities import QUANTITY_MAX
from ..errors import ApiError
from .holdings import HeldBucket, Holdings
from .steps import Enabled, Op, drops, new_rows


@dataclass(frozen=True)
class CarryOver:
    """What a call says of usage, or of what is left, at a switch."""

    enabled: bool
    feature_ids: frozenset[str] | None = None
    """The features it speaks of; None for all."""

    def names(self, feature_id: str) -> bool:
        """Whether it speaks of a feature."""
        return self.feature_ids is None or feature_id in self.feature_ids

    def to_json(self) -> dict[str, Any]:
        """The form that SQL keeps."""
        return {"enabled": self.enabled, "feature_ids": None if self.feature_ids is None else sorted(self.feature_ids)}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> CarryOver:
        """The value that `to_json` gave."""
        ids = kept["feature_ids"]
        return cls(kept["enabled"], None if ids is None else frozenset(ids))


@dataclass(frozen=True)
class Moves:
    """What a switch is to move beside what the new plan's items say."""

    usages: CarryOver | None = None
    """Usage: said before what the items say."""
    balances: CarryOver | None = None
    """What is left, and debts."""
    pays_debts: bool = False
    """What is bought first pays the debts of its feature."""


def enable(
    features: Mapping[str, Feature], holdings: Holdings, new: Enabled, replaced: Sequence[HeldBucket],
    moves: Moves = Moves(), same_plan: bool = False,
) -> list[Op]:
    """The operations that enable a plan in place of the `replaced` buckets: the new buckets first,
    so that usage can move onto them, then what is left of the old ones, then their drops. With
    `same_plan` (another version of the plan held) all usage follows.

    Raises ApiError 400 `invalid_options` for a quantity missing or out of range."""
    rows = sorted(new_rows(features, new), key=lambda entry: layout.spending_key(entry[2]))
    adds: list[Op] = []
    lefts: list[Op] = []
    for feature_id in dict.fromkeys([feature.id for feature, _, _ in rows] + [b.feature_id for b in replaced]):
        coming = [entry for entry in rows if entry[0].id == feature_id]
        leaving = [bucket for bucket in replaced if bucket.feature_id == feature_id]
        _switch(coming, leaving, new, moves, same_plan, adds, lefts)
    adds.sort(key=lambda op: int(op[2][0]))  # in order of their numbers, as they were counted
    for index, op in enumerate(lefts):
        op[4] = list(op[4]._replace(no=new.first_no + len(rows) + index))
    staying = {op[2][0] for op in lefts}
    _check_range(holdings, {bucket.row.no for bucket in replaced} - staying, rows)
    removed = drops(replaced)
    returns = [op for op in removed if op[0] == "restore"]
    return [*returns, *adds, *lefts, *removed[len(returns):]]


def _switch(
    coming: Sequence[tuple[Feature, Item, Row]], leaving: Sequence[HeldBucket], new: Enabled, moves: Moves,
    same_plan: bool, adds: list[Op], lefts: list[Op],
) -> None:
    """Adds to `adds` and `lefts` what becomes of one feature's buckets, those coming in spending
    order. The rows of `lefts` have no number yet."""
    counted = [bucket for bucket in leaving if not bucket.row.flags & layout.BOOLEAN]
    followed = [row for feature, item, row in coming if _carries(feature, item, moves.usages, same_plan)]
    carried = {b.row.no: _taker(b.row, followed) for b in counted if not _outlives(b.row)}
    takers = [row for _, _, row in coming if row.roll_length >= 0]
    rolled = {b.row.no: _taker(b.row, takers, alike=True) for b in counted if b.row.roll_length >= 0}
    for feature, _, row in coming:
        pays = moves.pays_debts and row.prepaid > 0
        adds.append([
            "add", feature.id, list(row), _given_to(row, carried), _anchor_no(row, counted), new.customer_plan_uid, int(pays),
            _given_to(row, rolled), [bucket.row.no for bucket in counted] if pays else [],
        ])
    finite = [row for _, _, row in coming if not row.unlimited]
    for bucket in counted:
        old = bucket.row
        if _outlives(old):
            lefts.append(["left", bucket.feature_id, [old.no], 0, _loose(old, new.now_ms)])
        elif _leaves_rest(bucket, moves.balances):
            target = None if carried[old.no] else _taker(old, finite)  # a debt that moved as usage is not taken twice
            lefts.append(["left", bucket.feature_id, [old.no], target.no if target else 0, _loose(old, new.now_ms)])


def _carries(feature: Feature, item: Item, call: CarryOver | None, same_plan: bool) -> bool:
    if feature.type == "continuous_use" or same_plan:
        return True
    if call is not None and call.names(feature.id):
        return call.enabled
    return not item.reset_usage_when_enabled


def _leaves_rest(bucket: HeldBucket, call: CarryOver | None) -> bool:
    """Whether the call makes a grant of what is left of it. Occupied units follow as usage, and
    without limit nothing is left."""
    if call is None or not call.enabled or not call.names(bucket.feature_id):
        return False
    return not bucket.row.flags & (layout.CONTINUOUS | layout.UNLIMITED)


def _taker(old: Row, rows: Sequence[Row], alike: bool = False) -> Row | None:
    """The first of the rows that is shared out as `old` is, to the same entities or to none; else,
    unless it must be `alike`, the first shared by all, else any."""
    same = [row for row in rows if row.per_entity == old.per_entity and row.entity_feature == old.entity_feature]
    others = [] if alike else sorted(rows, key=lambda row: row.per_entity)
    return next(iter([*same, *others]), None)


def _given_to(row: Row, takers: Mapping[int, Row | None]) -> list[int]:
    return [no for no, taker in takers.items() if taker is not None and taker.no == row.no]


def _anchor_no(row: Row, old: Sequence[HeldBucket]) -> int:
    """The replaced bucket whose reset date `row` keeps: that of the first recurring one of an
    interval that is not longer; 0 for none."""
    if row.interval == LIFETIME:
        return 0
    recurring = sorted((b.row for b in old if b.row.interval != LIFETIME), key=layout.spending_key)
    for before in recurring:
        if length_ms(row.interval, row.interval_count) >= length_ms(before.interval, before.interval_count):
            return before.no
    return 0


def _outlives(row: Row) -> bool:
    """What is left of units bought once stays when the plan they came with is replaced."""
    return bool(row.flags & layout.PREPAID) and row.interval == LIFETIME and not row.flags & layout.CONTINUOUS


def _loose(old: Row, now_ms: int) -> Row:
    """A grant of no plan, for those who had `old`; the script says of how much, and until when. What
    is left of the shares of entities is one grant for all."""
    return Row(
        no=0, balance=0, granted=0, flags=0, purchasable=-1, next_reset_at=0, expires_at=0, anchor=0, interval=LIFETIME,
        interval_count=1, entity_id=old.entity_id, plan_id="", prepaid=0, item=0, created_at=now_ms, slots=0, over=0,
        entity_feature="",
    )


def _check_range(holdings: Holdings, dropped: set[int], rows: Sequence[tuple[Feature, Item, Row]]) -> None:
    for feature in {entry[0].id: entry[0] for entry in rows}.values():
        held = [row for owner, _, row in rows if owner.id == feature.id]
        held += [b.row for b in holdings.buckets if b.feature_id == feature.id and b.row.no not in dropped]
        granted = sum(row.granted * (holdings.entities.get(row.entity_feature, 0) if row.per_entity else 1) for row in held)
        if granted > QUANTITY_MAX:
            raise ApiError(
                400, "invalid_options",
                f"options: {feature.id}: with what is held the grants pass the largest quantity at precision "
                f"{feature.precision}; a lower precision of the feature would fit",
            )
