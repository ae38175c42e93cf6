"""`customer_data` and `entity_data` of a call that may create what it names."""

from __future__ import annotations

from typing import Any, Mapping

from ..billing.customers import CustomerData
from ..billing.entities import NewEntity
from ..errors import invalid
from . import fields
from .customers import customer_data
from .endpoint import Context


def customer_data_of(body: Mapping[str, Any], ctx: Context) -> CustomerData | None:
    """The customer that the body describes, None if it does not. Raises ApiError 400."""
    data = body.get("customer_data")
    return None if data is None else customer_data(data, ctx, "customer_data.")


def entity_data_of(body: Mapping[str, Any]) -> NewEntity | None:
    """The entity that the body describes (its id is the call's `entity_id`), None if it does not
    or names none. Raises ApiError 400."""
    data = body.get("entity_data")
    if data is None:
        return None
    if not isinstance(data, dict):
        raise invalid("entity_data", "must be an object")
    path = "entity_data."
    feature_id, name = fields.identifier(data, "feature_id", path), fields.text(data, "name", path)
    entity_id = fields.optional_id(body, "entity_id")
    return None if entity_id is None else NewEntity(entity_id, feature_id, name)
