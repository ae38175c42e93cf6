"""Routes of buying: checkout, attach, setup_payment."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Mapping

from starlette.routing import Route

from ..billing import attach as billing, customers
from ..billing.attach import Answer, Buyer, Terms
from ..billing.orders import Order, Quote, sellable_plan
from ..billing.prices import Line, plain
from ..billing.steps import CarryOver
from ..catalog.model import Plan
from ..catalog.snapshot import Catalog
from ..errors import ApiError, NotSupported, invalid, not_found
from . import fields
from .catalog_views import item_json, product_json
from .customers import customer_data
from .endpoint import Call, Reply, endpoint
from .request_data import entity_data_of

UNBUILT = (
    "free_trial", "reward", "invoice", "new_billing_subscription", "checkout_session_params", "metadata",
    "is_custom", "items", "invoice_only", "billing_cycle_anchor", "enable_product_immediately", "finalize_invoice",
    "discounts", "carry_over_balances", "plan_schedule", "proration_behavior", "invoice_mode",
    "customize", "subscription_id",
)
"""Known fields of an order that have no effect yet, so may only ask for nothing."""
OPTION_UNBUILT = ("upcoming_quantity", "adjustable_quantity", "adjustable")


@endpoint
async def attach(call: Call) -> Reply | dict[str, Any]:
    """Gives a customer a plan: at once, or when its checkout is paid."""
    buyer, order, terms = await _order(call)
    answer = await billing.attach(call.ctx, buyer, order, terms)
    plan = answer.quote.plan
    shown = {"success": True, "customer_id": buyer.id, "product_ids": [plan.id]}
    if answer.url is not None:
        message = f"{plan.name} will be attached when the checkout is paid"
        return {**shown, "code": "checkout_created", "message": message, "checkout_url": answer.url, "url": answer.url}
    return {**shown, "code": _code(answer.quote), "message": f"{plan.name} is attached", "checkout_url": None, "url": None}


@endpoint
async def checkout(call: Call) -> Reply | dict[str, Any]:
    """What attaching a plan costs and does, with the address to pay at if it needs a payment."""
    buyer, order, terms = await _order(call)
    return _checkout_v12(call, buyer.id, await billing.checkout(call.ctx, buyer, order, terms))


@endpoint
async def setup_payment(call: Call) -> Reply | dict[str, Any]:
    """The address of a page that puts a card on file and charges nothing."""
    fields.require_v1(call.version, "setup_payment")
    body = call.fields
    fields.refuse_unbuilt(body, ("checkout_session_params",))
    customer_id = fields.identifier(body, "customer_id")
    terms = Terms(call.base_url, fields.web_url(body, "success_url"))
    await customers.get_or_create(call.ctx, customer_id, customer_data(body.get("customer_data"), call.ctx, "customer_data."))
    return {"customer_id": customer_id, "url": await billing.setup_payment(call.ctx, customer_id, terms)}


@endpoint
async def cancel(call: Call) -> Reply | dict[str, Any]:
    """Ends a plan; not built yet."""
    raise NotSupported("cancel")


@endpoint
async def billing_portal(call: Call) -> Reply | dict[str, Any]:
    """A page where buyers manage their payments; not built yet."""
    raise NotSupported("billing_portal")


async def _order(call: Call) -> tuple[Buyer, Order, Terms]:
    """The order in a body. Raises ApiError 4xx."""
    fields.require_v1(call.version, "attach and checkout")
    body = call.fields
    fields.refuse_unbuilt(body, UNBUILT)
    customer_id = fields.identifier(body, "customer_id")
    plan_id = _product_id(body)
    entity_id = fields.optional_id(body, "entity_id") or ""
    force_checkout = fields.flag(body, "force_checkout") or False
    setup_payment = fields.flag(body, "setup_payment") or False
    terms = Terms(call.base_url, fields.web_url(body, "success_url"), force_checkout, setup_payment)
    data = customer_data(body.get("customer_data"), call.ctx, "customer_data.")
    entity = entity_data_of(body)
    catalog = await call.ctx.catalog.refresh()
    plan = sellable_plan(catalog, plan_id)
    _check_version(body, plan)
    order = Order(plan.uid, _quantities(body, plan), entity_id, _carry_over(body, catalog))
    return Buyer(customer_id, data, entity), order, terms


def _product_id(body: Mapping[str, Any]) -> str:
    many = body.get("product_ids")
    if many is None:
        return fields.identifier(body, "product_id")
    if body.get("product_id") is not None:
        raise invalid("product_ids", "give either product_id or product_ids")
    if not isinstance(many, list) or not many:
        raise invalid("product_ids", "must be a list of ids")
    ids = [fields.checked_id(plan_id, f"product_ids[{index}]") for index, plan_id in enumerate(many)]
    if len(ids) > 1:
        raise NotSupported("product_ids", "attaching several plans in one call is not supported yet")
    return ids[0]


def _check_version(body: Mapping[str, Any], plan: Plan) -> None:
    version = body.get("version")
    if version is not None and fields.number(version, "version") != plan.version:
        raise NotSupported("version", f"only the newest version ({plan.version}) can be attached")


def _quantities(body: Mapping[str, Any], plan: Plan) -> dict[str, Decimal]:
    """Units to buy of each feature beyond the included ones: `options` counts just those,
    `feature_quantities` the included ones too. Raises ApiError 400 `invalid_options`."""
    included = {item.feature_id: item.included_usage or Decimal(0) for item in plan.items if item.is_prepaid}
    quantities: dict[str, Decimal] = {}
    for name in ("options", "feature_quantities"):
        entries = body.get(name)
        if entries is None:
            continue
        if not isinstance(entries, list):
            raise _wrong_options(f"{name}: must be a list")
        for index, entry in enumerate(entries):
            at = f"{name}[{index}]"
            if not isinstance(entry, dict):
                raise _wrong_options(f"{at}: must be an object")
            fields.refuse_unbuilt(entry, OPTION_UNBUILT)
            feature_id, units = entry.get("feature_id"), entry.get("quantity")
            if not isinstance(feature_id, str):
                raise _wrong_options(f"{at}.feature_id: must be a string")
            if isinstance(units, bool) or not isinstance(units, (int, Decimal)) or units < 0 or units > 10**18:
                raise _wrong_options(f"{at}.quantity: must be a number of units, 0 or more")
            if feature_id in quantities:
                raise _wrong_options(f"{at}.feature_id: {feature_id!r} is listed twice")
            beyond = Decimal(units) - (included.get(feature_id, Decimal(0)) if name == "feature_quantities" else 0)
            quantities[feature_id] = max(Decimal(0), beyond)
    return quantities


def _carry_over(body: Mapping[str, Any], catalog: Catalog) -> CarryOver | None:
    """What the call says of usage at a switch; None if nothing. Raises ApiError 400 or 404."""
    given = body.get("carry_over_usages")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise invalid("carry_over_usages", "must be an object")
    enabled = fields.flag(given, "enabled", "carry_over_usages.")
    if enabled is None:
        raise invalid("carry_over_usages.enabled", "is required")
    ids = given.get("feature_ids")
    if ids is None:
        return CarryOver(enabled)
    if not isinstance(ids, list):
        raise invalid("carry_over_usages.feature_ids", "must be a list of ids")
    named = [fields.checked_id(each, f"carry_over_usages.feature_ids[{index}]") for index, each in enumerate(ids)]
    for feature_id in named:
        if feature_id not in catalog.features:
            raise not_found("feature", feature_id)
    return CarryOver(enabled, frozenset(named))


def _wrong_options(message: str) -> ApiError:
    return ApiError(400, "invalid_options", message)


def _code(quote: Quote) -> str:
    if quote.plan.is_one_off:
        return "one_off_product_attached"
    if not quote.plan.is_paid:
        return "free_product_attached"
    return "upgraded_to_new_product" if quote.replaced is not None else "new_product_attached"


def _checkout_v12(call: Call, customer_id: str, answer: Answer) -> dict[str, Any]:
    quote, features = answer.quote, call.ctx.catalog.current.features
    shared: dict[str, Any] = {"env": call.env, "currency": call.ctx.settings.currency}
    bought = {line.item.feature_id: line.units for line in quote.lines if line.item.feature_id and line.units is not None}
    shown: dict[str, Any] = {
        "url": answer.url,
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


def _line(line: Line, features: Mapping[str, Any], currency: str) -> dict[str, Any]:
    return {
        "description": line.description,
        "amount": plain(line.amount),
        "item": item_json(line.item, features, currency=currency, quantity=line.units),
    }


routes = [
    Route("/v1/attach", attach, methods=["POST"]),
    Route("/v1/checkout", checkout, methods=["POST"]),
    Route("/v1/setup_payment", setup_payment, methods=["POST"]),
    Route("/v1/cancel", cancel, methods=["POST"]),
    Route("/v1/customers/{customer_id}/billing_portal", billing_portal, methods=["GET", "POST"]),
]
