"""Features, plans and items as API version 1.2 shows them, for the catalog's own routes and for
checkout, attach and customers alike."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Mapping

from ..catalog.model import Feature, Item, Plan, Rollover

CURRENCY_SIGNS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}


def feature_json(feature: Feature) -> dict[str, Any]:
    """A feature of the catalog."""
    return {
        "id": feature.id,
        "name": feature.name,
        "type": feature.type,
        "display": dict(zip(("singular", "plural"), feature.display)) if feature.display else None,
        "credit_schema": [
            {"metered_feature_id": member, "credit_cost": number(cost)} for member, cost in feature.credit_schema
        ] if feature.type == "credit_system" else None,
        "event_names": list(feature.event_names),
        "precision": feature.precision,
        "archived": feature.archived,
    }


def product_json(
    plan: Plan,
    features: Mapping[str, Feature],
    *,
    env: str = "sandbox",
    currency: str = "usd",
    scenario: str | None = None,
    quantities: Mapping[str, Decimal | int] | None = None,
) -> dict[str, Any]:
    """A plan as a 1.2 product. `scenario` (new, upgrade, active …) says what attaching it would
    be for a customer, and brings the plan's `properties`. `quantities` gives, by feature, the
    units of prepaid items that a customer chose, shown as each item's `quantity`."""
    chosen = quantities or {}
    product: dict[str, Any] = {
        "id": plan.id,
        "name": plan.name,
        "group": plan.group or None,
        "env": env,
        "is_add_on": plan.is_add_on,
        "is_default": plan.is_default,
        "archived": plan.archived,
        "version": plan.version,
        "created_at": plan.created_at,
        "items": [
            item_json(item, features, currency=currency, quantity=chosen.get(item.feature_id or "") if item.is_prepaid else None)
            for item in plan.items
        ],
        "free_trial": None,
        "base_variant_id": None,
    }
    if scenario is not None:
        product["scenario"] = scenario
        product["properties"] = properties_json(plan)
    return product


def properties_json(plan: Plan) -> dict[str, Any]:
    """What kind of plan it is, at a glance. Free means that no price of it is above zero;
    updateable that a quantity bought can be changed later."""
    recurring = [item for item in plan.items if item.price is not None and item.interval is not None]
    return {
        "is_free": not any(item.price for item in plan.items),
        "is_one_off": plan.is_one_off,
        "interval_group": recurring[0].interval if recurring else None,
        "has_trial": False,
        "updateable": any(item.is_prepaid for item in recurring),
    }


def item_json(
    item: Item, features: Mapping[str, Feature], *, currency: str = "usd", quantity: Decimal | int | None = None
) -> dict[str, Any]:
    """One item of a plan. With a `quantity` (units bought) its text tells that quantity first."""
    feature = features.get(item.feature_id) if item.feature_id else None
    priced_feature = item.type == "priced_feature"
    return {
        "type": item.type,
        "feature_id": item.feature_id,
        "feature_type": _feature_type(feature),
        "included_usage": "inf" if item.unlimited else number(item.included_usage),
        "interval": item.interval,
        "interval_count": item.interval_count,
        "price": number(item.price),
        "tiers": None,
        "usage_model": item.usage_model,
        "billing_units": number(item.billing_units) if priced_feature else None,
        "usage_limit": number(item.usage_limit),
        "reset_usage_when_enabled": item.reset_usage_when_enabled if feature and feature.type != "boolean" else None,
        "entity_feature_id": item.entity_feature_id,
        **({"config": {"rollover": rollover_json(item.rollover)}} if item.rollover is not None else {}),
        "display": display_json(item, feature, currency=currency, quantity=quantity),
        **({"quantity": number(quantity)} if quantity is not None else {}),
    }


def rollover_json(rollover: Rollover) -> dict[str, Any]:
    """A rollover as an item of 1.2 has it."""
    return {"max": None, **{name: number(value) for name, value in rollover.fields().items()}}


def display_json(
    item: Item, feature: Feature | None, *, currency: str = "usd", quantity: Decimal | int | None = None
) -> dict[str, Any]:
    """The two texts of an item: `200 messages` over `$10 per 100 messages`, and the like."""
    every = _every(item)
    if item.feature_id is None:
        return _texts(money(item.price, currency), every)
    if feature is None or feature.type == "boolean":
        return _texts(feature.name if feature else item.feature_id, None)
    if item.price is None:
        return _texts(f"{_granted(item)} {units_name(feature, item.included_usage)}", every)
    per = f"{_count(item.billing_units)} " if item.billing_units != 1 else ""
    price = f"{money(item.price, currency)} per {per}{units_name(feature, item.billing_units)}"
    if quantity is not None:
        return _texts(f"{_count(quantity)} {units_name(feature, quantity)}", _joined(price, every))
    if item.included_usage:
        return _texts(f"{_granted(item)} {units_name(feature, item.included_usage)}", _joined(f"then {price}", every))
    return _texts(price, every)


def units_name(feature: Feature, count: Decimal | int | None) -> str:
    """How that many units of a feature are called within a sentence."""
    if feature.display:
        return feature.display[0] if count == 1 else feature.display[1]
    name = feature.name
    if name[1:2].islower():  # USD credits keeps its capitals, Messages does not
        name = name[0].lower() + name[1:]
    return name[:-1] if count == 1 and name.endswith("s") and not name.endswith("ss") else name


def money(amount: Decimal | int | None, currency: str = "usd") -> str:
    """An amount as people write it: `$20`, `$0.50`, `20 CHF`."""
    value = Decimal(amount or 0)
    text = f"{value:,f}"
    if "." in text:
        whole, cents = text.split(".")
        cents = cents.rstrip("0")
        text = f"{whole}.{cents.ljust(2, '0')}" if cents else whole
    sign = CURRENCY_SIGNS.get(currency)
    return f"{sign}{text}" if sign else f"{text} {currency.upper()}"


def number(value: Decimal | int | None) -> Decimal | int | None:
    """A number as an answer carries it: whole ones without a decimal point."""
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    return value


def _feature_type(feature: Feature | None) -> str | None:
    if feature is None:
        return None
    return {"boolean": "static", "credit_system": "single_use"}.get(feature.type, feature.type)


def _granted(item: Item) -> str:
    return "Unlimited" if item.unlimited else _count(item.included_usage or 0)


def _count(value: Decimal | int) -> str:
    text = f"{Decimal(value):,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _every(item: Item) -> str | None:
    if item.interval is None:
        return None
    name = item.interval.replace("_", " ")
    name = {"semi annual": "half year"}.get(name, name)
    return f"per {name}" if item.interval_count == 1 else f"per {item.interval_count} {name}s"


def _joined(*parts: str | None) -> str:
    return " ".join(part for part in parts if part)


def _texts(primary: str, secondary: str | None) -> dict[str, Any]:
    return {"primary_text": primary, "secondary_text": secondary}
