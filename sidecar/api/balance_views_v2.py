"""A feature's balance as API versions 2.0 and 2.1 and later show it: pure, from buckets to fields.

See docs/balances.md, "What callers see". Numbers are ints when whole, else exact Decimals. This
module does no I/O and knows nothing of requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Sequence

from ..domain.layout import BOOLEAN, INTERVALS, USAGE_ALLOWED, Archived, Row, Slot
from ..domain.quantities import unscale
from .balance_views import rollovers_v12
from .bucket_views import (
    NEVER_ENDS_MS, FeatureView, Part, interval_count_of, open_ended, public_id, purchasable_of, view_of,
)

if TYPE_CHECKING:
    from ..catalog.model import Feature
    from ..catalog.snapshot import Catalog
    from ..store.history import BucketLabel

ONE_OFF = "one_off"
"""What 2.x calls the interval of a grant that never resets."""


def bucket_id(row: Row) -> str:
    """The id of a bucket, unique within its customer."""
    return public_id(row.no)


def balance_v20(
    feature: Feature, rows: Sequence[Row], slots: Sequence[Slot] | None = None, archived: Archived = Archived()
) -> dict[str, Any] | None:
    """The 2.0 balance of `feature` (arguments as `bucket_views.view_of`), None if nothing is held.
    granted + purchased = current + usage, always."""
    view = view_of(rows, slots, archived)
    if view is None:
        return None
    precision, plans = feature.precision, {part.row.plan_id for part in view.entries}
    return {
        "feature_id": feature.id,
        "unlimited": view.unlimited,
        **_amounts_v20(precision, view, view.unlimited),
        "held": unscale(view.held, precision),
        "overage_allowed": view.overage_allowed,
        "max_purchase": _units(view.purchasable, precision),
        "reset": _reset_of(view),
        "plan_id": view.entries[0].row.plan_id or None if len(plans) == 1 else None,
        **({"rollovers": rollovers_v12(precision, view)} if view.rolls_over else {}),
        "breakdown": [_entry_v20(precision, part) for part in view.entries],
    }


def balance_v21(
    feature: Feature, rows: Sequence[Row], catalog: Catalog, slots: Sequence[Slot] | None = None,
    archived: Archived = Archived(),
) -> dict[str, Any] | None:
    """The balance of `feature` from 2.1 on, None if nothing is held or it is a flag."""
    view = view_of(rows, slots, archived)
    if view is None or view.boolean:
        return None
    precision = feature.precision
    dates = [part.row.next_reset_at for part in view.entries if part.row.next_reset_at]
    return {
        "feature_id": feature.id,
        "granted": 0 if view.unlimited else unscale(view.granted, precision),
        "remaining": 0 if view.unlimited else unscale(view.remaining, precision),
        "usage": unscale(view.usage, precision),
        "held": unscale(view.held, precision),
        "unlimited": view.unlimited,
        "overage_allowed": view.overage_allowed,
        "max_purchase": _units(view.purchasable, precision),
        "next_reset_at": min(dates, default=None),
        **({"rollovers": [rollover_v21(precision, part) for part in view.rollovers]} if view.rolls_over else {}),
        "breakdown": [entry_v21(precision, part, catalog) for part in view.entries],
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


def reset_of(row: Row | BucketLabel) -> dict[str, Any]:
    """The reset object of one bucket."""
    if not row.interval:
        return {"interval": ONE_OFF, "interval_count": 1, "resets_at": None}
    return {
        "interval": INTERVALS[row.interval], "interval_count": interval_count_of(row), "resets_at": row.next_reset_at or None
    }


def rollover_v21(precision: int, part: Part) -> dict[str, Any]:
    """One rollover as 2.1 and later show it."""
    return {
        "granted": unscale(part.granted, precision), "balance": unscale(part.balance, precision),
        "expires_at": part.row.expires_at or NEVER_ENDS_MS,
    }


def entry_v21(precision: int, part: Part, catalog: Catalog) -> dict[str, Any]:
    """One bucket as 2.1 and later show it in a breakdown."""
    row = part.row
    return {
        "id": bucket_id(row),
        "plan_id": row.plan_id or None,
        "included_grant": unscale(part.granted - part.prepaid, precision),
        "prepaid_grant": unscale(part.prepaid, precision),
        "remaining": unscale(part.remaining, precision),
        "usage": unscale(part.usage, precision),
        "held": unscale(part.held, precision),
        "unlimited": row.unlimited,
        "reset": reset_of(row),
        "price": _price(precision, row, catalog),
        "expires_at": row.expires_at or None,
    }


def _entry_v20(precision: int, part: Part) -> dict[str, Any]:
    row = part.row
    return {
        "id": bucket_id(row),
        "plan_id": row.plan_id or None,
        **_amounts_v20(precision, part, row.unlimited),
        "held": unscale(part.held, precision),
        "overage_allowed": open_ended(row),
        "max_purchase": _units(purchasable_of([part]), precision),
        "reset": reset_of(row),
        "prepaid_quantity": unscale(row.prepaid, precision),
        "expires_at": row.expires_at or None,
    }


def _amounts_v20(precision: int, of: FeatureView | Part, unlimited: bool) -> dict[str, Any]:
    return {
        "granted_balance": 0 if unlimited else unscale(of.granted - of.prepaid, precision),
        "purchased_balance": 0 if unlimited else unscale(of.prepaid + of.overage, precision),
        "current_balance": 0 if unlimited else unscale(of.remaining, precision),
        "usage": unscale(of.usage, precision),
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


def _units(scaled: int | None, precision: int) -> Any:
    return None if scaled is None else unscale(scaled, precision)


def _reset_of(view: FeatureView) -> dict[str, Any] | None:
    if view.boolean:
        return None
    resets = [reset_of(part.row) for part in view.entries]
    if not resets:  # only lifetime grants that are used up
        return {"interval": ONE_OFF, "interval_count": 1, "resets_at": None}
    if len({(reset["interval"], reset["interval_count"]) for reset in resets}) > 1:
        return {"interval": "multiple", "interval_count": None, "resets_at": None}
    dates = [reset["resets_at"] for reset in resets if reset["resets_at"]]
    return {**resets[0], "resets_at": min(dates, default=None)}
