"""Planning a change of structure: from plans and what is held to the operations of one step.

Pure: no I/O, no clock. The operations are arrays as the projection script takes them:

    ["add", feature_id, row, carry_nos, anchor_no, customer_plan_uid]
    ["drop", feature_id, no, entity_id]
    ["entity" | "unentity", entity_id, feature_id, amount, continuous] and ["delete"]

Live usage is not known here: `carry_nos` names the buckets whose usage the script moves onto the
new row, `anchor_no` the one whose reset date it keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Mapping, Sequence

from ..catalog.model import Feature, Item, Plan
from ..domain import layout
from ..domain.intervals import LIFETIME, code_of, length_ms, next_reset
from ..domain.layout import Row
from ..domain.quantities import QUANTITY_MAX, QuantityError, scale
from ..errors import ApiError, NotSupported
from .holdings import HeldBucket, Holdings
from .prices import Quantities, bought_units, quantity_of

Op = list[Any]


@dataclass(frozen=True)
class CarryOver:
    """What a call says of usage at a switch, before what the plan's items say."""

    enabled: bool
    feature_ids: frozenset[str] | None = None
    """The features it speaks of; None for all."""

    def to_json(self) -> dict[str, Any]:
        """The form that SQL keeps."""
        return {"enabled": self.enabled, "feature_ids": None if self.feature_ids is None else sorted(self.feature_ids)}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> CarryOver:
        """The value that `to_json` gave."""
        ids = kept["feature_ids"]
        return cls(kept["enabled"], None if ids is None else frozenset(ids))


@dataclass(frozen=True)
class Enabled:
    """A plan being enabled: for whom, when, and with which numbers for its buckets."""

    plan: Plan
    customer_plan_uid: int
    quantities: Quantities
    entity_id: str
    """'' for the customer itself."""
    now_ms: int
    first_no: int
    carry: CarryOver | None = None


def enable(
    features: Mapping[str, Feature], holdings: Holdings, new: Enabled, replaced: Sequence[HeldBucket],
    same_plan: bool = False,
) -> list[Op]:
    """The operations that enable a plan in place of the `replaced` buckets: the new buckets first,
    so that usage can move onto them, then the drops. With `same_plan` (another version of the plan
    held) all usage follows.

    Raises ApiError 400 `invalid_options` for a quantity missing or out of range."""
    drops = [bucket for bucket in replaced if not _outlives(bucket)]
    rows = _rows(features, new)
    carried: set[str] = set()
    ops: list[Op] = []
    for feature, item, row in sorted(rows, key=lambda entry: layout.spending_key(entry[2])):
        old = [bucket for bucket in drops if bucket.feature_id == feature.id]
        carry: list[int] = []
        if feature.id not in carried and _carries(feature, item, new.carry, same_plan):
            carry = [bucket.row.no for bucket in old if not bucket.row.flags & layout.BOOLEAN]
            if carry and (row.per_entity or any(bucket.row.per_entity for bucket in old)):
                raise NotSupported("product_id", "moving the usage of per-entity grants is not supported yet")
            carried.add(feature.id)
        ops.append(["add", feature.id, list(row), carry, _anchor_no(row, old), new.customer_plan_uid])
    _check_range(holdings, drops, rows)
    ops.sort(key=lambda op: op[2][0])  # in order of their numbers, as they were counted
    ops.extend(["drop", bucket.feature_id, bucket.row.no, bucket.row.entity_id] for bucket in drops)
    return ops


def bucket_count(plan: Plan) -> int:
    """How many buckets, so how many bucket numbers, enabling a plan takes."""
    return sum(item.feature_id is not None for item in plan.items)


def open_entity(entity_id: str, feature: Feature) -> Op:
    """The operation that opens an entity of `feature`; the script may refuse it."""
    return ["entity", entity_id, feature.id, scale(1, feature.precision), int(feature.type == "continuous_use")]


def close_entity(entity_id: str, feature: Feature) -> Op:
    """The operation that closes an entity of `feature`."""
    return ["unentity", entity_id, feature.id, scale(1, feature.precision)]


def drop(bucket: HeldBucket) -> Op:
    """The operation that removes a bucket."""
    return ["drop", bucket.feature_id, bucket.row.no, bucket.row.entity_id]


def _rows(features: Mapping[str, Feature], new: Enabled) -> list[tuple[Feature, Item, Row]]:
    rows: list[tuple[Feature, Item, Row]] = []
    no = new.first_no
    for index, item in enumerate(new.plan.items):
        if item.feature_id is None:
            continue
        feature = features[item.feature_id]
        rows.append((feature, item, _row(feature, item, new, index, no)))
        no += 1
    return rows


