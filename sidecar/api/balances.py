"""Routes that manage balances, both styles: create, update, delete, list, recalculate, and the older
ways to set usage and what remains. The API version decides names and shapes, never the path."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import Any, Awaitable, Callable, Mapping

from starlette.routing import Route

from ..billing import balances as billing
from ..billing.balances import DATES, GRANT, LIVE_VALUES, Correction, NewBalance
from ..billing.chosen import PUBLIC_ID, Choice
from ..billing.idempotent import Once, Replayed, done_once
from ..catalog.items import INTERVAL_YEARS_MAX
from ..catalog.rollovers import ROLLOVER_FIELDS
from ..domain.intervals import INTERVALS, YEAR, length_ms
from ..errors import NotSupported, invalid
from . import fields
from .balance_list import listed
from .catalog_views_v2 import ROLLOVER_NAMES
from .decode import fingerprint, idempotency_key
from .endpoint import Call, Reply, endpoint
from .paging import CURSORS_FROM, LIMIT_MAX, paging_of

ONE_OFF = "one_off"
TIME_MAX_MS = 8_640_000_000_000_000
"""The last moment that clients' dates can say."""
OLD_NAMES = {GRANT: "granted_balance", "remaining": "current_balance"}
"""How versions below 2.1 call them too."""
DONE: dict[str, Any] = {"success": True}

Verb = Callable[[Once | None], Awaitable[None]]


async def answer(call: Call, verb: str, customer_id: str, asked: Any, do: Verb) -> Reply:
    """Does it, once under its Idempotency-Key; `asked` is the decoded call."""
    key = idempotency_key({}, call.headers.get("idempotency-key"))
    once = None
    if key:
        said = [verb, customer_id, repr_of(asked)]
        once = Once(call.ctx, customer_id, key, fingerprint(*said), DONE)
    try:
        await done_once(once, do)
    except Replayed as first:
        return Reply(first.answer, headers={"Idempotency-Replayed": "true"})
    return Reply(DONE)


def repr_of(asked: Any) -> Any:
    """A decoded call as plain values."""
    if isinstance(asked, (list, tuple)):
        return [repr_of(one) for one in asked]
    return {name: repr_of(value) for name, value in vars(asked).items()} if hasattr(asked, "__dict__") else asked


@partial(endpoint, keyed=True)
async def create(call: Call) -> Reply:
    """Grants a customer (or one of its entities) units that belong to no plan."""
    fields.refuse_old(call.version)
    body = renamed(call)
    customer_id = fields.identifier(body, "customer_id")
    interval, count = reset_of(body)
    grant = body.get(GRANT)
    balance_id = fields.optional_id(body, "balance_id") or ""
    if PUBLIC_ID.fullmatch(balance_id):
        raise invalid("balance_id", "is how balances are called that nobody named; choose another")
    new = NewBalance(
        fields.identifier(body, "feature_id"), fields.optional_id(body, "entity_id") or "",
        None if grant is None else fields.number(grant, GRANT), fields.flag(body, "unlimited") or False,
        interval or 0, count, rollover_of(body), *(time_of(body, name) for name in DATES), balance_id,
    )
    return await answer(call, "balances.create", customer_id, new, lambda once: billing.create(call.ctx, customer_id, new, once))


@partial(endpoint, keyed=True)
async def update(call: Call) -> Reply:
    """Sets what remains, the usage, the grant or the dates of the balances that are chosen."""
    fields.refuse_old(call.version)
    body = renamed(call)
    customer_id = fields.identifier(body, "customer_id")
    given = [name for name in (*LIVE_VALUES, GRANT) if body.get(name) is not None]
    dates = [time_of(body, name) for name in DATES]
    if len(given) > 1:
        raise invalid(given[1], f"does not go with {given[0]}; give one of {', '.join((*LIVE_VALUES, GRANT))}")
    if not given and dates == [None, None]:
        raise invalid("remaining", f"give one of {', '.join((*LIVE_VALUES, GRANT, *DATES))}")
    field = given[0] if given else ""
    value = fields.number(body[field], field) if field else 0
    fields.identifier(body, "feature_id")
    asked = Correction(choice_of(body), field, value, *dates)
    return await answer(
        call, "balances.update", customer_id, asked, lambda once: billing.correct(call.ctx, customer_id, [asked], once)
    )


@partial(endpoint, keyed=True)
async def delete(call: Call) -> Reply:
    """Takes loose grants away."""
    fields.refuse_old(call.version)
    body = call.fields
    customer_id, choice = fields.identifier(body, "customer_id"), choice_of(body)
    if not choice.feature_id and not choice.balance_id:
        raise invalid("feature_id", "give feature_id or balance_id")
    again = fields.flag(body, "recalculate_balances") or False
    return await answer(
        call, "balances.delete", customer_id, [choice, again],
        lambda once: billing.remove(call.ctx, customer_id, choice, again, once),
    )


@partial(endpoint, keyed=True)
async def recalculate(call: Call) -> Reply:
    """Spends a feature's usage again where one of its free balances is below zero."""
    fields.refuse_old(call.version)
    body = call.fields
    customer_id = fields.identifier(body, "customer_id")
    choice = Choice(fields.identifier(body, "feature_id"), fields.optional_id(body, "entity_id") or "")
    return await answer(
        call, "balances.recalculate", customer_id, choice,
        lambda once: billing.recalculate(call.ctx, customer_id, choice, once),
    )


