"""Customers: made once with their default plans, changed, deleted.

Each function is one SQL write transaction, followed by the projection of its step, so that the
next check of any process sees it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Mapping

from sqlalchemy import Connection

from ..catalog.control_fields import GivenControls
from ..catalog.controls import NO_CONTROLS
from ..catalog.snapshot import Catalog
from ..engine.keys import partition_of
from ..errors import not_found
from ..store import customers
from ..store.customers import Customer
from .change import Change
from .decide import decide
from .projection import project

if TYPE_CHECKING:
    from ..api.endpoint import Context

DATA_COLUMNS = ("name", "email", "fingerprint", "stripe_id")


@dataclass(frozen=True)
class CustomerData:
    """What a caller may say about a customer, already validated. `given` names the fields that
    were in the body at all, for updates."""

    name: str | None = None
    email: str | None = None
    fingerprint: str | None = None
    stripe_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    given: frozenset[str] = frozenset()
    controls: GivenControls | None = None
    """Not validated yet: that takes the catalog they are stored with."""


async def get_or_create(ctx: Context, customer_id: str, data: CustomerData | None = None) -> Customer:
    """The customer; made with its default plans if it does not exist. An existing customer is not
    changed. Two calls at once make one. Raises ApiError 400 for wrong controls."""
    if data is not None and data.controls is not None:  # refused for one that exists, too
        data.controls.over(NO_CONTROLS, (await ctx.catalog.refresh()).features)
    existing = await ctx.store.read(customers.by_id, customer_id)
    if existing is not None:
        return existing
    p = partition_of(customer_id, ctx.settings.partitions)
    customer, _ = await decide(ctx, create, p, customer_id, data or CustomerData())
    await project(ctx, customer_id)
    return customer


async def ensure_customer(ctx: Context, customer_id: str, data: CustomerData | None = None) -> None:
    """Makes the customer with its default plans unless it exists, and Redis hold it: for calls
    that create customers on their way."""
    await get_or_create(ctx, customer_id, data)


async def update_customer(ctx: Context, customer_id: str, data: CustomerData) -> Customer:
    """Writes the fields that were given. Metadata is merged; a key given as null is removed.
    Returns the customer after it. Raises ApiError 404 `customer_not_found`, and 400 for wrong
    controls."""
    if data.controls is not None:
        customer = await decide(ctx, _update, customer_id, data)
        await project(ctx, customer_id, customer.cid)
        return customer
    now_ms = await ctx.clock.now_ms()
    return await ctx.store.write(_update, ctx.catalog.current, now_ms, customer_id, data)


async def delete_customer(ctx: Context, customer_id: str) -> None:
    """Deletes the customer; its id is free at once, its internal id is never used again. Raises
    ApiError 404 `customer_not_found`."""
    cid = await ctx.store.write(_delete, ctx.catalog.current, await ctx.clock.now_ms(), customer_id)
    await project(ctx, customer_id, cid)


async def find(ctx: Context, customer_id: str) -> Customer:
    """The customer. Raises ApiError 404 `customer_not_found`."""
    customer = await ctx.store.read(customers.by_id, customer_id)
    if customer is None:
        raise not_found("customer", customer_id)
    return customer


def create(
    conn: Connection, catalog: Catalog, now_ms: int, p: int, customer_id: str, data: CustomerData
) -> tuple[Customer, bool]:
    """The customer of that id, made with its default plans unless there is one, and whether this
    made it."""
    customer, made = customers.create(
        conn, customer_id, p, now_ms, metadata=dict(data.metadata),
        **{name: getattr(data, name) for name in DATA_COLUMNS},
    )
    if made:  # else another call made it meanwhile
        change = Change(conn, catalog, now_ms, customer)
        for plan in catalog.default_plans:
            if not plan.is_paid:  # a price needs a card, which a new customer does not have
                change.enable(plan, {})
        if data.controls is not None:
            change.set_controls(data.controls.over(NO_CONTROLS, catalog.features))
        change.commit_step()
        customer = change.customer
    return customer, made


def _update(conn: Connection, catalog: Catalog, now_ms: int, customer_id: str, data: CustomerData) -> Customer:
    change = Change.of(conn, catalog, now_ms, customer_id)
    values: dict[str, Any] = {name: getattr(data, name) for name in DATA_COLUMNS if name in data.given}
    if "metadata" in data.given:
        merged = {**change.customer.metadata, **data.metadata}
        values["metadata"] = {key: value for key, value in merged.items() if value is not None}
    customers.change(conn, change.cid, **values)
    if data.controls is not None:
        change.set_controls(data.controls.over(change.controls, catalog.features))
        change.commit_step()
    changed = customers.by_cid(conn, change.cid)
    assert changed is not None
    return changed


def _delete(conn: Connection, catalog: Catalog, now_ms: int, customer_id: str) -> int:
    change = Change.of(conn, catalog, now_ms, customer_id)
    change.ops.append(["delete"])
    change.commit_step()
    customers.mark_deleted(conn, change.cid, now_ms)
    return change.cid
