"""Routes of customers; `rpc` has the RPC style. The API version alone decides how an answer looks."""

from __future__ import annotations

import asyncio
from typing import Any, Iterable, Mapping, Sequence

from sqlalchemy import Connection
from starlette.routing import Route

from ..billing import customers as billing
from ..billing.change import plan_rows
from ..billing.customers import CustomerData
from ..billing.entities import open_entity_rows
from ..billing.holdings import HeldPlan, held_plans
from ..catalog.control_fields import FIELD as CONTROLS_FIELD, GivenControls
from ..catalog.snapshot import Catalog
from ..errors import NotSupported, invalid
from ..store import customers as store
from ..store.customers import Customer
from ..store.listings import customers_page
from . import fields
from .customer_views import CUSTOMER_EXPANDS, customer_v12
from .customer_views_v2 import Look, customer_v2
from .endpoint import Call, Context, Reply, endpoint
from .paging import Paging, paging_of

PAGE_DEFAULT = 10
VIEWS_AT_ONCE = 32
UNBUILT_FILTERS = ("plans", "subscription_status", "processors", "created_at_range")
UNBUILT = ("create_in_stripe", "auto_enable_plan_id", "send_email_receipts", "config")
"""Known fields of a customer that have no effect yet, so may only ask for nothing."""


def customer_data(raw: Any, ctx: Context, path: str = "") -> CustomerData:
    """What a body (or its `customer_data`) says about a customer. Raises ApiError 400."""
    if raw is None:
        return CustomerData()
    if not isinstance(raw, dict):
        raise invalid(path.rstrip(".") or "body", "must be an object")
    fields.refuse_unbuilt(raw, UNBUILT)
    currency = fields.text(raw, "currency", path)
    if currency and currency.lower() != ctx.settings.currency:
        raise NotSupported(path + "currency", f"prices are in {ctx.settings.currency}")
    return CustomerData(
        name=fields.text(raw, "name", path),
        email=fields.email(raw, "email", path),
        fingerprint=fields.text(raw, "fingerprint", path),
        stripe_id=fields.text(raw, "stripe_id", path),
        metadata=fields.json_object(raw, "metadata", path) or {},
        given=frozenset(raw),
        controls=given_controls(raw, path),
    )


def given_controls(raw: Mapping[str, Any], path: str = "", of_entity: bool = False) -> GivenControls | None:
    """The controls in a body, to be validated when they are stored; None if there are none."""
    value = raw.get(CONTROLS_FIELD)
    return None if value is None else GivenControls(value, path.rstrip("."), of_entity)


async def ensure_customer(ctx: Context, customer_id: str, raw: Any) -> None:
    """Makes the customer with its default plans unless it exists; `raw` is the `customer_data` of
    a body. Raises ApiError 400."""
    await billing.ensure_customer(ctx, fields.checked_id(customer_id, "customer_id"), customer_data(raw, ctx, "customer_data."))


async def render(call: Call, customer: Customer, expand: Iterable[str]) -> dict[str, Any]:
    """The answer that shows a customer."""
    plans, entities = await call.ctx.store.read(_parts, await call.ctx.catalog.refresh(), customer.cid)
    return await _view(call, customer, plans, entities, expand)


@endpoint
async def create(call: Call) -> Reply | dict[str, Any]:
    """Creates a customer, or returns the one that has the id."""
    fields.refuse_old(call.version)
    body = call.fields
    expand = fields.expand_of(call.query, body, CUSTOMER_EXPANDS)
    name = "customer_id" if body.get("id") is None and "customer_id" in body else "id"
    if name in body and body[name] is None:
        raise NotSupported(name, "a customer without an id is not supported yet")
    customer_id = fields.identifier(body, name)
    customer = await billing.get_or_create(call.ctx, customer_id, customer_data(body, call.ctx))
    return await render(call, customer, expand)


@endpoint
async def get(call: Call) -> Reply | dict[str, Any]:
    """One customer."""
    fields.refuse_old(call.version)
    expand = fields.expand_of(call.query, call.fields, CUSTOMER_EXPANDS)
    return await render(call, await billing.find(call.ctx, call.path["customer_id"]), expand)


