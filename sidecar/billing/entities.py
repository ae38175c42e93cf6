"""Entities of a customer (seats, workspaces): opened and closed by steps.

Opening one takes a unit of its feature where that is held, so the script may refuse it; SQL's row
is pending until the script has answered. A closed entity's row stays, as closing, until the sync
worker has applied its step.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from sqlalchemy import Connection, delete, select, update

from ..catalog.control_fields import GivenControls
from ..catalog.controls import NO_CONTROLS, Controls
from ..catalog.model import Feature
from ..catalog.snapshot import Catalog
from ..errors import ApiError, invalid, not_found
from ..store.tables import entities
from . import steps
from .change import Change
from .decide import decide
from .projection import project

if TYPE_CHECKING:
    from ..api.endpoint import Context

PENDING, ACTIVE, CLOSING = "pending", "active", "closing"
CLOSING_WAIT_S, CLOSING_WAITS_MAX = 0.05, 60


@dataclass(frozen=True)
class NewEntity:
    """An entity to open; already validated."""

    id: str
    feature_id: str
    name: str | None = None
    controls: GivenControls | None = None
    """Validated with the catalog they are stored with."""


async def create_entities(ctx: Context, customer_id: str, new: Sequence[NewEntity]) -> None:
    """Opens all of these entities, or none.

    Raises ApiError: 404 `customer_not_found` or `feature_not_found`, 400 for a feature that has no
    entities or wrong controls, 409 `entity_already_exists`, 400 `usage_limit_exceeded` when the
    feature's balance has no room for them."""
    cid, version = await _opened(ctx, customer_id, new)
    ids = [entity.id for entity in new]
    if not await _refused(ctx, customer_id, cid, ids, version):
        await ctx.store.write(_settle, cid, version, True)
        return
    await ctx.store.write(_settle, cid, version, False)
    features = ", ".join(sorted({repr(entity.feature_id) for entity in new}))
    raise ApiError(
        400, "usage_limit_exceeded", f"feature_id: the customer has no {features} left for so many entities more, or their shares would "
        "pass the range of exact numbers; none was made"
    )


async def ensure_entity(ctx: Context, customer_id: str, new: NewEntity) -> None:
    """Opens an entity unless it is open. Raises ApiError as `create_entities`."""
    try:
        await create_entities(ctx, customer_id, [new])
    except ApiError as problem:
        if problem.code != "entity_already_exists":
            raise


async def delete_entity(ctx: Context, customer_id: str, entity_id: str) -> None:
    """Closes an entity: its unit of the feature is given back, its own plans and shares end.
    Raises ApiError 404 `customer_not_found` or `entity_not_found`."""
    await decide(ctx, _close, customer_id, [entity_id])
    await project(ctx, customer_id)


async def update_entity(ctx: Context, customer_id: str, entity_id: str, given: GivenControls) -> None:
    """Writes an entity's controls. Raises ApiError 404 `customer_not_found` or `entity_not_found`, and
    400 for wrong controls."""
    cid = await decide(ctx, _update, customer_id, entity_id, given)
    await project(ctx, customer_id, cid)


def open_entity_row(conn: Connection, cid: int, entity_id: str) -> Mapping[str, Any]:
    """The row of an entity that is open. Raises ApiError 404 `entity_not_found`."""
    row = conn.execute(
        select(entities).where(entities.c.cid == cid, entities.c.id == entity_id, entities.c.status == ACTIVE)
    ).mappings().one_or_none()
    if row is None:
        raise not_found("entity", entity_id)
    return row


def open_entity_rows(conn: Connection, cid: int) -> list[Mapping[str, Any]]:
    """The rows of a customer's open entities, oldest first."""
    return list(conn.execute(
        select(entities).where(entities.c.cid == cid, entities.c.status == ACTIVE).order_by(entities.c.uid)
    ).mappings())


def entity_feature(catalog: Catalog, feature_id: str) -> Feature:
    """The feature that an entity is to be of. Raises ApiError 404 `feature_not_found`, and 400 for
    one that has no entities."""
    feature = catalog.features.get(feature_id)
    if feature is None:
        raise not_found("feature", feature_id)
    if not feature.is_metered:
        raise invalid("feature_id", f"{feature_id!r} is a {feature.type} feature, which has no entities")
    return feature


