"""The operations of a step, and the buckets that a plan makes.

Pure: no I/O, no clock. The operations are arrays as the projection script takes them:

    ["add", feature_id, row, carry_nos, anchor_no, customer_plan_uid, pays_debts, roll_nos, leaving_nos]
    ["left", feature_id, nos, target_no, loose_row]
    ["drop", feature_id, no, entity_id] and ["restore", feature_id, rows]
    ["entity" | "unentity", entity_id, feature_id, amount, continuous] and ["delete"]

Live balances are not known here: `carry_nos` names the buckets whose usage the script moves onto the
new row, `anchor_no` the one whose reset date it keeps, `roll_nos` those whose rollovers come along;
with `pays_debts` the new row first pays the debts of all but the `leaving_nos`. What "left" finds
unspent becomes the loose row, a debt lowers the target. `switches` says which is to happen.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Iterable, Mapping

from ..catalog.model import Feature, Item, Plan, Rollover
from ..domain import layout
from ..domain.intervals import LIFETIME, code_of, next_reset
from ..domain.layout import Row
from ..domain.quantities import QuantityError, scale
from ..errors import ApiError
from .holdings import HeldBucket
from .prices import Quantities, bought_units, quantity_of

Op = list[Any]
PERCENT_UNIT = 10_000
"""Scripts have percentages as integers of this many to the percent."""


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


def new_rows(features: Mapping[str, Feature], new: Enabled) -> list[tuple[Feature, Item, Row]]:
    """The buckets of a plan being enabled, numbered from `first_no` in the order of its items.
    Raises ApiError 400 `invalid_options`."""
    rows: list[tuple[Feature, Item, Row]] = []
    no = new.first_no
    for index, item in enumerate(new.plan.items):
        if item.feature_id is None:
            continue
        feature = features[item.feature_id]
        rows.append((feature, item, _row(feature, item, new, index, no)))
        no += 1
    return rows


def rows_made(ops: Iterable[Op]) -> int:
    """How many bucket numbers operations take."""
    return sum(op[0] in ("add", "left") for op in ops)


def open_entity(entity_id: str, feature: Feature) -> Op:
    """The operation that opens an entity of `feature`; the script may refuse it."""
    return ["entity", entity_id, feature.id, scale(1, feature.precision), int(feature.type == "continuous_use")]


def close_entity(entity_id: str, feature: Feature) -> Op:
    """The operation that closes an entity of `feature`."""
    return ["unentity", entity_id, feature.id, scale(1, feature.precision)]


def drops(buckets: Iterable[HeldBucket]) -> list[Op]:
    """The operations that remove buckets; those that left the hot state first come back, so that
    what they count goes with them."""
    buckets = list(buckets)
    back = [bucket for bucket in buckets if bucket.archived]
    ops: list[Op] = [["restore", bucket.feature_id, [list(bucket.row._replace(balance=0))]] for bucket in back]
    ops.extend(["drop", bucket.feature_id, bucket.row.no, bucket.row.entity_id] for bucket in buckets)
    return ops


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
        **roll_columns(feature, item.rollover),
    )


def roll_columns(feature: Feature, rollover: Rollover | None) -> dict[str, int]:
    """The columns of a bucket that say what of it rolls over at a reset."""
    if rollover is None:
        return {}
    most, percentage = rollover.max, rollover.max_percentage
    return {
        "roll_length": 0 if rollover.duration == "forever" else rollover.length,
        "roll_max": -1 if most is None else _scaled(feature, most),
        "roll_percent": -1 if percentage is None else int(percentage * PERCENT_UNIT),
    }


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
