"""Which buckets a caller means who corrects a feature's balance: docs/balances.md, "Managing balances".

Chosen under the customer's row lock from what is held by SQL; live numbers are the script's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from ..catalog.model import Feature
from ..domain import layout
from ..domain.layout import Row
from ..domain.quantities import QuantityError, scale
from ..errors import ApiError, invalid, not_found
from ..store import balance_ids
from .change import Change
from .entities import open_entity_row
from .holdings import HeldBucket
from .steps import Op

PUBLIC_ID = re.compile(r"bkt_([1-9]\d{0,14})")
"""How a bucket is called that nobody named."""


@dataclass(frozen=True)
class Choice:
    """What a caller says of the buckets: each field that is given must fit. `interval` is a code."""

    feature_id: str = ""
    entity_id: str = ""
    interval: int | None = None
    balance_id: str = ""


@dataclass(frozen=True)
class Chosen:
    """Buckets of a feature in the order in which a call spends them, for the customer (entity '') or
    with one of its entities. `restores` bring back those that left the hot state."""

    feature: Feature
    entity_id: str
    buckets: tuple[HeldBucket, ...]
    restores: tuple[Op, ...] = ()

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(bucket.row for bucket in self.buckets)


def choose(change: Change, choice: Choice) -> Chosen:
    """The buckets that a caller's call spends (an entity's: its own, then the customer's) and that the
    choice fits. Raises ApiError: 404 for an unknown feature or entity, or if there are none; 400 for a
    boolean feature."""
    no = named(change, choice.balance_id) if choice.balance_id else 0
    found = [b for b in usable(change) if not no or b.row.no == no]
    feature_id = choice.feature_id or next((b.feature_id for b in found if no), "")
    if not feature_id:
        raise none_chosen(choice)
    feature = feature_of(change, feature_id)
    entity_id = choice.entity_id or next((b.row.entity_id for b in found if no), "")
    entity_feature = open_entity_row(change.conn, change.cid, entity_id)["feature_id"] if entity_id else ""
    found = [
        bucket for bucket in found
        if bucket.feature_id == feature.id and (choice.interval is None or bucket.row.interval == choice.interval)
        and (_with_entity(bucket.row, entity_id, entity_feature) if entity_id else not bucket.row.entity_id)
    ]
    if not found:
        raise none_chosen(choice)
    found.sort(key=lambda bucket: (is_entitys(bucket.row) is (not entity_id), layout.spending_key(bucket.row)))
    return Chosen(feature, entity_id, tuple(found), tuple(restores(found)))


def usable(change: Change) -> list[HeldBucket]:
    """The customer's and its entities' buckets that have not ended; no rollovers."""
    return [
        bucket for bucket in change.holdings.buckets
        if not bucket.row.rollover and not 0 < bucket.row.expires_at <= change.now_ms
    ]


def named(change: Change, balance_id: str) -> int:
    """The number of the bucket of that id; -1 for none."""
    public = PUBLIC_ID.fullmatch(balance_id)
    return int(public[1]) if public else balance_ids.of(change.conn, change.cid).get(balance_id, -1)


def feature_of(change: Change, feature_id: str, counted: bool = True) -> Feature:
    """The feature; `counted`: one that has balances. Raises ApiError 404, 400."""
    feature = change.catalog.features.get(feature_id)
    if feature is None:
        raise not_found("feature", feature_id)
    if counted and feature.type == "boolean":
        raise invalid("feature_id", f"{feature_id!r} is boolean: held or not, it has no balance")
    return feature


def scaled(feature: Feature, value: int | Decimal, field: str) -> int:
    """A quantity of the feature. Raises ApiError 400 naming the field."""
    try:
        return scale(value, feature.precision)
    except QuantityError as problem:
        raise invalid(field, str(problem)) from None


def restores(buckets: list[HeldBucket]) -> list[Op]:
    """The operations that bring back those of a feature's buckets that left the hot state."""
    return [
        ["restore", bucket.feature_id, [list(bucket.row._replace(balance=0))]] for bucket in buckets if bucket.archived
    ]


def is_entitys(row: Row) -> bool:
    """Whether an entity's call spends it before the customer's buckets."""
    return bool(row.entity_id) or row.per_entity


def none_chosen(choice: Choice) -> ApiError:
    """The error of a choice that fits nothing."""
    given = [
        f"{name} {value!r}" for name, value in (
            ("feature_id", choice.feature_id), ("entity_id", choice.entity_id), ("balance_id", choice.balance_id),
            ("interval", None if choice.interval is None else layout.INTERVALS[choice.interval]),
        ) if value
    ]
    return ApiError(404, "balance_not_found", f"the customer has no balance with {', '.join(given)}")


def _with_entity(row: Row, entity_id: str, entity_feature: str) -> bool:
    if row.per_entity:
        return row.entity_feature == entity_feature
    return row.entity_id in ("", entity_id)
