"""Balances managed by hand: docs/balances.md, "Managing balances".

Every verb is one step of the customer's structure, decided under its row lock and projected before the
answer. Buckets are chosen here; the script moves live numbers, and may find that they do not allow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from sqlalchemy import Connection

from ..catalog.fields import Fields, Problems
from ..catalog.model import Feature, Rollover
from ..catalog.rollovers import read_rollover
from ..catalog.snapshot import Catalog
from ..domain import layout
from ..domain.intervals import LIFETIME, next_reset
from ..domain.layout import INTERVALS, Row
from ..domain.quantities import QUANTITY_MAX
from ..errors import ApiError, invalid
from ..store import balance_ids
from . import chosen
from .change import Change
from .chosen import Choice, Chosen, choose, scaled
from .decide import decide
from .entities import open_entity_row
from .idempotent import Once
from .projection import project
from .steps import roll_columns

if TYPE_CHECKING:
    from ..api.endpoint import Context

Quantity = int | Decimal
LIVE_VALUES = {"remaining": "remaining", "add_to_balance": "add", "usage": "usage"}
"""What sets live numbers, and how scripts call it."""
GRANT = "included_grant"
DATES = ("next_reset_at", "expires_at")


@dataclass(frozen=True)
class NewBalance:
    """A loose grant to make. `interval` is a code; `rollover` as 1.2 has it in an item, not validated."""

    feature_id: str
    entity_id: str = ""
    included_grant: Quantity | None = None
    unlimited: bool = False
    interval: int = LIFETIME
    interval_count: int = 1
    rollover: Mapping[str, Any] | None = None
    next_reset_at: int | None = None
    expires_at: int | None = None
    balance_id: str = ""


@dataclass(frozen=True)
class Correction:
    """What is to become of the chosen buckets: `field` (one of LIVE_VALUES, GRANT, or '') becomes
    `value`, and the dates."""

    choice: Choice
    field: str = ""
    value: Quantity = 0
    next_reset_at: int | None = None
    expires_at: int | None = None
    path: str = ""
    """How the caller named `field`, if not so."""

    @property
    def named(self) -> str:
        return self.path or self.field


Plan = Callable[[Change], None]


async def create(ctx: Context, customer_id: str, new: NewBalance, once: Once | None = None) -> None:
    """Grants units that belong to no plan. Raises ApiError: 404 for an unknown customer, feature or
    entity, 400 for fields that do not go together, 409 `balance_already_exists`."""
    await _do(ctx, customer_id, lambda change: _create(change, new), once)


async def correct(ctx: Context, customer_id: str, corrections: Sequence[Correction], once: Once | None = None) -> None:
    """Makes all of these corrections, or none. Raises ApiError: 404 for an unknown customer, feature or
    entity and where nothing is chosen, 400 for what does not fit the buckets, 422 `too_many_entities`."""

    def plan(change: Change) -> None:
        for correction in corrections:
            _correct(change, correction)

    first = corrections[0]
    await _do(ctx, customer_id, plan, once, first.named, first.choice.feature_id)


async def remove(ctx: Context, customer_id: str, choice: Choice, recalculate: bool, once: Once | None = None) -> None:
    """Removes the loose grants that are chosen, with their usage, or with `recalculate` that is spent
    again on what is left. Raises ApiError 404, and 409 `balance_of_plan` where only plans' are chosen."""
    await _do(ctx, customer_id, lambda change: _remove(change, choice, recalculate), once)


async def recalculate(ctx: Context, customer_id: str, choice: Choice, once: Once | None = None) -> None:
    """Spends all usage of a feature's free buckets again, in order, where one is below zero. Raises
    ApiError 404."""
    await _do(ctx, customer_id, lambda change: _recalculate(change, choice), once, feature_id=choice.feature_id)


async def _do(
    ctx: Context, customer_id: str, plan: Plan, once: Once | None, named: str = "feature_id", feature_id: str = ""
) -> None:
    """Decides a step and brings it to Redis. Raises ApiError for what the script refuses, of `named`."""
    cid, version = await decide(ctx, _decided, customer_id, plan, once)
    outcomes = {outcome.version: outcome.refused for outcome in await project(ctx, customer_id, cid)}
    refused = outcomes[version] if version in outcomes else await _refused_before(ctx, customer_id, cid, version)
    if refused:
        if once is not None:
            await once.unwrite()
        raise _refusal(refused, named, ctx.catalog.current.features.get(feature_id))


def _decided(
    conn: Connection, catalog: Catalog, now_ms: int, customer_id: str, plan: Plan, once: Once | None
) -> tuple[int, int]:
    """Writes the step; the customer's internal id, and the version that it makes."""
    change = Change.of(conn, catalog, now_ms, customer_id)
    if once is not None:
        once.write(conn, change.cid, now_ms)
    plan(change)
    return change.cid, change.commit_step()


