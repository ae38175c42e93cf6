"""Worked cases, group Usage-limit windows: so many units a day to a year, whatever the balance; at 1.2
and at 2.x."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Iterator

import pytest
from sqlalchemy import select

from sidecar.domain.intervals import INTERVALS
from sidecar.store import tables
from tests.cases.world import UNLIMITED, E, L, M, Customer, World, usage_limit
from tests.http import DAY_MS, HOUR_MS, Api, audit

D = Decimal


@pytest.fixture(scope="module")
def shop(module_api: Api) -> World:
    """One catalog for all cases; it is noon, so that no day ends between two calls."""
    made = World(module_api)
    made.credits()
    now = datetime.fromtimestamp(module_api.advance(0) / 1000, UTC)
    noon = now.replace(hour=12, minute=0, second=0, microsecond=0) + timedelta(days=1)
    module_api.advance_to(int(noon.timestamp() * 1000))
    return made


@pytest.fixture(params=["1.2", "2.1"])
def world(shop: World, request: pytest.FixtureRequest) -> Iterator[World]:
    """The catalog, called at each generation of the wire."""
    shop.version = request.param
    yield shop
    audit(shop.api)


@pytest.fixture(params=["billing_cycle", "utc"])
def anchor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def windowed(world: World, *buckets: Any, limit: Any = 5, feature: str = "msg", **fields: Any) -> Customer:
    """A customer of these buckets with a usage limit of its own."""
    c = world.holding(*buckets)
    c.controls(usage_limits=[usage_limit(limit, feature, **fields)])
    return c


def applied(c: Customer) -> list[tuple[Any, Any]]:
    """What each of the customer's events asked for, and what of it was applied."""
    return [(event["requested"] / 10**6, event["applied"] / 10**6) for event in c.api.events(c.id)]


