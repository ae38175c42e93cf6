"""The model gives the numbers of the worked cases of rollovers and resets.

Guarantee: each test is one worked case (or a few of one kind), with real quantities at precision 6.
"""

from __future__ import annotations

import pytest

from sidecar.domain.intervals import add_interval, code_of

from .account import FIRST_ROLLOVER
from .buckets import Bucket, RolloverRule, rollover_end
from .calls import DONE
from .features import Feature
from .walk import OVERFLOW
from .world import START, World, s

MONTH = code_of("month")


def seated(*entities: str, **model) -> World:
    w = World(Feature("msg"), Feature("seats", "continuous_use"), **model)
    for entity in entities:
        assert w.model.open_entity(entity, "seats") == DONE
    return w


def test_case_130_what_is_unspent_rolls_over_to_the_maximum():
    w = World()
    b = w.bucket(300, rolls=(12, 100))
    w.track(50)
    w.month_later()
    assert w.r() == 400 and w.rollovers(b) == [(100, 100)]


def test_case_131_the_oldest_is_trimmed_first():
    w = World()
    b = w.bucket(100, rolls=(12, 80))
    w.track(50)
    w.month_later()
    assert w.r() == 150 and w.rollovers(b) == [(50, 50)]
    w.month_later(2)
    assert w.r() == 180 and w.rollovers(b) == [(80, 80)]


def test_case_133_a_percentage_of_the_grant():
    w = World()
    b = w.bucket(100)
    w.find(b).rolls = RolloverRule(12, percent=50 * 10_000)
    w.track(60)
    w.month_later()
    assert w.r() == 140
    w.month_later(2)
    assert w.r() == 150


@pytest.mark.parametrize("looks", [(1, 2, 3), (3,)], ids=["case 134", "case 236"])
def test_idle_months_leave_a_row_each(looks):
    w = World()
    b = w.bucket(200, rolls=(12, None))
    for month in looks:
        w.month_later(month)
        w.r()
    assert w.r() == 800 and w.rollovers(b) == [(200, 200)] * 3


def test_case_136_a_rollover_is_spent_first():
    w = World()
    b = w.bucket(100)
    w.rollover(b, 30)
    w.track(10)
    assert w.rollovers(b) == [(20, 30)] and (w.r(), w.u(), w.left(b)) == (120, 10, 100)


def test_case_137_one_part_of_a_rollover():
    w = World()
    b = w.bucket(1000)
    w.rollover(b, 400)
    w.track(300)
    assert w.rollovers(b) == [(100, 400)] and w.left(b) == 1000


def test_case_139_each_entity_rolls_over_its_own():
    w = seated("e1", "e2")
    b = w.bucket(100, entity_feature="seats", rolls=(12, None))
    w.track(40, entity_id="e1")
    w.month_later()
    assert (w.r(), w.r(entity="e1"), w.r(entity="e2")) == (360, 160, 200)
    assert (w.rollovers(b, "e1"), w.rollovers(b, "e2")) == ([(60, 60)], [(100, 100)])
    w.track(70, entity_id="e1")
    assert w.find(b).slots == {"e1": s(90), "e2": s(100)}


def test_case_148_debts_are_forgiven_or_carried():
    for carried, r in ((True, 0), (False, 100)):
        w = World(persist_free_overage=carried)
        w.bucket(100)
        w.track(200, mode=OVERFLOW)
        w.month_later()
        assert w.bal() == r


def test_case_149_each_entitys_debt_is_carried():
    w = seated("e1", "e2", persist_free_overage=True)
    b = w.bucket(100, entity_feature="seats")
    w.track(300, mode=OVERFLOW, entity_id="e1"), w.track(130, mode=OVERFLOW, entity_id="e2")
    w.month_later()
    w.r()
    assert w.find(b).slots == {"e1": -s(100), "e2": s(70)}
    w.month_later(3)
    w.r()
    assert w.find(b).slots == {"e1": s(100), "e2": s(100)}


def test_case_151_one_rollover_however_many_look():
    w = World()
    b = w.bucket(400, rolls=(12, 500))
    w.track(200)
    w.month_later()
    for _ in range(5):
        w.track(10)
    assert (w.rollovers(b), w.left(b), w.r(), w.u()) == ([(150, 200)], 400, 550, 50)


# Beyond the cases


def test_rollovers_go_soonest_first_and_never_last_on_both_levels():
    w = seated("e1")
    shared, own = w.bucket(10), w.bucket(10, entity_id="e1")
    never, later = w.rollover(own, 1), w.rollover(own, 1, START + 9)
    soon, plain = w.rollover(shared, 1, START + 5), s(1)
    answer = w.model.track({"msg": 4 * plain}, entity_id="e1").features[0]
    assert [no for no, _, _ in answer.changes] == [soon, later, never, own]
    assert FIRST_ROLLOVER <= never


def test_a_plain_refund_gives_rollovers_nothing():
    w = World()
    b = w.bucket(100)
    w.rollover(b, 30)
    w.track(40), w.track(-40)
    assert w.rollovers(b) == [(0, 30)] and w.left(b) == 100
    w.track(-5, mode=OVERFLOW)
    assert w.left(b) == 105


def test_rollovers_end_on_the_anchors_day_and_before_the_trim():
    w = World()
    b = w.bucket(100, rolls=(2, 150))
    w.track(50)
    w.month_later(1)
    assert w.rollovers(b) == [] and w.r() == 150  # nobody had looked
    assert w.find(b).rollovers[0].expires_at == add_interval(START, MONTH, 1, 3)
    w.track(140)  # 50 of the rollover, 90 of the month
    w.month_later(2)
    assert w.r() == 110 and w.rollovers(b) == [(0, 50), (10, 10)]
    w.month_later(3)
    assert w.r() == 210 and w.rollovers(b) == [(10, 10), (100, 100)]


def test_a_row_for_ever_is_one_row():
    w = World()
    b = w.bucket(100, rolls=(0, 150))
    w.month_later(1)
    w.track(30)
    w.month_later(2)
    assert w.r() == 250 and len(w.rollovers(b)) == 1


@pytest.mark.parametrize(
    ("interval", "count", "resets", "months"), [("month", 1, 3, 4), ("quarter", 2, 2, 13), ("day", 1, 40, None)],
)
def test_the_end_of_a_rollover(interval, count, resets, months):
    anchor = 1_769_817_600_000  # 31 January
    bucket = Bucket(1, "msg", interval=code_of(interval), interval_count=count, anchor=anchor, rolls=RolloverRule(1))
    reset_at = add_interval(anchor, bucket.interval, count, resets)
    expected = add_interval(anchor, MONTH, 1, months) if months else add_interval(reset_at, MONTH, 1, 1)
    assert rollover_end(bucket, reset_at) == expected


def test_pay_per_use_bills_its_overage_whatever_is_carried():
    w = World(persist_free_overage=True)
    w.bucket(100, max=None, rolls=(1, None))
    w.track(150)
    w.month_later()
    assert w.bal() == 100 and [debt.units for debt in w.model.account.owed] == [s(50)]