async def _refused_before(ctx: Context, customer_id: str, cid: int, version: int) -> int:
    """Why a step that another caller projected was refused; 0 if it was not."""
    state = await ctx.engine.view(customer_id)
    return state.refused.get(version, 0) if state is not None and state.cid == cid else 0


def _refusal(code: int, named: str, feature: Feature | None) -> ApiError:
    if code == 2:
        return ApiError(404, "balance_not_found", "there is no balance to change: it is gone, or it is a share of each entity and there is no entity")
    if code == 4:
        return ApiError(422, "too_many_entities", "would change more than 1,000 entities' shares at once; nothing was changed")
    at = f" at precision {feature.precision}" if feature is not None else ""
    return invalid(named, f"takes a balance, or the sum of them, out of the range of exact numbers{at}")


# -- balances.create -------------------------------------------------------------------------------


def _create(change: Change, new: NewBalance) -> None:
    feature = chosen.feature_of(change, new.feature_id, counted=False)
    granted = _granted(feature, new)
    rollover = _check_resets(feature, new, change.now_ms)
    if new.entity_id:
        open_entity_row(change.conn, change.cid, new.entity_id)
    _check_sum(change, feature, granted)
    no = change.new_bucket_no()
    if new.balance_id:
        taken = balance_ids.of(change.conn, change.cid).get(new.balance_id)
        if any(bucket.row.no == taken for bucket in chosen.usable(change)):
            raise ApiError(409, "balance_already_exists", f"balance_id: the customer has a balance {new.balance_id!r} already")
        balance_ids.give(change.conn, change.cid, new.balance_id, no)
    anchor = 0 if new.interval == LIFETIME else new.next_reset_at or change.now_ms
    row = Row(
        no=no, balance=granted, granted=granted, flags=_flags(feature, new), purchasable=-1,
        next_reset_at=next_reset(anchor, new.interval, new.interval_count, change.now_ms),
        expires_at=new.expires_at or 0, anchor=anchor, interval=new.interval, interval_count=new.interval_count,
        entity_id=new.entity_id, plan_id="", prepaid=0, item=0, created_at=change.now_ms, slots=0, over=0,
        entity_feature="", **roll_columns(feature, rollover),
    )
    change.ops.append(["add", feature.id, list(row), [], 0, 0])


def _granted(feature: Feature, new: NewBalance) -> int:
    if feature.type == "boolean":
        for name, given in ((GRANT, new.included_grant is not None), ("unlimited", new.unlimited), ("reset", bool(new.interval))):
            if given:
                raise invalid(name, f"does not apply to {feature.id!r}, which is boolean: held or not; leave it out")
        return 0
    if (new.included_grant is None) is not new.unlimited:
        raise invalid(GRANT, "give either included_grant or unlimited")
    granted = scaled(feature, new.included_grant or 0, GRANT)
    if granted < 0:
        raise invalid(GRANT, "must not be below 0")
    return granted


def _check_resets(feature: Feature, new: NewBalance, now_ms: int) -> Rollover | None:
    """The rollover of a new balance. Raises ApiError 400 for what does not go with its resets."""
    if new.interval and feature.type == "continuous_use":
        raise invalid("reset", f"does not apply to {feature.id!r}, which is continuous_use and never resets; leave it out")
    _check_future("expires_at", new.expires_at, now_ms)
    _check_future("next_reset_at", new.next_reset_at, now_ms)
    if new.next_reset_at is not None:
        if not new.interval:
            raise invalid("next_reset_at", "needs reset with an interval")
        if new.expires_at is not None and new.next_reset_at >= new.expires_at:
            raise invalid("next_reset_at", "must be before expires_at")
    if new.rollover is None:
        return None
    if not new.interval:
        raise invalid("rollover", "needs reset with an interval, at whose end it is made")
    if new.unlimited:
        raise invalid("rollover", "does not go with unlimited, of which nothing is ever left; leave one of them out")
    problems = Problems()
    item = Fields({"rollover": new.rollover, "interval": INTERVALS[new.interval]}, "", problems)
    rollover = read_rollover(item, feature, INTERVALS[new.interval], new.interval_count)
    problems.raise_for_caller()
    return rollover


def _flags(feature: Feature, new: NewBalance) -> int:
    if feature.type == "boolean":
        return layout.BOOLEAN
    return (layout.CONTINUOUS if feature.type == "continuous_use" else 0) | (layout.UNLIMITED if new.unlimited else 0)


def _check_future(field: str, at_ms: int | None, now_ms: int) -> None:
    if at_ms is not None and at_ms <= now_ms:
        raise invalid(field, "must be in the future")


