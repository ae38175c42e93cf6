"""What an order would cost and do, as each generation of the wire shows it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Mapping

from ..billing.orders import Quote
from ..billing.prices import Line, plain, quantity_of, bought_units
from ..catalog.model import Plan
from .catalog_views import item_json, product_json
from .endpoint import Call

PAGE_TYPE = "autumn_checkout"
"""What the 2.x wire calls a payment page of this server."""


def checkout_v1(call: Call, customer_id: str, quote: Quote, url: str | None) -> dict[str, Any]:
    """A quote in the shape of 1.2, with the address to pay at."""
    features = call.ctx.catalog.current.features
    shared: dict[str, Any] = {"env": call.env, "currency": call.ctx.settings.currency}
    bought = {line.item.feature_id: line.units for line in quote.lines if line.item.feature_id and line.units is not None}
    shown: dict[str, Any] = {
        "url": url,
        "customer_id": customer_id,
        "lines": [_line(line, features, shared["currency"]) for line in quote.lines],
        "product": product_json(quote.plan, features, scenario=quote.scenario, quantities=bought, **shared),
        "current_product": None,
        "options": [
            {"feature_id": feature_id, "quantity": plain(units)} for feature_id, units in quote.order.quantities.items()
        ],
        "total": plain(quote.total),
        "currency": shared["currency"],
        "has_prorations": False,
    }
    if quote.replaced is not None:
        shown["current_product"] = product_json(quote.replaced.plan, features, scenario="active", **shared)
    if quote.next_cycle_at is not None:
        shown["next_cycle"] = {"starts_at": quote.next_cycle_at, "total": plain(quote.next_total)}
    return shown


def preview_v2(call: Call, customer_id: str, quote: Quote, redirects: bool) -> dict[str, Any]:
    """A quote in the shape of 2.x. Changes that take effect at once have no `effective_at`."""
    features = call.ctx.catalog.current.features
    total = plain(quote.total)
    shown: dict[str, Any] = {
        "customer_id": customer_id,
        "line_items": [_line_item(line, quote.plan, features) for line in quote.lines],
        "subtotal": total,
        "total": total,
        "currency": call.ctx.settings.currency,
        "incoming": [_plan_change(quote.plan, quote.order.quantities)],
        "outgoing": [],
        "redirect_to_checkout": redirects,
        "checkout_type": PAGE_TYPE if redirects else None,
    }
    if quote.replaced is not None:
        held = {feature_id: Decimal(units) for feature_id, units in quote.replaced.options.items()}
        shown["outgoing"] = [_plan_change(quote.replaced.plan, held)]
    if quote.next_cycle_at is not None:
        recurring = [line for line in quote.lines if line.item.interval is not None]
        used = [item for item in quote.plan.items if item.is_pay_per_use]
        shown["next_cycle"] = {
            "starts_at": quote.next_cycle_at,
            "subtotal": plain(quote.next_total),
            "total": plain(quote.next_total),
            "line_items": [_line_item(line, quote.plan, features) for line in recurring],
            "usage_line_items": [
                {"display_name": features[item.feature_id or ""].name, "plan_id": quote.plan.id, "feature_id": item.feature_id}
                for item in used
            ],
        }
    return shown


def _line_item(line: Line, plan: Plan, features: Mapping[str, Any]) -> dict[str, Any]:
    feature_id = line.item.feature_id
    return {
        "display_name": plan.name if feature_id is None else features[feature_id].name,
        "description": line.description,
        "subtotal": plain(line.amount),
        "total": plain(line.amount),
        "plan_id": plan.id,
        "feature_id": feature_id,
        "quantity": 1 if line.units is None else plain(line.units),
    }


def _plan_change(plan: Plan, quantities: Mapping[str, Decimal]) -> dict[str, Any]:
    """A plan that comes or goes, with its prepaid units, included ones too."""
    prepaid = [item for item in plan.items if item.is_prepaid and item.feature_id in quantities]
    return {
        "plan_id": plan.id,
        "feature_quantities": [
            {
                "feature_id": item.feature_id,
                "quantity": plain((item.included_usage or Decimal(0)) + bought_units(item, quantity_of(item, quantities))),
            }
            for item in prepaid
        ],
        "effective_at": None,
        "canceled_at": None,
        "expires_at": None,
    }


def _line(line: Line, features: Mapping[str, Any], currency: str) -> dict[str, Any]:
    return {
        "description": line.description,
        "amount": plain(line.amount),
        "item": item_json(line.item, features, currency=currency, quantity=line.units),
    }
