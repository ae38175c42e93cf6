"""Routes of buying: attach, its preview, checkout, setup_payment, in both styles."""

from __future__ import annotations

from typing import Any

from starlette.routing import Route

from ..billing import attach as billing, customers
from ..billing.attach import Buyer
from ..billing.orders import Quote
from ..errors import NotSupported
from . import fields
from .billing_views import checkout_v1, preview_v2
from .customers import customer_data
from .endpoint import Call, Reply, endpoint
from .order_data import names_a_plan, order_of, terms_of

UNBUILT_ROUTES = (
    "billing.multi_attach", "billing.preview_multi_attach", "billing.update", "billing.preview_update",
    "billing.multi_update", "billing.preview_multi_update", "billing.create_schedule", "billing.restore",
    "billing.verify", "billing.import", "billing.open_customer_portal",
)


@endpoint
async def attach(call: Call) -> Reply | dict[str, Any]:
    """Gives a customer a plan: at once, or when its checkout is paid."""
    fields.refuse_old(call.version)
    buyer, order, terms = await order_of(call)
    answer = await billing.attach(call.ctx, buyer, order, terms)
    if call.version >= (2, 1):
        return {"customer_id": buyer.id, "payment_url": answer.url, **_entity(order.entity_id)}
    plan = answer.quote.plan
    shown = {"success": True, "customer_id": buyer.id, "product_ids": [plan.id]}
    if answer.url is not None:
        message = f"{plan.name} will be attached when the checkout is paid"
        return {**shown, "code": "checkout_created", "message": message, "checkout_url": answer.url, "url": answer.url}
    return {**shown, "code": _code(answer.quote), "message": f"{plan.name} is attached", "checkout_url": None, "url": None}


@endpoint
async def checkout(call: Call) -> Reply | dict[str, Any]:
    """What attaching a plan costs and does, with the address to pay at if it needs a payment."""
    fields.refuse_old(call.version)
    buyer, order, terms = await order_of(call)
    answer = await billing.checkout(call.ctx, buyer, order, terms)
    if call.version >= (2, 1):
        return {**preview_v2(call, buyer.id, answer.quote, answer.url is not None), "url": answer.url}
    return checkout_v1(call, buyer.id, answer.quote, answer.url)


@endpoint
async def preview_attach(call: Call) -> Reply | dict[str, Any]:
    """What attaching a plan costs and does; nothing changes."""
    fields.refuse_old(call.version)
    buyer, order, terms = await order_of(call)
    quote, redirects = await billing.preview(call.ctx, buyer.id, order, terms)
    if call.version >= (2, 1):
        return preview_v2(call, buyer.id, quote, redirects)
    return checkout_v1(call, buyer.id, quote, None)


@endpoint
async def setup_payment(call: Call) -> Reply | dict[str, Any]:
    """The address of a page that puts a card on file; a plan that is named applies then."""
    fields.refuse_old(call.version)
    body = call.fields
    fields.refuse_unbuilt(body, ("checkout_session_params",))
    if names_a_plan(body):
        buyer, order, terms = await order_of(call)
        await _make(call, buyer)
        url = await billing.setup_payment(call.ctx, buyer.id, order, terms)
        return {"customer_id": buyer.id, "url": url, **_entity(order.entity_id)}
    data = customer_data(body.get("customer_data"), call.ctx, "customer_data.")
    buyer = Buyer(fields.identifier(body, "customer_id"), data, must_exist=call.version >= (2, 1))
    terms = terms_of(call)
    await _make(call, buyer)
    return {"customer_id": buyer.id, "url": await billing.setup_payment(call.ctx, buyer.id, None, terms)}


@endpoint
async def cancel(call: Call) -> Reply | dict[str, Any]:
    """Ends a plan; not built yet."""
    raise NotSupported("cancel")


@endpoint
async def billing_portal(call: Call) -> Reply | dict[str, Any]:
    """A page where buyers manage their payments; not built yet."""
    raise NotSupported("billing_portal")


def unbuilt(name: str) -> Any:
    """The endpoint of a route of the contract that is not built yet."""

    async def refuse(call: Call) -> Reply | dict[str, Any]:
        raise NotSupported(name)

    return endpoint(refuse)


async def _make(call: Call, buyer: Buyer) -> None:
    if not buyer.must_exist:
        await customers.get_or_create(call.ctx, buyer.id, buyer.data)


def _entity(entity_id: str) -> dict[str, str]:
    return {"entity_id": entity_id} if entity_id else {}


def _code(quote: Quote) -> str:
    if quote.plan.is_one_off:
        return "one_off_product_attached"
    if not quote.plan.is_paid:
        return "free_product_attached"
    return "upgraded_to_new_product" if quote.replaced is not None else "new_product_attached"


routes = [
    Route("/v1/attach", attach, methods=["POST"]),
    Route("/v1/billing.attach", attach, methods=["POST"]),
    Route("/v1/checkout", checkout, methods=["POST"]),
    Route("/v1/attach/preview", preview_attach, methods=["POST"]),
    Route("/v1/billing.preview_attach", preview_attach, methods=["POST"]),
    Route("/v1/setup_payment", setup_payment, methods=["POST"]),
    Route("/v1/billing.setup_payment", setup_payment, methods=["POST"]),
    Route("/v1/cancel", cancel, methods=["POST"]),
    Route("/v1/customers/{customer_id}/billing_portal", billing_portal, methods=["GET", "POST"]),
    *(Route(f"/v1/{name}", unbuilt(name), methods=["POST"]) for name in UNBUILT_ROUTES),
]