@endpoint
async def update(call: Call) -> Reply | dict[str, Any]:
    """Changes the fields that are given; metadata is merged."""
    fields.refuse_old(call.version)
    body = call.fields
    customer_id = call.path["customer_id"]
    expand = fields.expand_of(call.query, body, CUSTOMER_EXPANDS)
    if body.get("id") is not None and fields.identifier(body, "id") != customer_id:
        raise NotSupported("id", "changing a customer's id is not supported yet")
    customer = await billing.update_customer(call.ctx, customer_id, customer_data(body, call.ctx))
    return await render(call, customer, expand)


@endpoint
async def remove(call: Call) -> Reply | dict[str, Any]:
    """Deletes a customer. `delete_in_stripe` asks for nothing more: no customer is in Stripe."""
    await billing.delete_customer(call.ctx, call.path["customer_id"])
    return {"success": True}


@endpoint
async def list_customers(call: Call) -> Reply | dict[str, Any]:
    """A page of customers, newest first; filters come in the query or the body."""
    fields.refuse_old(call.version)
    asked: Mapping[str, Any] = {**dict(call.query), **call.fields}
    fields.refuse_unbuilt(asked, UNBUILT_FILTERS)
    if asked.get("sort_order") not in (None, "desc"):
        raise NotSupported("sort_order", "only desc, newest first, is supported")
    paging = paging_of(call.version, asked, "c", 1, PAGE_DEFAULT)
    expand = fields.expand_of(call.query, call.fields, CUSTOMER_EXPANDS)
    search = fields.text(asked, "search")
    page, more, counts, parts = await call.ctx.store.read(_page, await call.ctx.catalog.refresh(), paging, search)
    shown: list[dict[str, Any]] = []
    for start in range(0, len(page), VIEWS_AT_ONCE):
        chunk = page[start : start + VIEWS_AT_ONCE]
        shown += await asyncio.gather(*(_view(call, customer, *parts[customer.cid], expand) for customer in chunk))
    return {**paging.answer(shown, more, (page[-1].cid,) if page else None), **counts}


Parts = tuple[Sequence[HeldPlan], Sequence[Mapping[str, Any]]]


def _parts(conn: Connection, catalog: Catalog, cid: int) -> Parts:
    return held_plans(catalog, plan_rows(conn, [cid])), open_entity_rows(conn, cid)


def _page(
    conn: Connection, catalog: Catalog, paging: Paging, search: str | None
) -> tuple[list[Customer], bool, dict[str, int], dict[int, Parts]]:
    counts: dict[str, int] = {}
    if paging.by_cursor:
        found, more = customers_page(conn, paging.limit, paging.after, search)
    else:
        found, matching = store.page(conn, paging.limit, paging.offset, search)
        more = paging.offset + len(found) < matching
        counts = {"total_count": store.page(conn, 1)[1] if search else matching, "total_filtered_count": matching}
    return found, more, counts, {customer.cid: _parts(conn, catalog, customer.cid) for customer in found}


async def _view(
    call: Call, customer: Customer, plans: Sequence[HeldPlan], entities: Sequence[Mapping[str, Any]],
    expand: Iterable[str],
) -> dict[str, Any]:
    state = await call.ctx.engine.view(customer.id)
    catalog, currency, now_ms = call.ctx.catalog.current, call.ctx.settings.currency, await call.ctx.clock.now_ms()
    if call.version >= (2, 0):
        look = Look(catalog, call.version, call.env, currency, now_ms, frozenset(expand))
        return customer_v2(customer, plans, state, look, entities)
    return customer_v12(
        customer, plans, state, catalog, env=call.env, currency=currency, now_ms=now_ms, expand=expand, entities=entities,
    )


routes = [
    Route("/customers", create, methods=["POST"]),  # as the documentation's curl lines call it
    Route("/v1/customers", create, methods=["POST"]),
    Route("/v1/customers", list_customers, methods=["GET"]),
    Route("/v1/customers/list", list_customers, methods=["POST"]),
    Route("/v1/customers/{customer_id}", get, methods=["GET"]),
    Route("/v1/customers/{customer_id}", update, methods=["POST", "PATCH"]),
    Route("/v1/customers/{customer_id}", remove, methods=["DELETE"]),
]
