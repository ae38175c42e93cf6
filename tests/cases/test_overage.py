"""Worked cases on overage: pay-as-you-go, limits, modes, and refunds, as far as they need no controls."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import select

from sidecar.store import tables
from tests.cases.world import H, L, M, P, U, World

D = Decimal


def owed(world: World) -> list[tuple]:
    world.api.sync()
    t = tables.ledger.c
    query = select(t.units, t.price, t.billing_units, t.amount).where(t.kind == "reset").order_by(t.gen, t.seq, t.line)
    return [tuple(row) for row in world.api.ctx.store.read_sync(lambda conn: conn.execute(query).all())]


def test_case_60_pay_as_you_go_owes_what_is_over(world: World) -> None:
    c = world.holding(U(1000, price=1, billing_units=1000))
    c.track(1200)
    shown = c.shown().fields
    assert [shown[n] for n in ("balance", "usage", "included_usage", "overage_allowed")] == [-200, 1200, 1000, True]
    world.api.advance_to(c.period_end())
    assert c.ru() == (1000, 0)
    assert owed(world) == [("200", "1", "1000", "0.2")]


def test_case_61_usage_follows_on_to_pay_as_you_go(world: World) -> None:
    group = {"group": "base"}
    c = world.customer(world.plan(M(1000), **group))
    c.track(1000)
    assert not c.allowed()
    c.attach(world.plan(U(1000, reset_usage_when_enabled=False), **group))
    assert c.bal() == 0 and c.allowed()
    c.track(200)
    assert c.bal() == -200


def test_case_62_cap_applies_what_fits(world: World) -> None:
    c = world.holding(M(100))
    c.track(130)
    assert c.ru() == (0, 100)
    (event,) = world.api.events(c.id)
    assert (event["value"], event["requested"], event["applied"]) == ("130", 130_000_000, 100_000_000)


def test_case_64_a_usage_limit_is_a_floor(world: World) -> None:
    c = world.holding(U(100, extra=50))
    c.track(200)
    assert c.shown().u == 150
    c.reject(1)


def test_case_65_check_counts_to_the_usage_limit(world: World) -> None:
    c = world.holding(U(100, extra=400))
    assert c.allowed(500) and not c.allowed(501)
    shown = c.shown().fields
    assert (shown["usage_limit"], shown["overage_allowed"]) == (500, False)


def test_case_73_the_free_bucket_does_not_go_negative(world: World) -> None:
    """Without the control: a bucket that allows overage natively makes it moot."""
    c = world.holding(L(100), U(0, extra=50))
    c.track(200)
    assert c.shown().u == 150
    assert dict(c.parts()) == {0: 50} or c.parts() == [(0, 50), (0, 100)]


def test_case_74_free_seats_end_in_a_check(world: World) -> None:
    """The part without controls."""
    world.feature("seats", "continuous_use")
    c = world.holding(L(5).of("seats"))
    c.track(5, "seats")
    assert not c.allowed(feature="seats")


def test_case_77_overflow_goes_below_zero(world: World) -> None:
    c = world.holding(M(100))
    c.track(150, overage_behavior="overflow")
    assert c.ru() == (0, 150) and c.bal() == -50
    assert not c.allowed()
    c.track(10)
    assert c.bal() == -50


def test_case_82_pay_per_use_fits_a_rejecting_track(world: World) -> None:
    """The numbers of case 82 with no limit at all."""
    c = world.holding(U(100))
    c.track(120)
    c.track(10, overage_behavior="reject")
    assert c.shown().u == 130


def test_case_148_a_free_debt_is_forgiven_at_the_reset(world: World) -> None:
    c = world.holding(M(100))
    c.track(200, overage_behavior="overflow")
    assert c.bal() == -100
    world.api.advance_to(c.period_end())
    assert c.bal() == 100


def test_case_152_refunds_stop_at_the_grant(world: World) -> None:
    c = world.holding(M(100))
    c.track(30)
    c.track(-10)
    assert c.ru() == (80, 20)
    c.track(-50)
    assert c.ru() == (100, 0)
    assert [e["applied"] // 10**6 for e in world.api.events(c.id)] == [30, -10, -20]


def test_case_154_a_refund_heals_the_debt_and_leaves_the_full(world: World) -> None:
    c = world.holding(M(50), U(0))
    c.track(90)
    c.api.advance(1)
    assert c.parts() == [(0, 50), (0, 40)]
    c.track(-30)
    assert [p["balance"] for p in c.shown().fields["breakdown"]] == [0, -10]


def test_case_154_with_a_full_sibling(world: World) -> None:
    c = world.holding(U(0))
    c.track(40)
    c.attach(world.plan(M(100)))
    c.track(-30)
    assert [p["balance"] for p in c.shown().fields["breakdown"]] == [100, -10]


def test_case_155_what_is_beyond_the_grant_is_dropped(world: World) -> None:
    c = world.holding(P(0, 300))
    c.track(300)
    c.track(-500)
    assert c.ru() == (300, 0)
    assert world.api.events(c.id)[-1]["applied"] == -300_000_000


def test_a_refund_walks_forward_over_several_buckets(world: World) -> None:
    c = world.holding(H(5), M(10), L(20))
    c.track(30)
    assert [r for r, _ in c.parts()] == [0, 0, 5]
    c.track(-12)
    assert [r for r, _ in c.parts()] == [5, 7, 5]


def test_case_215_nothing_is_always_allowed_of_what_is_held(world: World) -> None:
    c = world.holding(M(1))
    c.track(1)
    assert c.allowed(0) and c.allowed(-1) and not c.allowed(1)
    assert c.allowed(0, send_event=True) and c.bal() == 0


def test_case_203_nothing_held_is_never_allowed(world: World) -> None:
    """Without a lock."""
    c = world.holding(M(1))
    world.feature("other")
    for required in (0, 1, -1, 100):
        for send in (False, True):
            answer = c.check(required, "other", send_event=send)
            assert (answer["allowed"], answer["reason"]) == (False, "not_held")
            assert "balance" not in answer and "id" not in answer
    assert world.api.events(c.id) == []


def test_case_227_a_thousandth_more_or_less(world: World) -> None:
    """The balance of case 227; its signals are not built."""
    c = world.holding(M(1))
    c.track(D("0.999"))
    assert c.bal() == D("0.001") and c.allowed(D("0.001"))
    c.track(D("0.001"))
    assert c.bal() == 0 and not c.allowed(D("0.001"))


def test_a_tenth_and_two_tenths_leave_exactly_what_is_left(world: World) -> None:
    c = world.holding(M(1))
    c.track(D("0.1"))
    c.track(D("0.2"))
    assert c.allowed(D("0.7"), send_event=True)
    assert c.ru() == (0, 1)


def test_float_noise_is_rounded_to_the_precision(world: World) -> None:
    c = world.holding(M(1))
    c.track(D("0.30000000000000004"))
    assert c.bal() == D("0.7")
    assert world.api.events(c.id)[0]["value"] == "0.30000000000000004", "the log keeps the value as it was sent"