def _check_sum(change: Change, feature: Feature, more: int) -> None:
    """Raises ApiError 400 if the grants of a feature would no longer add up exactly."""
    rows = [bucket.row for bucket in change.holdings.buckets if bucket.feature_id == feature.id]
    held = sum(row.granted * max(1, row.slots) for row in rows if not row.unlimited)
    if held + more > QUANTITY_MAX:
        raise invalid(
            GRANT, f"with what is held the grants pass the largest quantity at precision {feature.precision}; a lower "
            "precision of the feature would fit",
        )


# -- balances.update, delete and recalculate ---------------------------------------------------------


def _correct(change: Change, wanted: Correction) -> None:
    found = choose(change, wanted.choice)
    change.ops += found.restores
    if wanted.field in LIVE_VALUES:
        _set(change, found, wanted)
    elif wanted.field == GRANT:
        _regrant(change, found, wanted)
    if wanted.next_reset_at is not None or wanted.expires_at is not None:
        _redate(change, found, wanted)


def _set(change: Change, found: Chosen, wanted: Correction) -> None:
    value = scaled(found.feature, wanted.value, wanted.named)
    finite = [row.no for row in found.rows if not row.unlimited]
    if not finite and wanted.field != "usage":
        raise invalid(wanted.field, f"{found.feature.id!r} is unlimited here: nothing of it can remain; usage can be set")
    numbers = finite or [row.no for row in found.rows]
    change.ops.append(["set", found.feature.id, found.entity_id, numbers, LIVE_VALUES[wanted.field], value])


def _regrant(change: Change, found: Chosen, wanted: Correction) -> None:
    row = found.rows[0]
    value = scaled(found.feature, wanted.value, GRANT)
    if value < 0:
        raise invalid(GRANT, "must not be below 0")
    if row.unlimited:
        raise invalid(GRANT, f"{found.feature.id!r} is unlimited here; choose another balance by balance_id or interval")
    _check_sum(change, found.feature, (value + row.prepaid - row.granted) * max(1, row.slots))
    change.ops.append(["grant", found.feature.id, row.entity_id, row.no, value])


def _redate(change: Change, found: Chosen, wanted: Correction) -> None:
    """With an entity, the dates of what is its own; the customer's only where it has nothing."""
    rows = [row for row in found.rows if found.entity_id and chosen.is_entitys(row)] or found.rows
    for field in DATES:
        _check_future(field, getattr(wanted, field), change.now_ms)
    narrower = "choose others by balance_id or interval"
    if wanted.next_reset_at is not None and any(row.interval == LIFETIME for row in rows):
        raise invalid("next_reset_at", f"a chosen balance never resets; {narrower}")
    if wanted.expires_at is not None and any(row.interval != LIFETIME and row.flags & layout.PAID for row in rows):
        raise invalid("expires_at", f"a chosen balance recurs and has a price, it ends with its plan; {narrower}")
    dates = [-1 if at_ms is None else at_ms for at_ms in (wanted.next_reset_at, wanted.expires_at)]
    change.ops += [["dates", found.feature.id, row.entity_id, row.no, *dates] for row in rows]


def _remove(change: Change, choice: Choice, recalculate: bool) -> None:
    no = chosen.named(change, choice.balance_id) if choice.balance_id else 0
    if choice.feature_id:
        chosen.feature_of(change, choice.feature_id, counted=False)
    if choice.entity_id:
        open_entity_row(change.conn, change.cid, choice.entity_id)
    found = [
        bucket for bucket in chosen.usable(change)
        if (bucket.row.no == no if choice.balance_id else bucket.row.entity_id == choice.entity_id)
        and choice.feature_id in ("", bucket.feature_id) and choice.entity_id in ("", bucket.row.entity_id)
        and choice.interval in (None, bucket.row.interval)
    ]
    if not found:
        raise chosen.none_chosen(choice)
    loose = [bucket for bucket in found if not bucket.row.plan_id]
    if not loose:
        raise ApiError(
            409, "balance_of_plan", f"the balance came with the plan {found[0].row.plan_id!r}, and goes with it only"
        )
    features = {bucket.feature_id for bucket in loose}
    others = [bucket for bucket in chosen.usable(change) if recalculate and bucket.feature_id in features]
    change.ops += chosen.restores(others or loose)
    for bucket in loose:
        change.ops.append(["drop", bucket.feature_id, bucket.row.no, bucket.row.entity_id, int(recalculate), 0])


def _recalculate(change: Change, choice: Choice) -> None:
    found = choose(change, choice)
    change.ops += found.restores
    change.ops.append(["recalc", found.feature.id, found.entity_id])
