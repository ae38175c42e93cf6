"""A feature's balance as API version 1.2 shows it: pure, from packed buckets to the answer's fields.

See docs/balances.md, "What callers see". Numbers are ints when whole, else exact Decimals. This
module does no I/O and knows nothing of requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Sequence

from ..domain.intervals import LIFETIME
from ..domain.layout import INTERVALS, Archived, Row, Slot
from ..domain.quantities import unscale
from .bucket_views import NEVER_ENDS_MS, FeatureView, Part, interval_count_of, open_ended, purchasable_of, view_of

if TYPE_CHECKING:
    from ..catalog.model import Feature

MULTIPLE = "multiple"
TYPES_V12 = {"boolean": "static", "credit_system": "single_use"}
"""Feature types that 1.2 customers show under another name."""


def balance_v12(
    feature: Feature, rows: Sequence[Row], slots: Sequence[Slot] | None = None, archived: Archived = Archived()
) -> dict[str, Any]:
    """The balance fields of `feature`, as a 1.2 check shows them: everything of a 1.2 feature but
    `id`, `type` and `name`. Arguments as `bucket_views.view_of`. included_usage − usage = balance,
    always."""
    view = view_of(rows, slots, archived)
    if view is None or view.boolean:
        return _flag_fields()
    balance = 0 if view.unlimited else view.balance
    granted = 0 if view.unlimited else view.granted
    fields = _interval_fields(view.entries)
    fields.update(
        unlimited=view.unlimited,
        balance=unscale(balance, feature.precision),
        usage=unscale(granted - balance, feature.precision),
        included_usage=unscale(granted, feature.precision),
        overage_allowed=view.overage_allowed,
    )
    if view.held and not view.unlimited:
        fields["held"] = unscale(view.held, feature.precision)
    if view.purchasable is not None and not view.unlimited:
        fields["usage_limit"] = unscale(granted + view.purchasable, feature.precision)
    if view.rolls_over:
        fields["rollovers"] = rollovers_v12(feature.precision, view)
    fields["breakdown"] = [_entry(feature.precision, part) for part in view.entries]
    if feature.type == "credit_system":
        fields["credit_schema"] = [
            {"feature_id": member, "credit_amount": cost} for member, cost in feature.credit_schema
        ]
    return fields


def feature_v12(
    feature: Feature, rows: Sequence[Row], slots: Sequence[Slot] | None = None, archived: Archived = Archived()
) -> dict[str, Any]:
    """The entry of `feature` in a 1.2 customer's or entity's `features`; arguments as
    `balance_v12`."""
    return {
        "id": feature.id,
        "type": TYPES_V12.get(feature.type, feature.type),
        "name": feature.name or feature.id,
        **balance_v12(feature, rows, slots, archived),
    }


def rollovers_v12(precision: int, view: FeatureView) -> list[dict[str, Any]]:
    """The rollovers of a view, soonest-ending first, as versions up to 2.0 show them."""
    return [
        {"balance": unscale(part.balance, precision), "expires_at": part.row.expires_at or NEVER_ENDS_MS}
        for part in view.rollovers
    ]


def _interval_fields(entries: Sequence[Part]) -> dict[str, Any]:
    """The interval that all entries have; a feature of which none is shown has only lifetime grants
    that are used up."""
    intervals = {(part.row.interval, interval_count_of(part.row)) for part in entries} or {(LIFETIME, 1)}
    if len(intervals) > 1:
        return {"interval": MULTIPLE, "interval_count": None, "next_reset_at": None}
    code, count = next(iter(intervals))
    dates = [part.row.next_reset_at for part in entries if part.row.next_reset_at]
    return {"interval": INTERVALS[code], "interval_count": count, "next_reset_at": min(dates, default=None)}


def _entry(precision: int, part: Part) -> dict[str, Any]:
    row = part.row
    entry: dict[str, Any] = {
        "interval": INTERVALS[row.interval],
        "interval_count": interval_count_of(row),
        "balance": unscale(part.balance, precision),
        "usage": unscale(part.granted - part.balance, precision),
        "included_usage": unscale(part.granted, precision),
        "next_reset_at": row.next_reset_at or None,
        "overage_allowed": open_ended(row),
    }
    if part.held and not row.unlimited:
        entry["held"] = unscale(part.held, precision)
    purchasable = purchasable_of([part])
    if purchasable is not None and not row.unlimited:
        entry["usage_limit"] = unscale(part.granted + purchasable, precision)
    if row.expires_at:
        entry["expires_at"] = row.expires_at
    return entry


def _flag_fields() -> dict[str, Any]:
    """A boolean feature, or one of which nothing is in scope: no numbers, no interval."""
    return {
        "interval": None, "interval_count": None, "next_reset_at": None, "unlimited": False,
        "balance": 0, "usage": 0, "included_usage": 0, "overage_allowed": False,
    }
