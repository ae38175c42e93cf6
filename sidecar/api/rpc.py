"""The RPC style: `POST /v1/customers.get` and the like, with the ids in the body.

Every route is the one of the v1 style, of which it only takes the ids from another place; the path
never decides how an answer looks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable

from starlette.routing import Route

from ..errors import NotSupported
from . import catalog, customers, entities, explain, fields
from .endpoint import Call, Handler, Reply, endpoint


def by_body(wrapped: Any, owner: str = "", **ids: str) -> Callable[..., Any]:
    """The endpoint of a route's handler, with the ids in its path taken from the body:
    `by_body(get, customer_id="customer_id")`. A field `new_<owner>`, which renames, is refused."""
    handler: Handler = getattr(wrapped, "handler", wrapped)

    async def called(call: Call) -> Reply | dict[str, Any] | list[Any]:
        body = call.fields
        path = {name: fields.identifier(body, field) for name, field in ids.items()}
        if body.get(f"new_{owner}") not in (None, body.get(owner)):
            raise NotSupported(f"new_{owner}", "changing an id is not supported yet")
        return await handler(replace(call, path={**call.path, **path}))

    called.__name__, called.__doc__ = handler.__name__, handler.__doc__
    return endpoint(called)


_CUSTOMER = {"customer_id": "customer_id"}
_ENTITY = {"customer_id": "customer_id", "entity_id": "entity_id"}
_FEATURE = {"feature_id": "feature_id"}
_PLAN = {"product_id": "plan_id"}

routes = [
    Route(f"/v1/{name}", respond, methods=["POST"])
    for name, respond in {
        "customers.get_or_create": by_body(customers.create),
        "customers.get": by_body(customers.get, **_CUSTOMER),
        "customers.list": by_body(customers.list_customers),
        "customers.update": by_body(customers.update, "customer_id", **_CUSTOMER),
        "customers.delete": by_body(customers.remove, **_CUSTOMER),
        "customers.explain": by_body(explain.of_customer, **_CUSTOMER),
        "entities.create": by_body(entities.create, **_CUSTOMER),
        "entities.get": by_body(entities.get, **_ENTITY),
        "entities.list": by_body(entities.list_entities),
        "entities.update": by_body(entities.update, **_ENTITY),
        "entities.delete": by_body(entities.remove, **_ENTITY),
        "features.list": by_body(catalog.list_features),
        "features.get": by_body(catalog.get_feature, **_FEATURE),
        "features.create": by_body(catalog.create_feature),
        "features.update": by_body(catalog.update_feature, "feature_id", **_FEATURE),
        "features.delete": by_body(catalog.delete_feature, **_FEATURE),
        "plans.list": by_body(catalog.list_products),
        "plans.get": by_body(catalog.get_product, **_PLAN),
        "plans.create": by_body(catalog.create_product),
        "plans.update": by_body(catalog.update_product, "plan_id", **_PLAN),
        "plans.delete": by_body(catalog.delete_product, **_PLAN),
        "plans.has_customers": by_body(catalog.product_has_customers, **_PLAN),
    }.items()
]
