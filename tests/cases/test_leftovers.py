"""Worked cases on what is left of a plan, and owed on it, when another one replaces it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.cases.desk import UNIT, Desk, archive, owed, rows, ru
from tests.cases.world import FLAG, UNLIMITED, L, M, P, U

D = Decimal
ALL = {"enabled": True}



def test_case_26_units_bought_once_outlive_their_plan(desk: Desk) -> None:
    c = desk.holding(P(0, 200, None), monthly=5)
    c.track(50)
    desk.switch(c, M(500), monthly=20)
    assert ru(c) == (650, 0)
    assert [(row.plan_id, row.granted, row.expires_at) for row in rows(c)][1:] == [("", 150 * UNIT, 0)]


def test_case_28_units_used_up_leave_no_bucket(desk: Desk) -> None:
    c = desk.holding(P(0, 100, None), monthly=5)
    c.track(100)
    desk.switch(c, M(500), monthly=20)
    assert ru(c) == (500, 0) and len(rows(c)) == 1


def test_case_29_only_what_is_left_of_the_bought_ones_stays(desk: Desk) -> None:
    c = desk.holding(M(100), P(0, 200, None), monthly=5)
    c.track(150)
    assert c.parts() == [(0, 100), (150, 50)]
    desk.switch(c, M(1000), monthly=20)
    assert ru(c) == (1150, 0)


def test_a_leftover_outlives_the_next_switch_too(desk: Desk) -> None:
    c = desk.holding(P(0, 200, None), monthly=5)
    c.track(50)
    desk.switch(c, M(500), monthly=20)
    c.track(510)
    assert c.parts() == [(0, 500), (140, 10)]
    desk.switch(c, M(20), monthly=30)
    assert ru(c) == (160, 10)


def test_used_up_units_that_left_the_hot_state_go_with_their_plan(desk: Desk) -> None:
    """Used-up buckets but the newest few are archived, and count on until their plan is replaced."""
    c = desk.holding(P(0, 10, None), monthly=5)
    for _ in range(5):
        desk.attach(c, desk.world.plan(L(2)))
    c.track(20)
    archive(c)
    assert ru(c) == (0, 20) and c.parts() != []
    desk.switch(c, M(500), monthly=20)
    assert ru(c) == (500, 10)


def test_case_209_what_is_left_becomes_a_grant(desk: Desk) -> None:
    c = desk.holding(M(100))
    c.track(30)
    due = c.period_end()
    desk.switch(c, M(500), carry_over_balances=ALL)
    assert ru(c) == (570, 0)
    left = [row for row in rows(c) if not row.plan_id]
    assert [(row.granted, row.expires_at) for row in left] == [(70 * UNIT, due)]
    desk.api.advance_to(due)
    assert ru(c) == (500, 0)


def test_case_209_a_debt_lowers_the_new_bucket(desk: Desk) -> None:
    c = desk.holding(U(100))
    c.track(120)
    desk.switch(c, M(500), carry_over_balances=ALL, plan_schedule="immediate")
    assert ru(c) == (480, 20) and owed(c) == []


@pytest.mark.parametrize("carry", [None, {"enabled": False}, {"enabled": True, "feature_ids": ["words"]}], ids=str)
def test_a_debt_that_nothing_carries_is_owed(desk: Desk, carry: Any) -> None:
    desk.world.feature("words")
    c = desk.holding(U(100))
    c.track(120)
    desk.switch(c, M(500), carry_over_balances=carry)
    assert ru(c) == (500, 0) and owed(c) == [20 * UNIT]


def test_a_debt_is_owed_where_no_new_bucket_can_have_it(desk: Desk) -> None:
    for buckets in ((UNLIMITED,), (M(5).of("words"),)):
        c = desk.holding(U(100))
        c.track(120)
        desk.switch(c, *buckets, carry_over_balances=ALL)
    assert owed(c) == [20 * UNIT, 20 * UNIT]


def test_a_debt_that_moves_as_usage_is_taken_once(desk: Desk) -> None:
    c = desk.holding(U(100))
    c.track(120)
    desk.switch(c, M(500), carry_over_balances=ALL, carry_over_usages=ALL)
    assert ru(c) == (380, 120) and owed(c) == []


def test_carried_usage_owes_only_what_goes_further(desk: Desk) -> None:
    c = desk.holding(U(100))
    c.track(120)
    desk.switch(c, U(10), carry_over_usages=ALL)
    assert c.bal() == -110 and owed(c) == []
    desk.api.advance_to(c.period_end())
    c.check()
    assert owed(c) == [110 * UNIT]


def test_both_carries_keep_usage_and_what_is_left(desk: Desk) -> None:
    c = desk.holding(M(100))
    c.track(30)
    desk.switch(c, M(500), carry_over_balances=ALL, carry_over_usages=ALL)
    assert ru(c) == (540, 30)


def test_each_bucket_leaves_its_rest_until_its_own_date(desk: Desk) -> None:
    c = desk.holding(M(100), L(40))
    c.track(110)
    due = c.period_end()
    desk.switch(c, M(5), carry_over_balances=ALL)
    assert ru(c) == (35, 0)
    c = desk.holding(M(100), L(40))
    c.track(10)
    due = c.period_end()
    desk.switch(c, M(5), carry_over_balances=ALL)
    assert ru(c) == (135, 0)
    desk.api.advance_to(due)
    assert ru(c) == (45, 0), "what had no date stays"


def test_what_is_left_of_a_feature_the_new_plan_lacks_is_a_grant_too(desk: Desk) -> None:
    c = desk.holding(M(100))
    c.track(30)
    desk.switch(c, M(5).of("words"), carry_over_balances=ALL)
    assert ru(c) == (70, 0)


def test_occupied_units_and_flags_are_not_left_over(desk: Desk) -> None:
    c = desk.holding(L(5).of("seats"), FLAG, UNLIMITED)
    c.track(3, "seats")
    desk.switch(c, L(10).of("seats"), carry_over_balances=ALL)
    assert ru(c, "seats") == (7, 3)
    features = c.api.balances(c.id)
    assert set(features) == {"seats"}


def test_nothing_left_makes_no_bucket(desk: Desk) -> None:
    c = desk.holding(M(10))
    c.track(10)
    desk.switch(c, M(5), carry_over_balances=ALL)
    assert len(rows(c)) == 1 and ru(c) == (5, 0)


def test_what_is_left_to_the_last_place(desk: Desk) -> None:
    c = desk.holding(M(D("0.3")))
    c.track(D("0.1"))
    desk.switch(c, M(D("0.000001")), carry_over_balances=ALL)
    assert ru(c) == (D("0.200001"), 0)


def test_an_entitys_own_plan_leaves_its_rest_to_the_entity(desk: Desk) -> None:
    desk.world.feature("seats", "continuous_use")
    c = desk.world.customer(desk.plan(L(9).of("seats"), group="seats"))
    c.entities("e1", "e2")
    desk.attach(c, desk.plan(M(100)), entity_id="e1")
    c.track(30, entity_id="e1")
    desk.attach(c, desk.plan(M(500)), entity_id="e1", carry_over_balances=ALL)
    assert c.ru(entity="e1") == (570, 0)
    assert "msg" not in c.api.get(f"/v1/customers/{c.id}/entities/e2")["features"]


def test_what_a_hold_has_is_counted_once(desk: Desk) -> None:
    c = desk.holding(M(100))
    c.check(40, lock={"enabled": True, "lock_id": "h1"})
    desk.switch(c, M(500), carry_over_balances=ALL, carry_over_usages=ALL)
    assert ru(c) == (520, 40)
    desk.api.post("/v1/balances.finalize", {"lock_id": "h1", "action": "release"})
    assert ru(c) == (560, 0)


def test_case_22_whole_packs_are_bought(desk: Desk) -> None:
    c = desk.holding(P(0, 1001, None).with_(billing_units=1000))
    assert ru(c) == (2000, 0)
