"""Validation of a plan's items: what each kind may hold, and which fields go together."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Mapping

from ..domain.intervals import YEAR, code_of, length_ms
from ..domain.layout import INTERVALS
from .fields import Fields
from .model import USAGE_MODELS, Feature, Item
from .rollovers import read_rollover, rollover_places

INTERVAL_YEARS_MAX = 100
INTERVAL_NAMES = INTERVALS[1:]
ITEM_TYPES = ("feature", "priced_feature", "price")
ITEM_FIELDS = (
    "type", "feature_id", "included_usage", "interval", "interval_count", "price", "tiers", "usage_model",
    "billing_units", "usage_limit", "reset_usage_when_enabled", "entity_feature_id", "config", "rollover",
)


def read_item(i: Fields, features: Mapping[str, Feature], strict: bool) -> Item | None:
    """The item whose fields `i` reads, or None if there is a problem."""
    before = len(i.problems)
    if strict:
        i.only(ITEM_FIELDS)
    _refuse_unbuilt(i)
    feature_id = i.identifier("feature_id")
    feature = features.get(feature_id) if feature_id else None
    if feature_id and feature is None:
        i.wrong("feature_id", f"there is no feature {feature_id!r}; create it first, or correct the id")
    interval = i.choice("interval", INTERVAL_NAMES, " (left out: lifetime, or one time)")
    count = _interval_count(i, interval)
    price = i.amount("price")
    if i.is_object and not i.given("feature_id") and not i.given("price"):
        i.wrong("feature_id", "is required, or a price for an item that is a fixed price")
    kind = "price" if not i.given("feature_id") else "priced_feature" if i.given("price") else "feature"
    stated = i.choice("type", ITEM_TYPES)
    if stated and stated != kind and i.is_object:
        i.wrong("type", f"is {stated}, but the other fields are those of a {kind} item; leave it out, or correct them")
    grant: dict[str, Any] = {}
    if kind == "price":
        for name in ("included_usage", "usage_model", "usage_limit", "entity_feature_id"):
            if i.given(name):
                i.wrong(name, "belongs to a feature; add feature_id, or leave it out")
        for name in rollover_places(i):
            i.wrong(name, "belongs to a feature; add feature_id, or leave it out")
    elif feature is not None:
        grant = _grant(i, feature, features)
        grant["rollover"] = read_rollover(i, feature, interval, count, strict)
    reset = i.flag("reset_usage_when_enabled")
    if len(i.problems) > before:
        return None
    return Item(
        feature_id=feature_id, interval=interval, interval_count=count, price=price,
        reset_usage_when_enabled=True if reset is None else reset, **grant,
    )


def _refuse_unbuilt(i: Fields) -> None:
    if i.raw.get("tiers"):
        i.unsupported("tiers", "prices in tiers are not supported yet; give one price")


def _interval_count(i: Fields, interval: str | None) -> int:
    count = i.integer("interval_count", 1, 10**9)
    if count is None:
        return 1
    if interval is None and count != 1 and not i.given("interval"):
        i.wrong("interval_count", "needs an interval")
    elif length_ms(code_of(interval), count) > length_ms(YEAR, INTERVAL_YEARS_MAX):
        i.wrong("interval_count", f"{count} × {interval} is longer than {INTERVAL_YEARS_MAX} years")
    return count


def _grant(i: Fields, feature: Feature, features: Mapping[str, Feature]) -> dict[str, Any]:
    """The fields of a grant of this feature."""
    if feature.type == "boolean":
        for name in ("included_usage", "interval", "price", "usage_model", "usage_limit", "billing_units"):
            if i.given(name):
                i.wrong(name, f"does not apply to {feature.id!r}, which is boolean: held or not; leave it out")
        if i.given("entity_feature_id"):
            i.unsupported("entity_feature_id", "a boolean feature per entity is not supported yet")
        return {}
    entity_feature_id = _entity_feature(i, feature, features)
    unlimited = i.raw.get("included_usage") == "inf"
    included = None if unlimited else i.quantity("included_usage", feature.precision)
    limit = i.quantity("usage_limit", feature.precision)
    units = i.quantity("billing_units", feature.precision)
    model = i.choice("usage_model", USAGE_MODELS)
    if units == 0:
        i.wrong("billing_units", "must be more than 0")
    if unlimited:
        for name in ("price", "usage_limit"):
            if i.given(name):
                i.wrong(name, 'does not go with included_usage "inf"; leave one of them out')
        if entity_feature_id:
            i.unsupported("entity_feature_id", 'an "inf" grant per entity is not supported yet')
    if not i.given("price"):
        if model is not None:
            i.wrong("usage_model", f"{model} needs a price")
        if units not in (None, 1):
            i.wrong("billing_units", "needs a price")
        if limit is not None:
            i.unsupported("usage_limit", "is not supported yet without a price")
        if not i.given("included_usage"):
            i.wrong("included_usage", 'is required without a price: a number, or "inf" for no limit')
    elif included is None and not i.given("included_usage"):
        included = Decimal(0)
    if limit is not None and included is not None and limit < included:
        i.wrong("usage_limit", f"is {limit}, less than the {included} included; it counts both included and bought units")
    return {
        "included_usage": included,
        "unlimited": unlimited,
        "entity_feature_id": entity_feature_id,
        "billing_units": Decimal(1) if units is None else units,
        "usage_model": (model or "pay_per_use") if i.given("price") else None,
        "usage_limit": limit,
    }


def _entity_feature(i: Fields, feature: Feature, features: Mapping[str, Feature]) -> str | None:
    entity_feature_id = i.identifier("entity_feature_id")
    if entity_feature_id is None:
        return None
    owner = features.get(entity_feature_id)
    if owner is None:
        i.wrong("entity_feature_id", f"there is no feature {entity_feature_id!r}; create it first, or correct the id")
    elif owner.type != "continuous_use":
        i.wrong("entity_feature_id", f"{owner.id!r} is a {owner.type} feature; entities are of a continuous_use feature")
    elif owner.id == feature.id:
        i.wrong("entity_feature_id", "a grant per entity cannot be of the entities' own feature")
    return entity_feature_id