@endpoint
async def list_balances(call: Call) -> dict[str, Any]:
    """The balances of a customer, or of what one of its entities can spend; filters come in the query
    or the body. All at once below 2.3, then in pages: a cursor counts the entries before it."""
    fields.refuse_old(call.version)
    asked: Mapping[str, Any] = {**dict(call.query), **call.fields}
    if asked.get("statuses") not in (None, [], ["active"]):
        raise NotSupported("statuses", "only what is active is listed, for now")
    customer_id, plan_id = fields.identifier(asked, "customer_id"), fields.optional_id(asked, "plan_id")
    limit = LIMIT_MAX if asked.get("limit") is None else asked["limit"]
    paging = paging_of(call.version, {**asked, "limit": limit}, "b", 1) if call.version >= CURSORS_FROM else None
    shown = [
        entry for entry in await listed(
            call, customer_id, fields.optional_id(asked, "feature_id"), fields.optional_id(asked, "entity_id")
        )
        if plan_id in (None, entry["plan_id"])
    ]
    if paging is None:
        return {"list": shown}
    start = paging.after[0] if paging.after else 0
    end = start + paging.limit
    more = end < len(shown)
    return {**paging.answer(shown[start:end], more, (end,)), "has_more": more}


@partial(endpoint, keyed=True)
async def set_usage(call: Call) -> Reply:
    """Sets the usage of a feature."""
    fields.refuse_old(call.version)
    body = call.fields
    customer_id = fields.identifier(body, "customer_id")
    choice = Choice(fields.identifier(body, "feature_id"), fields.optional_id(body, "entity_id") or "")
    asked = Correction(choice, "usage", fields.number(body.get("value"), "value"), path="value")
    return await answer(call, "usage", customer_id, asked, lambda once: billing.correct(call.ctx, customer_id, [asked], once))


@partial(endpoint, keyed=True)
async def set_remaining(call: Call) -> Reply:
    """Sets what remains of several features, of all or none."""
    fields.refuse_old(call.version)
    body, customer_id = call.fields, call.path["customer_id"]
    entity_id = fields.optional_id(body, "entity_id") or ""
    wanted = body.get("balances")
    if not isinstance(wanted, list) or not wanted:
        raise invalid("balances", "must be a list of {feature_id, balance}, not empty")
    asked: list[Correction] = []
    for at, one in enumerate(wanted):
        path = f"balances[{at}]."
        if not isinstance(one, dict):
            raise invalid(path.rstrip("."), "must be an object")
        feature_id = fields.identifier(one, "feature_id", path)
        if any(feature_id == other.choice.feature_id for other in asked):
            raise invalid(f"{path}feature_id", f"{feature_id!r} is there twice")
        value = fields.number(one.get("balance"), f"{path}balance")
        asked.append(Correction(Choice(feature_id, entity_id), "remaining", value, path=f"{path}balance"))
    return await answer(
        call, "customers.balances", customer_id, asked, lambda once: billing.correct(call.ctx, customer_id, asked, once)
    )


def renamed(call: Call) -> dict[str, Any]:
    """The body with today's names. Raises ApiError 400 where an old and a new name say different things."""
    body = dict(call.fields)
    if call.version < (2, 1):
        for name, old in OLD_NAMES.items():
            if body.get(old) is not None and body.setdefault(name, body[old]) is None:
                body[name] = body[old]
            if body.get(old) is not None and body[name] != body[old]:
                raise invalid(old, f"is another name of {name}, which says something else")
    return body


def choice_of(body: Mapping[str, Any]) -> Choice:
    """Which buckets a body means. Raises ApiError 400."""
    interval = body.get("interval")
    return Choice(
        fields.optional_id(body, "feature_id") or "", fields.optional_id(body, "entity_id") or "",
        None if interval is None else interval_code(interval, "interval"), fields.optional_id(body, "balance_id") or "",
    )


def interval_code(name: Any, path: str) -> int:
    """The code of an interval as 2.x names it."""
    names = (ONE_OFF, *INTERVALS[1:])
    if name not in names:
        raise invalid(path, f"must be one of {', '.join(names)}")
    return names.index(name)


def reset_of(body: Mapping[str, Any]) -> tuple[int | None, int]:
    """The interval and count of a `reset`; None without one. Raises ApiError 400."""
    reset = body.get("reset")
    if reset is None:
        return None, 1
    if not isinstance(reset, dict):
        raise invalid("reset", "must be an object")
    code = interval_code(reset.get("interval"), "reset.interval")
    count = fields.whole(reset.get("interval_count"), "reset.interval_count", 1, 1, 10**9)
    if length_ms(code, count) > length_ms(YEAR, INTERVAL_YEARS_MAX):
        raise invalid("reset.interval_count", f"{count} × {INTERVALS[code]} is longer than {INTERVAL_YEARS_MAX} years")
    return code, count if code else 1


def rollover_of(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """A `rollover` in terms of 1.2; either generation's names are understood. Raises ApiError 400."""
    given = body.get("rollover")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise invalid("rollover", "must be an object")
    names = {name: ROLLOVER_NAMES.get(name, name) for name in ROLLOVER_FIELDS}
    return {name: given.get(new) if given.get(new) is not None else given.get(name) for name, new in names.items()}


def time_of(body: Mapping[str, Any], name: str) -> int | None:
    """A moment in milliseconds. Raises ApiError 400."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or value != int(value) or not 0 < value <= TIME_MAX_MS:
        raise invalid(name, "must be milliseconds since 1970, above 0")
    return int(value)


routes = [
    Route(path, handler, methods=["POST"])
    for name, handler in (("create", create), ("update", update), ("delete", delete), ("recalculate", recalculate))
    for path in (f"/v1/balances/{name}", f"/v1/balances.{name}")
] + [
    Route("/v1/balances/list", list_balances, methods=["GET"]),
    Route("/v1/balances.list", list_balances, methods=["POST"]),
    Route("/v1/usage", set_usage, methods=["POST"]),
    Route("/v1/customers/{customer_id}/balances", set_remaining, methods=["POST"]),
]
