"""Routes of a customer's entities; `rpc` has the RPC style. The API version alone decides how an answer looks."""

from __future__ import annotations

from itertools import chain, groupby
from typing import Any, Iterable, Mapping, Sequence

from starlette.routing import Route

from ..billing import customers, entities as billing
from ..billing.change import plan_rows
from ..billing.entities import NewEntity
from ..billing.holdings import held_plans
from ..errors import invalid
from ..store import customers as store
from ..store.listings import entities_page
from . import fields
from .customer_views import ENTITY_EXPANDS, entity_v12
from .customer_views_v2 import Look, entity_v2
from .customers import ensure_customer, given_controls
from .endpoint import Call, Reply, endpoint
from .paging import paging_of

ENTITIES_PER_CALL_MAX = 100
UNBUILT_FILTERS = ("plans", "subscription_status", "processors")


def new_entity(raw: Any, path: str = "") -> NewEntity:
    """The entity that a body describes. Raises ApiError 400."""
    if not isinstance(raw, dict):
        raise invalid(path.rstrip(".") or "body", "must be an object")
    name = "entity_id" if raw.get("id") is None and "entity_id" in raw else "id"
    return NewEntity(
        fields.identifier(raw, name, path), fields.identifier(raw, "feature_id", path), fields.text(raw, "name", path),
        given_controls(raw, path, of_entity=True),
    )


@endpoint
async def create(call: Call) -> Reply | dict[str, Any]:
    """Opens one entity, or all of an array, or none of them."""
    fields.refuse_old(call.version)
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
    """A page of entities, oldest first: of one customer, or of all."""
    fields.refuse_old(call.version)
    asked: dict[str, Any] = {**dict(call.query), **call.fields, **call.path}
    fields.refuse_unbuilt(asked, UNBUILT_FILTERS)
    paging = paging_of(call.version, asked, "n", 1)
    search, customer_id = fields.text(asked, "search"), fields.optional_id(asked, "customer_id")
    expand = fields.expand_of(call.query, call.fields, ENTITY_EXPANDS)
    cid = None if customer_id is None else (await customers.find(call.ctx, customer_id)).cid
    rows, more = await call.ctx.store.read(entities_page, paging.limit, paging.offset, paging.after, cid, search)
    shown = [await _render(call, owner, list(of_one), expand) for owner, of_one in groupby(rows, key=_owner)]
    return paging.answer(list(chain(*shown)), more, (rows[-1]["uid"],) if rows else None)


@endpoint
async def get(call: Call) -> Reply | dict[str, Any]:
    """One entity."""
    fields.refuse_old(call.version)
    expand = fields.expand_of(call.query, call.fields, ENTITY_EXPANDS)
    return (await _shown(call, call.path["customer_id"], [call.path["entity_id"]], expand))[0]


@endpoint
async def update(call: Call) -> Reply | dict[str, Any]:
    """Changes an entity's controls: a list that is given replaces the one there is."""
    fields.refuse_old(call.version)
    customer_id, entity_id = call.path["customer_id"], call.path["entity_id"]
    controls = given_controls(call.fields, of_entity=True)
    if controls is not None:
        await billing.update_entity(call.ctx, customer_id, entity_id, controls)
    return (await _shown(call, customer_id, [entity_id], ()))[0]


@endpoint
async def remove(call: Call) -> Reply | dict[str, Any]:
    """Closes an entity."""
    await billing.delete_entity(call.ctx, call.path["customer_id"], call.path["entity_id"])
    return {"success": True}


async def _shown(call: Call, customer_id: str, entity_ids: list[str], expand: Iterable[str]) -> list[dict[str, Any]]:
    """These entities as answers, in this order."""
    customer = await customers.find(call.ctx, customer_id)
    rows = await call.ctx.store.read(
        lambda conn: [billing.open_entity_row(conn, customer.cid, entity_id) for entity_id in entity_ids]
    )
    return await _render(call, (customer.cid, customer_id), rows, expand)


async def _render(
    call: Call, owner: tuple[int, str], rows: Sequence[Mapping[str, Any]], expand: Iterable[str]
) -> list[dict[str, Any]]:
    """The answers that show these entities of a customer."""
    ctx, (cid, customer_id) = call.ctx, owner
    catalog = await ctx.catalog.refresh()
    plans, customer = await ctx.store.read(
        lambda conn: (held_plans(catalog, plan_rows(conn, [cid])), store.by_cid(conn, cid))
    )
    state, now_ms = await ctx.engine.view(customer_id), await ctx.clock.now_ms()
    if call.version >= (2, 0):
        look = Look(catalog, call.version, call.env, ctx.settings.currency, now_ms, frozenset(expand))
        assert customer is not None, "a cid is never given up"
        return [entity_v2(row, customer, plans, state, look) for row in rows]
    return [
        entity_v12(
            row, customer_id, plans, state, catalog, env=call.env, currency=ctx.settings.currency, now_ms=now_ms,
            expand=expand,
        )
        for row in rows
    ]


def _owner(row: Mapping[str, Any]) -> tuple[int, str]:
    return row["cid"], row["customer_id"]


routes = [
    Route("/v1/customers/{customer_id}/entities", create, methods=["POST"]),
    Route("/v1/customers/{customer_id}/entities", list_entities, methods=["GET"]),
    Route("/v1/customers/{customer_id}/entities/{entity_id}", get, methods=["GET"]),
    Route("/v1/customers/{customer_id}/entities/{entity_id}", remove, methods=["DELETE"]),
]
