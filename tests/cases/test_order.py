"""Worked cases, group Order across buckets: who pays first, and who goes below zero."""

from __future__ import annotations

from tests.cases.world import H, L, M, P, U, World


def test_case_31_the_hour_before_the_month(world: World) -> None:
    c = world.holding(M(10), H(5))
    c.track(8)
    assert c.parts() == [(0, 5), (7, 3)]
    assert [p["interval"] for p in c.shown().fields["breakdown"]] == ["hour", "month"]


def test_case_34_main_before_add_on_month_before_lifetime(world: World) -> None:
    c = world.customer(world.add_on(L(200)), world.add_on(M(50)), world.plan(M(100)))
    c.track(120)
    assert c.ru() == (230, 120)
    assert c.parts() == [(0, 100), (30, 20), (200, 0)]


def test_cases_35_and_37_prepaid_before_pay_per_use(world: World) -> None:
    """In turn: case 35 and case 37."""
    c = world.holding(P(100, 500), U(200, extra=300))
    c.track(600)
    assert c.parts() == [(0, 600), (200, 0)]
    assert c.shown().v2(prepaid=500) == (200, 500, 600)
    c.track(400)
    assert c.ru() == (0, 1000)
    c.track(200)
    assert c.parts() == [(0, 600), (0, 500)], "case 37: only 100 fit"
    assert c.shown().v2(prepaid=500) == (0, 800, 1100)
    assert [e["applied"] // 10**6 for e in world.api.events(c.id)] == [600, 400, 100]


def test_case_38_the_pay_per_use_bucket_takes_what_is_beyond(world: World) -> None:
    world.credits()
    c = world.holding(P(5000, 5000).of("credits"), U(0).of("credits"))
    for value, bal, current, purchased in ((1000, 9000, 9000, 5000), (5000, 4000, 4000, 5000), (5000, -1000, 0, 6000)):
        c.track(value, "credits")
        shown = c.shown("credits")
        assert (shown.bal, shown.v2(prepaid=5000)[:2]) == (bal, (current, purchased))
    assert (shown.r, shown.u) == (0, 11000)
    assert shown.parts == [(0, 10000), (0, 1000)]


def test_case_40_the_plan_held_longer_pays_first(world: World) -> None:
    first, second = world.plan(M(100)), world.plan(M(100))
    c = world.customer(first)
    world.api.advance(5)
    c.attach(second)
    c.track(30)
    assert c.parts() == [(70, 30), (100, 0)]
