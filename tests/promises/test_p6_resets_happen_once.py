"""P6: a reset happens once per period however many callers race, and so does what comes of it: the
rollover, the overage that is owed, the entities' new shares."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any, Awaitable, Callable

import pytest

from sync.duties import Duties
from tests.http import HOUR_MS, Api
from tests.promises import books
from tests.promises.books import UNIT

CHECK, TRACK = "/v1/check", "/v1/track"
ROUNDS = 3
MONTHLY = {"feature_id": "msg", "interval": "month"}
ROLLING = {"rollover": {"max": 150, "duration": "month", "length": 2}}
PAID = {"price": 1, "usage_model": "pay_per_use"}

ITEMS: dict[str, dict[str, Any]] = {
    "free": {**MONTHLY, "included_usage": 100},
    "rollover": {**MONTHLY, "included_usage": 100, **ROLLING},
    "pay-per-use": {**MONTHLY, "included_usage": 10, "usage_limit": 100, **PAID},
    "per entity": {**MONTHLY, "included_usage": 40, "entity_feature_id": "seats"},
    "rollover per entity": {**MONTHLY, "included_usage": 40, "entity_feature_id": "seats", **ROLLING},
}
USED = 30
LEFT = {"free": 70, "rollover": 70, "pay-per-use": -20, "per entity": 90, "rollover per entity": 90}
MADE = {"rollover": 70, "rollover per entity": 90}
"""What a first reset makes of what is left of 100, or of three entities' 40."""


def callers(c: str, end: int) -> list[tuple[str, str, Any]]:
    """One call of every kind that finds the reset due; none of them takes anything."""
    body = {"customer_id": c, "feature_id": "msg"}
    hold = {"enabled": True, "lock_id": f"{c}-{end}"}
    return [
        ("POST", TRACK, {**body, "value": 0}), ("POST", CHECK, body), ("POST", CHECK, {**body, "required_balance": 0, "send_event": True}),
        ("POST", CHECK, {**body, "required_balance": 0, "lock": hold}), ("GET", f"/v1/customers/{c}", None),
        ("GET", f"/v1/balances/list?customer_id={c}", None), ("GET", f"/v1/customers/{c}/explain?feature_id=msg", None),
        ("POST", TRACK, {**body, "value": 10**6, "overage_behavior": "reject"}), ("POST", CHECK, {**body, "entity_id": "e0"}),
        ("POST", "/v1/balances.batch_track", [{**body, "value": 0}] * 3), ("POST", "/v1/balances.batch_check", [body] * 3),
        ("POST", "/v1/balances.update", {**body, "add_to_balance": 0}), ("GET", f"/v1/customers/{c}/entities/e0", None),
        ("POST", TRACK, {"customer_id": c, "refund_of": "evt_0_1_99999"}),
    ]


def due(api: Api) -> Callable[[], Awaitable[Any]]:
    """What the worker does about resets that nobody calls for."""
    duties = Duties(api.ctx.engine, api.ctx.store, api.settings.partitions)
    return duties.reset_due


def race(api: Api, others: list[Api], c: str, end: int) -> None:
    """All of them at once, from two processes' apps and the worker, after the period's end."""
    api.advance_to(end)
    calls = callers(c, end) * 3
    random.shuffle(calls)

    async def all_of_them() -> list[Any]:
        sent = [random.choice([api, *others]).send(*call) for call in calls]
        return list(await asyncio.gather(*sent, due(api)()))

    answers = api.run(all_of_them())
    assert all(answer.status_code < 500 for answer in answers[:-1])


def resets(api: Api, c: str) -> Counter[tuple[int, int | None]]:
    """How often each bucket was reset for each period, by the ledger."""
    return Counter((line.no, line.period_end) for line in books.ledger(api, c) if line.kind == "reset")


@pytest.mark.parametrize("name", ITEMS)
def test_whoever_is_first_the_reset_is_made_once(make_api: Callable[..., Api], name: str) -> None:
    """P6, for every kind of bucket: N callers of every verb, of two sidecars, and the worker."""
    api, other = make_api(), make_api()
    api.feature("msg")
    api.feature("seats", "continuous_use")
    api.plan("base", ITEMS[name], {"feature_id": "seats", "included_usage": 5})
    for _ in range(ROUNDS):
        c = api.customer("base")
        for entity in ("e0", "e1", "e2"):
            api.entity(c, entity)
        api.track(c, "msg", USED, overage_behavior="cap")
        (bucket,) = [row for row in books.state(api, c).features["msg"]]
        assert bucket.balance == LEFT[name] * UNIT
        end = bucket.next_reset_at
        race(api, [other], c, end)
        assert resets(api, c) == {(bucket.no, end): 1}
        now = books.state(api, c).features["msg"]
        (after,) = [row for row in now if not row.rollover]
        full = after.granted * max(1, after.slots)
        assert after.balance == full == (120 if "entity" in name else 10 if name == "pay-per-use" else 100) * UNIT
        assert [row.balance for row in now if row.rollover] == [MADE[name] * UNIT for _ in range(name in MADE)]
        owed = [line.over_units for line in books.ledger(api, c) if line.over_units]
        assert owed == ([20 * UNIT] if name == "pay-per-use" else [])
        again = after.next_reset_at
        race(api, [other], c, again)
        assert resets(api, c) == {(bucket.no, end): 1, (bucket.no, again): 1}


@pytest.mark.parametrize("name", ["free", "rollover", "rollover per entity"])
def test_missed_periods_are_one_reset(make_api: Callable[..., Api], name: str) -> None:
    """P6 where several periods were missed: callers who race catch up once, and leave what one caller
    alone would."""
    api, other = make_api(), make_api()
    api.feature("msg")
    api.feature("seats", "continuous_use")
    api.plan("base", ITEMS[name], {"feature_id": "seats", "included_usage": 5})
    c, alone = api.customer("base"), api.customer("base")
    for who in (c, alone):
        for entity in ("e0", "e1", "e2"):
            api.entity(who, entity)
        api.track(who, "msg", USED)
    (bucket,) = books.state(api, c).features["msg"]
    race(api, [other], c, bucket.next_reset_at + 95 * 24 * HOUR_MS)
    assert sum(resets(api, c).values()) == 1
    api.check(alone)
    columns = ("balance", "granted", "prepaid", "flags", "slots")
    raced, quiet = ([tuple(getattr(row, column) for column in columns) for row in books.state(api, who).features["msg"]] for who in (c, alone))
    assert raced == quiet and len(raced) == (1 if name == "free" else 3)


def test_spends_that_race_with_the_reset_come_out_of_one_period_each(api: Api) -> None:
    """P6 with spends: they find the reset done, whoever was first; nobody pays twice or for nothing."""
    api.feature("msg")
    api.plan("base", {**MONTHLY, "included_usage": 100, **ROLLING})
    for _ in range(ROUNDS):
        c = api.customer("base")
        api.track(c, "msg", USED)
        (bucket,) = books.state(api, c).features["msg"]
        api.advance_to(bucket.next_reset_at)
        body = {"customer_id": c, "feature_id": "msg", "value": 2, "overage_behavior": "reject"}
        answers = api.together(*[("POST", TRACK, body)] * 100)
        assert sum(answer.status_code == 200 for answer in answers) == (100 + 70) // 2
        assert resets(api, c) == {(bucket.no, bucket.next_reset_at): 1}
        made = [line.delta for line in books.ledger(api, c) if line.kind == "rollover"]
        assert made == [70 * UNIT]
