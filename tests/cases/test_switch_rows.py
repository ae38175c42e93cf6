"""Rollovers and grants per entity across an immediate plan switch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cases.desk import UNIT, Desk, one_period_on, rolled, rows, ru
from tests.cases.world import Bucket, Customer, E, L, M

ALL = {"enabled": True}
SEATS = ("seat1", "seat2", "seat3")



@pytest.mark.parametrize("config, left", [(rolled(200), 700), ({}, 500), (rolled(), 850), (rolled(0), 500)], ids=str)
def test_case_140_rollovers_come_along_only_onto_an_item_with_one(desk: Desk, config: Any, left: int) -> None:
    c = one_period_on(desk, M(500, **rolled(400)), used=150)
    assert c.bal() == 850
    desk.switch(c, M(500, **config))
    assert c.bal() == left


def test_the_newest_rollovers_come_along_first(desk: Desk) -> None:
    c = desk.holding(M(100, **rolled(1000)))
    for used in (70, 10):
        c.track(used)
        desk.api.advance_to(c.period_end())
        c.check()
    assert c.bal() == 220, "20 of the first month's 30, 100 of the second"
    desk.switch(c, M(100, **rolled(105)))
    assert c.bal() == 205
    assert [(row.balance, row.granted) for row in rows(c) if row.rollover] == [(5 * UNIT, 15 * UNIT), (100 * UNIT, 100 * UNIT)]


def test_a_rollover_that_ends_later_is_trimmed_later(desk: Desk) -> None:
    """100 that came along for another year; each new 100 stays a month and gives way to them."""
    c = one_period_on(desk, M(100, **rolled(100, length=12)))
    desk.switch(c, M(100, **rolled(130, length=1)))
    for _ in range(3):
        desk.api.advance_to(c.period_end())
        assert c.bal() == 230
    c.track(110)
    assert c.bal() == 120, "the month's 30 first, then 80 of the others"
    desk.api.advance_to(c.period_end())
    assert c.bal() == 100 + 20 + 100


def test_a_rollover_that_came_along_is_spent_first_and_ends_when_it_would_have(desk: Desk) -> None:
    c = one_period_on(desk, M(100, **rolled(50, length=1)))
    assert c.bal() == 150
    desk.switch(c, M(100, **rolled(80)))
    c.track(20)
    assert c.bal() == 130
    desk.api.advance_to(c.period_end())
    assert c.bal() == 180, "the 30 are gone, 80 of the new plan's 100 stay"


def test_a_percentage_bounds_what_comes_along(desk: Desk) -> None:
    c = one_period_on(desk, M(100, **rolled(100)))
    desk.switch(c, M(90, rollover={"max_percentage": 50, "duration": "forever"}))
    assert c.bal() == 135


def test_rollovers_that_end_and_never_ending_ones_keep_to_one_maximum(desk: Desk) -> None:
    c = one_period_on(desk, M(100, **rolled(100)))
    desk.switch(c, M(50, rollover={"max": 120, "duration": "forever"}))
    assert c.bal() == 150
    c.track(30)
    assert c.bal() == 120
    desk.api.advance_to(c.period_end())
    assert c.bal() == 50 + 120, "70 that end, and 50 for ever"
    for _ in range(3):
        desk.api.advance_to(c.period_end())
        c.check()
    assert c.bal() == 50 + 120


# -- grants per entity


def _seated(desk: Desk, *buckets: Bucket, monthly: int = 0) -> Customer:
    desk.world.feature("seats", "continuous_use")
    c = desk.world.customer(desk.plan(L(9).of("seats"), group="seats"))
    c.entities(*SEATS)
    desk.switch(c, *buckets, monthly=monthly)
    return c


def _of_seats(c: Customer) -> list[Any]:
    return [c.bal(entity=entity) for entity in SEATS]


def test_usage_of_entities_follows_each_its_own(desk: Desk) -> None:
    c = _seated(desk, E(50))
    c.track(20, entity_id="seat1")
    c.track(50, entity_id="seat3")
    desk.switch(c, E(40), carry_over_usages=ALL)
    assert _of_seats(c) == [20, 40, -10]
    assert (c.shown().r, c.shown().overage, c.shown().u) in ((60, 10, 70), (50, 0, 70))
    desk.switch(c, E(100, None), carry_over_usages=ALL)
    assert _of_seats(c) == [80, 100, 50]


def test_entities_start_fresh_where_nothing_says_otherwise(desk: Desk) -> None:
    c = _seated(desk, E(50))
    c.track(20, entity_id="seat1")
    desk.switch(c, E(40))
    assert _of_seats(c) == [40, 40, 40] and c.bal() == 120


def test_usage_of_entities_adds_up_on_a_shared_grant(desk: Desk) -> None:
    c = _seated(desk, E(50))
    c.track(20, entity_id="seat1")
    c.track(5, entity_id="seat2")
    desk.switch(c, M(100), carry_over_usages=ALL)
    assert ru(c) == (75, 25)


def test_shared_usage_goes_onto_the_entities_in_order(desk: Desk) -> None:
    c = _seated(desk, M(100))
    c.track(70)
    desk.switch(c, E(50), carry_over_usages=ALL)
    assert _of_seats(c) == [0, 30, 50]
    desk.switch(c, M(300), carry_over_usages=ALL)
    c.track(100)
    desk.switch(c, E(50), carry_over_usages=ALL)
    assert _of_seats(c) == [-20, 0, 0]


def test_each_kind_of_grant_goes_to_its_like(desk: Desk) -> None:
    c = _seated(desk, E(50), M(100))
    c.track(60, entity_id="seat2")
    c.track(15)
    assert c.parts(entity="seat2") == [(0, 50), (75, 25)]
    desk.switch(c, E(60), M(200), carry_over_usages=ALL)
    assert c.parts(entity="seat2") == [(10, 50), (175, 25)]


def test_what_entities_have_left_is_a_grant_for_all(desk: Desk) -> None:
    c = _seated(desk, E(50))
    c.track(20, entity_id="seat1")
    desk.switch(c, M(500), carry_over_balances=ALL)
    assert ru(c) == (630, 0)


def test_debts_of_entities_lower_their_own_share(desk: Desk) -> None:
    c = _seated(desk, E(50))
    c.track(70, entity_id="seat1", overage_behavior="overflow")
    desk.switch(c, E(100), carry_over_balances=ALL)
    assert c.bal() == 300 - 20 + 100
    assert [c.parts(entity=entity)[0] for entity in SEATS] == [(80, 20), (100, 0), (100, 0)]


def test_rollovers_of_entities_come_along_each_up_to_the_maximum(desk: Desk) -> None:
    c = _seated(desk, E(50).with_(**rolled(50)))
    c.track(20, entity_id="seat1")
    desk.api.advance_to(c.period_end())
    assert _of_seats(c) == [80, 100, 100]
    desk.switch(c, E(50).with_(**rolled(40)))
    assert _of_seats(c) == [80, 90, 90]
    desk.switch(c, M(10, **rolled(40)))
    assert c.bal() == 10


def test_an_entity_that_comes_later_has_the_whole_new_grant(desk: Desk) -> None:
    c = _seated(desk, E(50))
    c.track(20, entity_id="seat1")
    desk.switch(c, E(40), carry_over_usages=ALL)
    c.entities("seat4")
    assert c.bal(entity="seat4") == 40
    desk.api.advance_to(c.period_end())
    assert _of_seats(c) == [40, 40, 40]


def test_bought_units_left_of_entities_stay_as_a_grant_for_all(desk: Desk) -> None:
    item = E(0, None).with_(price=1, usage_model="prepaid").item
    c = _seated(desk, Bucket(item, 30), monthly=5)
    c.track(10, entity_id="seat2")
    desk.switch(c, M(5), monthly=20)
    assert ru(c) == (85, 0)