def stored(c: Customer) -> list[tuple[Any, ...]]:
    """The customer's counters in SQL once it has all: (interval, start, end, used)."""
    c.api.sync()
    t, cid = tables.windows.c, c.api.run(c.api.ctx.engine.view(c.id)).cid
    query = select(t.interval, t.start, t.end, t.used).where(t.cid == cid)
    rows = c.api.ctx.store.read_sync(lambda conn: conn.execute(query).all())
    return [(INTERVALS[code], start, end, used // 10**6) for code, start, end, used in rows]


def lock(c: Customer, amount: Any) -> str:
    """Holds units; the hold's name."""
    answer = c.check(amount, lock={"enabled": True})
    assert answer["allowed"], answer
    return str(answer["lock_id"])


def confirm(c: Customer, lock_id: str, final: Any) -> None:
    body = {"lock_id": lock_id, "action": "confirm", "override_value": final}
    assert c.api.post("/v1/balances.finalize", body, headers=c.world.headers) == {"success": True}


def test_case_91_a_window_caps_whatever_the_balance(world: World, anchor: str) -> None:
    c = windowed(world, M(100), anchor=anchor)
    answer = c.track(10)
    if world.newer:
        assert answer["value"] == 10, "the answer repeats what was asked for"
    assert c.ru() == (95, 5)
    c.track(3)
    assert c.ru() == (95, 5) and c.counter() == 5
    assert applied(c) == [(10, 5), (3, 0)]


def test_case_92_a_members_window_counts_units_not_credits(world: World) -> None:
    c = windowed(world, M(1).of("credits"), L(10).of("credits"), limit=10, feature="action1")
    c.track(15, "action1")
    assert c.parts("credits") == [(0, 1), (9, 1)]
    assert c.counter("action1") == 10


def test_case_94_own_units_and_credits_count_together(world: World) -> None:
    c = windowed(world, M(5).of("action1"), L(100).of("credits"), limit=8, feature="action1")
    assert c.allowed(8, "action1") and c.denied(9, "action1") == "usage_limit"
    c.track(10, "action1")
    assert c.ru("action1") == (0, 5) and c.bal("credits") == D("99.4")
    assert c.counter("action1") == 8


def test_case_95_a_members_window_does_not_bind_the_credits(world: World) -> None:
    c = windowed(world, L(100).of("credits"), feature="action1")
    c.track(5, "action1")
    assert c.bal("credits") == 99 and c.denied(1, "action1") == "usage_limit"
    assert c.allowed(10, "credits")
    c.track(10, "credits")
    assert c.bal("credits") == 89 and c.counter("action1") == 5


def test_a_credit_systems_window_counts_credits_whoever_draws_them(world: World) -> None:
    c = windowed(world, L(100).of("credits"), feature="credits")
    c.track(5, "action1")
    c.track(5, "action2")
    assert c.counter("credits") == 4
    assert c.allowed(1, "credits") and c.denied(D("1.000001"), "credits") == "usage_limit"
    assert c.allowed(5, "action1") and c.denied(6, "action1") == "usage_limit"
    c.track(100, "action1")
    assert c.bal("credits") == 95 and c.counter("credits") == 5
    assert applied(c)[-1] == (100, 5)


def test_case_97_a_check_counts_to_the_window(world: World, anchor: str) -> None:
    c = windowed(world, M(100), anchor=anchor)
    c.track(3)
    assert c.allowed(2) and c.denied(3) == "usage_limit"
    c.reject(3, code="usage_limit_exceeded")
    assert c.ru() == (97, 3) and c.counter() == 3
    assert c.allowed(2, send_event=True)
    assert c.ru() == (95, 5) and c.counter() == 5
    assert c.denied(1) == "usage_limit"


def test_case_98_a_window_over_two_buckets(world: World) -> None:
    c = windowed(world, M(100), L(100), limit=150, interval="month")
    c.track(120)
    assert c.parts() == [(0, 100), (80, 20)]
    c.track(50)
    assert c.parts() == [(0, 100), (50, 50)] and c.counter() == 150
    assert applied(c)[-1] == (50, 30)


def test_case_100_a_hold_counts_and_what_it_undoes_makes_room(world: World) -> None:
    c = windowed(world, M(100))
    held = lock(c, 4)
    assert c.counter() == 4
    refused = c.check(2, lock={"enabled": True})
    assert (refused["allowed"], refused["reason"]) == (False, "usage_limit") and "lock_id" not in refused
    confirm(c, held, 1)
    assert c.counter() == 1 and c.ru() == (99, 1)
    c.track(5)
    assert c.ru() == (95, 5) and c.counter() == 5


def test_case_101_a_confirm_takes_only_what_the_window_leaves(world: World) -> None:
    c = windowed(world, M(100))
    confirm(c, lock(c, 3), 6)
    assert c.ru() == (95, 5) and c.counter() == 5


def test_case_103_overflow_passes_the_window_but_counts(world: World) -> None:
    c = windowed(world, M(100))
    c.track(3)
    c.track(10, overage_behavior="overflow")
    assert c.ru() == (87, 13) and c.counter() == 13
    assert c.denied(1) == "usage_limit"
    c.track(1)
    assert c.ru() == (87, 13) and c.counter() == 13


def test_case_104_what_rollovers_pay_counts(world: World) -> None:
    rolls = {"max": 500, "duration": "month", "length": 2}
    c = world.holding(M(100, rollover=rolls))
    c.track(40)
    world.api.advance_to(c.period_end())
    c.controls(usage_limits=[usage_limit(5)])
    assert total(c) == 160
    c.track(3)
    c.track(10, overage_behavior="overflow")
    assert total(c) == 147 and c.counter() == 13
    fields = c.shown().fields
    assert [roll["balance"] for roll in fields["rollovers"]] == [47] and c.parts() == [(100, 0)]


def total(c: Customer) -> Any:
    """All that remains, rollovers included."""
    newer = c.api.get(f"/v1/customers/{c.id}", headers={"x-api-version": "2.1"})["balances"]["msg"]
    return newer["remaining"]


def test_case_106_of_several_plans_windows_all_hold(world: World) -> None:
    c = world.customer(*(
        world.plan(M(100), controls={"usage_limits": [usage_limit(limit)]}) for limit in (5, 20)
    ))
    assert c.allowed(5) and c.denied(6) == "usage_limit"
    c.track(10)
    assert c.shown().u == 5 and c.ru() == (195, 5)


def test_of_windows_of_several_lengths_the_tightest_holds(world: World) -> None:
    c = world.holding(M(100))
    c.controls(usage_limits=[usage_limit(5), usage_limit(8, interval="week", anchor="utc"), usage_limit(9, interval="year")])
    c.track(10)
    assert c.shown().u == 5
    # to Monday, so that both days are of one week
    now = datetime.fromtimestamp(world.api.advance(0) / 1000, UTC)
    world.api.advance(((7 - now.weekday()) % 7 or 7) * DAY_MS + HOUR_MS)
    c.track(10)
    assert c.denied(1) == "usage_limit" and c.shown().u == 9, "the year's is the tightest by now"


def test_case_107_entities_share_the_customers_window(world: World) -> None:
    c = world.holding(E(100))
    entities = ("e1", "e2", "e3")
    c.entities(*entities)
    c.controls(usage_limits=[usage_limit(5)])
    for entity_id, value in zip(entities, (2, 2, 1)):
        assert c.allowed(value, entity_id=entity_id, send_event=True)
        assert c.shown(entity=entity_id).u == value
    assert c.counter() == 5
    for entity_id in entities:
        assert c.denied(1, entity_id=entity_id) == "usage_limit"
        c.track(1, entity_id=entity_id)
    assert c.ru() == (295, 5)


def test_case_109_entities_with_windows_of_their_own(world: World) -> None:
    c = world.holding(E(100))
    c.entities("e1", "e2")
    for entity_id, limit in (("e1", 5), ("e2", 10)):
        c.controls(entity_id, usage_limits=[usage_limit(limit)])
    for entity_id, asked, given in (("e1", 7, 5), ("e2", 7, 7), ("e2", 5, 3)):
        c.track(asked, entity_id=entity_id)
        assert applied(c)[-1] == (asked, given)
    assert c.ru() == (185, 15)
    assert (c.counter(entity="e1"), c.counter(entity="e2")) == (5, 10)
    assert c.allowed(100), "neither binds the customer itself"


@pytest.mark.parametrize("interval", ["day", "week", "month", "year"])
def test_case_110_a_window_that_is_over_counts_from_nothing(world: World, anchor: str, interval: str) -> None:
    c = windowed(world, M(100), interval=interval, anchor=anchor)
    c.track(9)
    ((_, start, end, used),) = stored(c)
    assert used == 5 and start <= world.api.advance(0) < end
    world.api.advance_to(end - 60_000)
    assert c.denied(1) == "usage_limit" and c.counter() == 5
    world.api.advance_to(end)
    assert c.counter() == 0 and stored(c) == [(interval, start, end, 5)], "the row is kept"
    assert c.allowed(5) and c.denied(6) == "usage_limit"
    c.track(9)
    ((_, new_start, new_end, used),) = stored(c)
    assert (new_start, used, c.counter()) == (end, 5, 5) and new_end > end
    world.api.advance(HOUR_MS)


def test_case_235_a_window_binds_the_unlimited(world: World, anchor: str) -> None:
    c = windowed(world, UNLIMITED, anchor=anchor)
    c.track(5)
    assert c.denied(1) == "usage_limit" and c.counter() == 5
    c.reject(1, code="usage_limit_exceeded")
    c.track(1)
    assert applied(c) == [(5, 5), (1, 0)] and c.counter() == 5


def test_refunds_and_corrections_give_no_room_back(world: World) -> None:
    c = windowed(world, M(100))
    c.track(5)
    c.track(-5)
    c.post("/v1/balances.update", {"feature_id": "msg", "usage": 0})
    assert c.ru() == (100, 0) and c.counter() == 5
    assert c.denied(1) == "usage_limit"
