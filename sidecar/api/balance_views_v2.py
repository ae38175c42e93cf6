"""A feature's balance as API versions 2.0 and 2.1 and later show it: pure, from buckets to fields.

See docs/balances.md, "What callers see". Numbers are ints when whole, else exact Decimals. This
module does no I/O and knows nothing of requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Sequence

from ..domain.layout import BOOLEAN, INTERVALS, UNLIMITED, USAGE_ALLOWED, Row, Slot, used
from ..domain.quantities import unscale
from .balance_views import bucket_part, in_view_order, interval_count_of, open_ended, purchasable_of

if TYPE_CHECKING:
    from ..catalog.model import Feature
    from ..catalog.snapshot import Catalog

ONE_OFF = "one_off"
"""What 2.x calls the interval of a grant that never resets."""


def bucket_id(row: Row) -> str:
    """The id of a bucket, unique within its customer."""
    return f"bkt_{row.no}"


def balance_v20(feature: Feature, rows: Sequence[Row], slots: Sequence[Slot] | None = None) -> dict[str, Any] | None:
    """The 2.0 balance of `feature` over `rows` (see `balance_views.balance_v12`), None if nothing
    is held. granted + purchased = current + usage, always."""
    rows = in_view_order(rows, slots is not None)
    if not rows:
        return None
    entries = [_entry_v20(feature.precision, row, slots) for row in rows]
    totals = _totals(rows, slots)
    unlimited = any(row.flags & UNLIMITED for row in rows)
    plans = {row.plan_id for row in rows}
    return {
        "feature_id": feature.id,
        "unlimited": unlimited,
        **_amounts_v20(feature.precision, totals, unlimited),
        "overage_allowed": any(open_ended(row) for row in rows),
        "max_purchase": _max_purchase(feature.precision, rows, slots),
        "reset": _reset_of(rows),
        "plan_id": rows[0].plan_id or None if len(plans) == 1 else None,
        "breakdown": entries,
    }


def balance_v21(
    feature: Feature, rows: Sequence[Row], catalog: Catalog, slots: Sequence[Slot] | None = None
) -> dict[str, Any] | None:
    """The 2.1 balance of `feature` over `rows`, None if nothing is held or it is a flag."""
    rows = in_view_order(rows, slots is not None)
    if not rows or rows[0].flags & BOOLEAN:
        return None
    unlimited = any(row.flags & UNLIMITED for row in rows)
    granted, _included, remaining, overage, usage = _totals(rows, slots)
    dates = [row.next_reset_at for row in rows if row.next_reset_at]
    return {
        "feature_id": feature.id,
        "granted": 0 if unlimited else unscale(granted, feature.precision),
        "remaining": 0 if unlimited else unscale(remaining, feature.precision),
        "usage": unscale(usage, feature.precision),
        "unlimited": unlimited,
        "overage_allowed": any(open_ended(row) for row in rows),
        "max_purchase": _max_purchase(feature.precision, rows, slots),
        "next_reset_at": min(dates, default=None),
        "breakdown": [_entry_v21(feature.precision, row, catalog, slots) for row in rows],
    }


def flag_v21(feature: Feature, rows: Sequence[Row]) -> dict[str, Any] | None:
    """The flag of a boolean feature that is held, else None."""
    for row in rows:
        if row.flags & BOOLEAN:
            return {
                "id": bucket_id(row), "plan_id": row.plan_id or None, "expires_at": row.expires_at or None,
                "feature_id": feature.id,
            }
    return None


def reset_of(row: Row) -> dict[str, Any]:
    """The reset object of one bucket."""
    if not row.interval:
        return {"interval": ONE_OFF, "interval_count": 1, "resets_at": None}
    return {
        "interval": INTERVALS[row.interval], "interval_count": interval_count_of(row), "resets_at": row.next_reset_at or None
    }


def _amount(row: Row, slots: Sequence[Slot] | None) -> tuple[int, int, int, int, int]:
    """(granted, included, remaining, overage, usage) of one bucket in the view, scaled."""
    if row.flags & UNLIMITED:
        return 0, 0, 0, 0, used(row)
    balance, granted, times = bucket_part(row, slots)
    remaining, overage = max(0, balance), max(0, -balance)
    if row.per_entity and slots is None:  # a sum over entities, some of whom may be below zero
        remaining, overage = balance + row.over, row.over
    return granted, granted - row.prepaid * times, remaining, overage, granted - balance


def _totals(rows: Sequence[Row], slots: Sequence[Slot] | None) -> tuple[int, int, int, int, int]:
    amounts = [_amount(row, slots) for row in rows]
    granted, included, remaining, overage, usage = (sum(column) for column in zip(*amounts))
    return granted, included, remaining, overage, usage


def _amounts_v20(precision: int, amount: tuple[int, int, int, int, int], unlimited: bool) -> dict[str, Any]:
    granted, included, remaining, overage, usage = amount
    return {
        "granted_balance": 0 if unlimited else unscale(included, precision),
        "purchased_balance": 0 if unlimited else unscale(granted - included + overage, precision),
        "current_balance": 0 if unlimited else unscale(remaining, precision),
        "usage": unscale(usage, precision),
    }


def _entry_v20(precision: int, row: Row, slots: Sequence[Slot] | None) -> dict[str, Any]:
    return {
        "id": bucket_id(row),
        "plan_id": row.plan_id or None,
        **_amounts_v20(precision, _amount(row, slots), row.unlimited),
        "overage_allowed": open_ended(row),
        "max_purchase": _max_purchase(precision, [row], slots),
        "reset": reset_of(row),
        "prepaid_quantity": unscale(row.prepaid, precision),
        "expires_at": row.expires_at or None,
    }


def _entry_v21(precision: int, row: Row, catalog: Catalog, slots: Sequence[Slot] | None) -> dict[str, Any]:
    granted, included, remaining, _overage, usage = _amount(row, slots)
    return {
        "id": bucket_id(row),
        "plan_id": row.plan_id or None,
        "included_grant": unscale(included, precision),
        "prepaid_grant": unscale(granted - included, precision),
        "remaining": unscale(remaining, precision),
        "usage": unscale(usage, precision),
        "unlimited": row.unlimited,
        "reset": reset_of(row),
        "price": _price(precision, row, catalog),
        "expires_at": row.expires_at or None,
    }


def _price(precision: int, row: Row, catalog: Catalog) -> dict[str, Any] | None:
    item = catalog.item(row.item)
    if item is None or item.price is None:
        return None
    return {
        "amount": item.price,
        "tiers": None,
        "tier_behavior": None,
        "billing_units": item.billing_units,
        "billing_method": "usage_based" if row.flags & USAGE_ALLOWED else "prepaid",
        "max_purchase": unscale(row.purchasable, precision) if row.purchasable >= 0 else None,
    }


def _max_purchase(precision: int, rows: Sequence[Row], slots: Sequence[Slot] | None) -> Any:
    purchasable = purchasable_of(rows, [bucket_part(row, slots) for row in rows])
    return None if purchasable is None else unscale(purchasable, precision)


def _reset_of(rows: Sequence[Row]) -> dict[str, Any] | None:
    if rows[0].flags & BOOLEAN:
        return None
    resets = [reset_of(row) for row in rows]
    if len({(reset["interval"], reset["interval_count"]) for reset in resets}) > 1:
        return {"interval": "multiple", "interval_count": None, "resets_at": None}
    dates = [reset["resets_at"] for reset in resets if reset["resets_at"]]
    return {**resets[0], "resets_at": min(dates, default=None)}
