"""Worked cases on immediate plan switches: usage, holds and debts, and tracks that race a switch.
What is left over is test_leftovers.py, entities and rollovers are test_switch_rows.py."""

from __future__ import annotations

import random
from typing import Any, Callable

import pytest

from tests.cases.desk import Desk, ru
from tests.cases.world import UNLIMITED, H, L, M, P, World
from tests.http import DAY_MS, Api

ALL = {"enabled": True}



def test_case_25_bought_units_start_fresh(desk: Desk) -> None:
    c = desk.holding(P(0, 200))
    c.track(50)
    due = c.period_end()
    desk.api.advance(3 * DAY_MS)
    desk.switch(c, P(0, 300))
    assert ru(c) == (300, 0) and c.period_end() == due


def test_case_115_seats_follow(desk: Desk) -> None:
    c = desk.holding(L(5).of("seats"))
    c.track(3, "seats")
    desk.switch(c, L(10).of("seats"))
    assert ru(c, "seats") == (7, 3)


def test_case_118_occupied_units_follow_on_to_bought_ones(desk: Desk) -> None:
    desk.world.feature("workflows", "continuous_use")
    c = desk.holding(L(2).of("workflows"))
    c.track(1, "workflows")
    desk.switch(c, P(0, 3).of("workflows"))
    assert ru(c, "workflows") == (2, 1)


@pytest.mark.parametrize("resets, left", [(True, 500), (False, 480)])
def test_case_205_the_new_plan_says_whether_usage_follows(desk: Desk, resets: bool, left: int) -> None:
    c = desk.holding(M(100))
    c.track(20)
    desk.switch(c, M(500, reset_usage_when_enabled=resets))
    assert ru(c) == (left, 500 - left)


def test_case_206_carried_usage_is_never_floored(desk: Desk) -> None:
    c = desk.holding(M(50))
    c.track(50)
    desk.switch(c, M(30), carry_over_usages=ALL)
    assert c.bal() == -20 and c.shown().u == 50


def test_case_208_the_call_names_what_is_carried(desk: Desk) -> None:
    c = desk.holding(M(100), M(100).of("words"))
    c.track(30)
    c.track(40, "words")
    desk.switch(c, M(500), M(500).of("words"), carry_over_usages={"enabled": True, "feature_ids": ["words"]})
    assert ru(c) == (500, 0) and ru(c, "words") == (460, 40)


def test_usage_without_limit_is_forgotten_and_seats_without_limit_are_not(desk: Desk) -> None:
    desk.world.feature("seats", "continuous_use")
    c = desk.holding(UNLIMITED, UNLIMITED.of("seats"))
    c.track(1000)
    c.track(4, "seats")
    desk.switch(c, M(10), L(5).of("seats"), carry_over_usages=ALL)
    assert ru(c) == (10, 0) and ru(c, "seats") == (1, 4)
    desk.switch(c, UNLIMITED, UNLIMITED.of("seats"))
    desk.switch(c, L(10).of("seats"))
    assert ru(c, "seats") == (6, 4)


def test_several_buckets_usage_goes_onto_the_first_new_one(desk: Desk) -> None:
    c = desk.holding(H(5), M(10))
    c.track(8)
    desk.switch(c, M(100), L(50), carry_over_usages=ALL)
    assert c.parts() == [(92, 8), (50, 0)]


# -- holds across a switch


def test_case_193_what_a_hold_gives_back_lands_on_the_new_plan(desk: Desk) -> None:
    c = desk.holding(M(50))
    lock = c.check(40, lock={"enabled": True, "lock_id": "h1"})
    assert lock["allowed"]
    desk.switch(c, M(80))
    c.track(20)
    desk.api.post("/v1/balances.finalize", {"lock_id": "h1", "action": "confirm", "override_value": 30})
    assert ru(c) == (70, 10)


def test_a_hold_released_after_its_usage_was_carried(desk: Desk) -> None:
    c = desk.holding(M(50))
    c.check(40, lock={"enabled": True, "lock_id": "h1"})
    desk.switch(c, M(80), carry_over_usages=ALL)
    assert ru(c) == (40, 40)
    desk.api.post("/v1/balances.finalize", {"lock_id": "h1", "action": "release"})
    assert ru(c) == (80, 0)


