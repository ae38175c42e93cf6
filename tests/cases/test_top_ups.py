"""Worked cases, group Top-ups and prepaid: units bought beside units included."""

from __future__ import annotations

from tests.cases.world import Customer, L, M, P, World


def top_up(customer: Customer, quantity: int, price: int = 10, units: int = 100) -> None:
    """Buys units once, by a checkout paid on its page."""
    world = customer.world
    plan_id, _ = world.plan(P(0, None, None).with_(price=price, billing_units=units))
    quote = world.api.post("/v1/checkout", {
        "customer_id": customer.id, "product_id": plan_id, "options": [{"feature_id": "msg", "quantity": quantity}],
    })
    assert quote["total"] == quantity // units * price
    world.api.pay(quote["url"])


def test_case_17_month_and_top_up(world: World) -> None:
    c = world.holding(M(10))
    top_up(c, 200)  # $20
    c.track(5)
    shown = c.shown().fields
    assert [shown[n] for n in ("balance", "usage", "included_usage", "interval", "interval_count", "next_reset_at")] == [
        205, 5, 210, "multiple", None, None,
    ]
    assert [[p[n] for n in ("interval", "balance", "usage", "included_usage")] for p in shown["breakdown"]] == [
        ["month", 5, 5, 10], ["lifetime", 200, 0, 200],
    ]


def test_case_18_one_off_grant_and_top_up_never_reset(world: World) -> None:
    c = world.holding(L(10))
    top_up(c, 200)
    assert c.bal() == 210
    c.track(60)
    world.api.advance(400 * 86_400_000)
    assert c.bal() == 150
    shown = c.shown().fields
    assert (shown["interval"], shown["next_reset_at"]) == ("lifetime", None)


def test_case_19_reject_leaves_all_of_it(world: World) -> None:
    c = world.holding(P(2, 3))
    assert c.bal() == 5
    c.reject(7)
    assert c.bal() == 5
    c.track(4)
    shown = c.shown()
    assert shown.g == 2 + 3 and shown.v2(prepaid=3) == (1, 3, 4)


def test_case_20_prepaid_counts_in_a_check(world: World) -> None:
    c = world.holding(P(100, 500))
    assert c.allowed(599) and c.allowed(600) and not c.allowed(601)


def test_case_23_only_the_month_is_filled_again(world: World) -> None:
    c = world.holding(M(500))
    top_up(c, 200)
    c.track(400)
    assert [r for r, _ in c.parts()] == [100, 200]
    c.track(200)
    assert [r for r, _ in c.parts()] == [0, 100]
    world.api.advance_to(c.period_end())
    assert [r for r, _ in c.parts()] == [500, 100] and c.bal() == 600