async def _opened(ctx: Context, customer_id: str, new: Sequence[NewEntity]) -> tuple[int, int]:
    """As `_open`; an id whose closing the sync worker has yet to apply is waited for."""
    for _ in range(CLOSING_WAITS_MAX):
        written = await decide(ctx, _open, customer_id, new)
        if written is not None:
            return written
        await asyncio.sleep(CLOSING_WAIT_S)
    raise ApiError(409, "entity_already_exists", "id: an entity of that id is still being closed; try again later")


def _open(
    conn: Connection, catalog: Catalog, now_ms: int, customer_id: str, new: Sequence[NewEntity]
) -> tuple[int, int] | None:
    """Writes pending rows and one step for all; returns the customer's internal id and the step's
    version, or None with nothing written while an entity of one of the ids is closing."""
    features = [entity_feature(catalog, entity.feature_id) for entity in new]
    controls = [NO_CONTROLS if e.controls is None else e.controls.over(NO_CONTROLS, catalog.features) for e in new]
    change = Change.of(conn, catalog, now_ms, customer_id)
    taken: dict[str, str] = {row.id: row.status for row in conn.execute(
        select(entities.c.id, entities.c.status)
        .where(entities.c.cid == change.cid, entities.c.id.in_([entity.id for entity in new]))
    )}
    for entity_id, status in taken.items():
        if status != CLOSING:
            raise ApiError(409, "entity_already_exists", f"id: entity {entity_id!r} exists already")
    if taken:
        return None
    for entity, feature, own in zip(new, features, controls):
        inserted = conn.execute(entities.insert().values(
            cid=change.cid, id=entity.id, name=entity.name, feature_id=feature.id, status=PENDING, created_at=now_ms,
        ))
        if own.lists():
            change.set_entity(inserted.inserted_primary_key[0], controls=own)
        change.ops.append(steps.open_entity(entity.id, feature))
    version = change.commit_step()
    ids = [entity.id for entity in new]
    conn.execute(update(entities).where(entities.c.cid == change.cid, entities.c.id.in_(ids)).values(version=version))
    return change.cid, version


async def _refused(ctx: Context, customer_id: str, cid: int, ids: Sequence[str], version: int) -> bool:
    """Whether the script refused the step. One that another caller projected for us has no outcome
    here; then the live state tells. Raises ApiError 404 if the customer was deleted meanwhile."""
    for outcome in await project(ctx, customer_id, cid):
        if outcome.version == version:
            return bool(outcome.refused)
    state = await ctx.engine.view(customer_id)
    if state is None or state.cid != cid:  # another one of that name may be there by now
        raise not_found("customer", customer_id)
    return not all(entity_id in state.entity_features for entity_id in ids)


def _settle(conn: Connection, cid: int, version: int, opened: bool) -> None:
    """Writes what the script answered to a step, unless the worker was here first."""
    of_step = entities.c.cid == cid, entities.c.version == version, entities.c.status == PENDING
    conn.execute(update(entities).where(*of_step).values(status=ACTIVE) if opened else delete(entities).where(*of_step))


def _close(conn: Connection, catalog: Catalog, now_ms: int, customer_id: str, entity_ids: Sequence[str]) -> None:
    change = Change.of(conn, catalog, now_ms, customer_id)
    for entity_id in entity_ids:
        row = conn.execute(
            select(entities).where(
                entities.c.cid == change.cid, entities.c.id == entity_id, entities.c.status != CLOSING,
            )
        ).mappings().one_or_none()
        if row is None:
            raise not_found("entity", entity_id)
        feature = catalog.features.get(row["feature_id"])
        if feature is None:
            raise not_found("feature", row["feature_id"])
        for held in change.holdings.plans:
            if held.entity_id == entity_id:
                change.end(held)
        change.ops.append(steps.close_entity(entity_id, feature))
        change.set_entity(row["uid"], status=CLOSING)
        change.commit_step()


def _update(
    conn: Connection, catalog: Catalog, now_ms: int, customer_id: str, entity_id: str, given: GivenControls
) -> int:
    """Writes an entity's controls and the step of what they cap; returns the customer's internal id."""
    change = Change.of(conn, catalog, now_ms, customer_id)
    row = open_entity_row(conn, change.cid, entity_id)
    base = Controls.from_json(row["billing_controls"])
    change.set_entity(row["uid"], controls=given.over(base, catalog.features))
    change.commit_step()
    return change.cid