def _row(feature: Feature, item: Item, new: Enabled, index: int, no: int) -> Row:
    """The bucket of one item at its starting balance. A per-entity grant holds what one entity
    gets; the script opens the slots of the entities that exist."""
    interval = LIFETIME if feature.type in ("boolean", "continuous_use") else code_of(item.interval)
    per_entity = item.entity_feature_id is not None and not new.entity_id
    granted = prepaid = 0
    if feature.type != "boolean" and not item.unlimited:
        included = item.included_usage or Decimal(0)
        bought = Decimal(0)
        if item.is_prepaid:
            bought = bought_units(item, quantity_of(item, new.quantities))
            _check_limit(item, included, bought)
        granted = _scaled(feature, included + bought)
        prepaid = granted - _scaled(feature, included)
    return Row(
        no=no,
        balance=0 if per_entity else granted,
        granted=granted,
        flags=_flags(feature, item, new.plan, per_entity),
        purchasable=_purchasable(feature, item),
        next_reset_at=next_reset(new.now_ms, interval, item.interval_count, new.now_ms),
        expires_at=0,
        anchor=0 if interval == LIFETIME else new.now_ms,
        interval=interval,
        interval_count=1 if interval == LIFETIME else item.interval_count,
        entity_id=new.entity_id,
        plan_id=new.plan.id,
        prepaid=prepaid,
        item=new.plan.item_ref(index),
        created_at=new.now_ms,
        slots=0,
        over=0,
        entity_feature=(item.entity_feature_id or "") if per_entity else "",
    )


def _flags(feature: Feature, item: Item, plan: Plan, per_entity: bool) -> int:
    flags = 0
    for flag, holds in (
        (layout.UNLIMITED, item.unlimited),
        (layout.USAGE_ALLOWED, item.is_pay_per_use),
        (layout.PREPAID, item.is_prepaid),
        (layout.CONTINUOUS, feature.type == "continuous_use"),
        (layout.ADD_ON, plan.is_add_on),
        (layout.PER_ENTITY, per_entity),
        (layout.BOOLEAN, feature.type == "boolean"),
        (layout.PAID, item.price is not None),
    ):
        flags |= flag if holds else 0
    return flags


def _purchasable(feature: Feature, item: Item) -> int:
    """How far below zero a pay-per-use bucket may go, scaled; -1 for no limit."""
    if item.usage_limit is None or not item.is_pay_per_use:
        return -1
    return max(0, _scaled(feature, item.usage_limit) - _scaled(feature, item.included_usage or Decimal(0)))


def _check_limit(item: Item, included: Decimal, bought: Decimal) -> None:
    if item.usage_limit is not None and included + bought > item.usage_limit:
        raise ApiError(
            400, "invalid_options",
            f"options: {item.feature_id!r} can be bought up to {item.usage_limit - included} units beyond the "
            f"included {included}, asked for {bought}",
        )


def _scaled(feature: Feature, quantity: Decimal) -> int:
    try:
        return scale(quantity, feature.precision)
    except QuantityError as problem:
        raise ApiError(400, "invalid_options", f"options: {feature.id}: {problem}") from None


def _check_range(holdings: Holdings, drops: Sequence[HeldBucket], rows: Sequence[tuple[Feature, Item, Row]]) -> None:
    dropped = {bucket.row.no for bucket in drops}
    for feature in {entry[0].id: entry[0] for entry in rows}.values():
        granted = sum(row.granted for owner, _, row in rows if owner.id == feature.id)
        granted += sum(b.row.granted for b in holdings.buckets if b.feature_id == feature.id and b.row.no not in dropped)
        if granted > QUANTITY_MAX:
            raise ApiError(
                400, "invalid_options",
                f"options: {feature.id}: with what is held the grants pass the largest quantity at precision "
                f"{feature.precision}; a lower precision of the feature would fit",
            )


def _carries(feature: Feature, item: Item, call: CarryOver | None, same_plan: bool) -> bool:
    if feature.type == "continuous_use" or same_plan:
        return True
    if call is not None and (call.feature_ids is None or feature.id in call.feature_ids):
        return call.enabled
    return not item.reset_usage_when_enabled


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


def _outlives(bucket: HeldBucket) -> bool:
    """Units bought once stay when the plan they came with is replaced."""
    return bool(bucket.row.flags & layout.PREPAID) and bucket.row.interval == LIFETIME and not (
        bucket.row.flags & layout.CONTINUOUS
    )
