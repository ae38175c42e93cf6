"""Routes of a customer's entities."""

from __future__ import annotations

from typing import Any, Mapping

from starlette.routing import Route

from ..billing import customers, entities as billing
from ..billing.change import plan_rows
from ..billing.entities import NewEntity
from ..billing.holdings import held_plans
from ..errors import invalid
from . import fields
from .customer_views import ENTITY_EXPANDS, entity_v12
from .customers import ensure_customer
from .endpoint import Call, Reply, endpoint

ENTITIES_PER_CALL_MAX = 100
UNBUILT = ("billing_controls",)


def new_entity(raw: Any, path: str = "") -> NewEntity:
    """The entity that a body describes. Raises ApiError 400."""
    if not isinstance(raw, dict):
        raise invalid(path.rstrip(".") or "body", "must be an object")
    fields.refuse_unbuilt(raw, UNBUILT)
    return NewEntity(
        fields.identifier(raw, "id", path), fields.identifier(raw, "feature_id", path), fields.text(raw, "name", path)
    )


@endpoint
async def create(call: Call) -> Reply | dict[str, Any]:
    """Opens one entity, or all of an array, or none of them."""
    fields.require_v1(call.version, "entities")
    customer_id = call.path["customer_id"]
    raw = call.body if isinstance(call.body, list) else [call.fields]
    if not 1 <= len(raw) <= ENTITIES_PER_CALL_MAX:
        raise invalid("body", f"must hold 1 to {ENTITIES_PER_CALL_MAX} entities")
    many = isinstance(call.body, list)
    new = [new_entity(item, f"[{index}]." if many else "") for index, item in enumerate(raw)]
    if len({entity.id for entity in new}) < len(new):
        raise invalid("id", "the same entity is listed twice")
    for item in raw:
        if item.get("customer_data") is not None:
            await ensure_customer(call.ctx, customer_id, item["customer_data"])
    await billing.create_entities(call.ctx, customer_id, new)
    shown = await _shown(call, customer_id, [entity.id for entity in new], ())
    return {"list": shown} if many else shown[0]


@endpoint
async def list_entities(call: Call) -> Reply | dict[str, Any]:
    """All entities of a customer, oldest first."""
    fields.require_v1(call.version, "entities")
    return {"list": await _shown(call, call.path["customer_id"], None, fields.expand_of(call.query, {}, ENTITY_EXPANDS))}


@endpoint
async def get(call: Call) -> Reply | dict[str, Any]:
    """One entity."""
    fields.require_v1(call.version, "entities")
    expand = fields.expand_of(call.query, {}, ENTITY_EXPANDS)
    return (await _shown(call, call.path["customer_id"], [call.path["entity_id"]], expand))[0]


@endpoint
async def remove(call: Call) -> Reply | dict[str, Any]:
    """Closes an entity."""
    await billing.delete_entity(call.ctx, call.path["customer_id"], call.path["entity_id"])
    return {"success": True}


async def _shown(
    call: Call, customer_id: str, entity_ids: list[str] | None, expand: Any
) -> list[dict[str, Any]]:
    """These entities (None: all) as answers, in this order."""
    ctx = call.ctx
    customer = await customers.find(ctx, customer_id)
    catalog = await ctx.catalog.refresh()

    def read(conn: Any) -> tuple[list[Mapping[str, Any]], Any]:
        plans = held_plans(catalog, plan_rows(conn, [customer.cid]))
        if entity_ids is None:
            return billing.open_entity_rows(conn, customer.cid), plans
        return [billing.open_entity_row(conn, customer.cid, entity_id) for entity_id in entity_ids], plans

    rows, plans = await ctx.store.read(read)
    state = await ctx.engine.view(customer_id)
    now_ms = await ctx.clock.now_ms()
    return [
        entity_v12(
            row, customer_id, plans, state, catalog, env=call.env, currency=ctx.settings.currency, now_ms=now_ms,
            expand=expand,
        )
        for row in rows
    ]


routes = [
    Route("/v1/customers/{customer_id}/entities", create, methods=["POST"]),
    Route("/v1/customers/{customer_id}/entities", list_entities, methods=["GET"]),
    Route("/v1/customers/{customer_id}/entities/{entity_id}", get, methods=["GET"]),
    Route("/v1/customers/{customer_id}/entities/{entity_id}", remove, methods=["DELETE"]),
]