@pytest.mark.parametrize("action, expected", [("release", (700, 0)), ("confirm", (660, 40))])
def test_bought_units_that_a_hold_has_are_not_lost(desk: Desk, action: str, expected: tuple[int, int]) -> None:
    c = desk.holding(P(0, 200, None), monthly=5)
    c.check(40, lock={"enabled": True, "lock_id": "h1"})
    desk.switch(c, M(500), monthly=20)
    assert c.ru() == (660, 40)
    desk.api.post("/v1/balances.finalize", {"lock_id": "h1", "action": action})
    assert c.ru() == expected


def test_all_of_the_bought_units_held_come_back(desk: Desk) -> None:
    c = desk.holding(P(0, 40, None), monthly=5)
    c.check(40, lock={"enabled": True, "lock_id": "h1"})
    desk.switch(c, M(500), monthly=20)
    assert c.ru() == (500, 40)
    desk.api.post("/v1/balances.finalize", {"lock_id": "h1", "action": "release"})
    assert c.ru() == (540, 0)


# -- debts and purchases


@pytest.mark.parametrize("persist", [False, True])
def test_case_212_what_is_bought_pays_debts_where_they_persist(make_api: Callable[..., Api], persist: bool) -> None:
    world = World(make_api(persist_free_overage=persist))
    desk = Desk(world, False)
    c = desk.holding(M(15_000_000), L(15_000_000))
    c.track(30_127_803, overage_behavior="overflow")
    assert c.parts() == [(0, 15_127_803), (0, 15_000_000)]
    desk.attach(c, desk.plan(P(0, 5_000_000, None)))
    month = 15_000_000 if persist else 15_127_803
    bought = (4_872_197, 127_803) if persist else (5_000_000, 0)
    assert c.parts() == [(0, month), (0, 15_000_000), bought]
    assert c.bal() == 4_872_197


def test_a_purchase_does_not_pay_for_the_plan_it_replaces(make_api: Callable[..., Api]) -> None:
    desk = Desk(World(make_api(persist_free_overage=True)), True)
    c = desk.holding(M(10))
    desk.attach(c, desk.world.plan(M(5), is_add_on=True))
    c.track(18, overage_behavior="overflow")
    assert c.parts() == [(0, 13), (0, 5)]
    desk.switch(c, P(0, 20))
    assert c.parts() == [(20, 0), (0, 5)], "the debt of the plan that left was not paid"


def test_a_purchase_smaller_than_the_debt(make_api: Callable[..., Api]) -> None:
    desk = Desk(World(make_api(persist_free_overage=True)), True)
    c = desk.holding(M(10))
    c.track(18, overage_behavior="overflow")
    desk.attach(c, desk.plan(P(0, 5, None)))
    assert c.parts() == [(0, 13), (0, 5)]


# -- usage racing switches


@pytest.mark.parametrize("carry", ["carry_over_usages", "carry_over_balances"])
def test_tracks_racing_switches_lose_nothing(world: World, carry: str) -> None:
    """50 rounds: each switches between two plans while tracks run; no unit is lost or counted twice."""
    desk = Desk(world, False)
    plans = [desk.plan(M(1000)), desk.plan(M(1000))]
    c = world.customer(plans[0])
    seed = random.randrange(10**6)
    chance, used = random.Random(seed), 0
    for number in range(50):
        values = [chance.randint(1, 3) for _ in range(5)]
        used += sum(values)
        calls: list[tuple[Any, ...]] = [
            ("POST", "/v1/track", {"customer_id": c.id, "feature_id": "msg", "value": value}) for value in values
        ]
        body = {"customer_id": c.id, "product_id": plans[(number + 1) % 2][0], carry: ALL}
        calls.insert(chance.randint(0, 5), ("POST", "/v1/attach", body))
        for answer in world.api.together(*calls):
            assert answer.status_code == 200, (seed, answer.text)
    if carry == "carry_over_usages":
        assert ru(c) == (1000 - used, used), seed
    else:
        assert c.shown().r == 1000 * 51 - used, seed
    world.api.sync()
    assert world.api.differences() == [], seed
