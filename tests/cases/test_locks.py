"""Worked cases on holds: locked, finalized at another value, released, twice at once."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.cases.world import E, H, L, M, U, UNLIMITED, Customer, World
from tests.http import Api

D = Decimal


def lock(c: Customer, amount: Any, feature: str = "msg", lock_id: str = "l", **fields: Any) -> Any:
    answer = c.check(amount, feature, lock={"enabled": True, "lock_id": lock_id}, **fields)
    assert answer["allowed"], answer
    assert answer["lock_id"] == lock_id and answer["id"].startswith("evt_")
    return answer


def finalize(api: Api, value: Any = None, lock_id: str = "l", action: str = "confirm") -> None:
    override = {} if value is None else {"override_value": value}
    assert api.post("/v1/balances.finalize", {"lock_id": lock_id, "action": action, **override}) == {"success": True}


def values(c: Customer) -> list[Any]:
    """What the customer's events say they asked for; each applied just that."""
    events = c.api.events(c.id)
    assert all(event["applied"] == event["requested"] for event in events)
    return [D(event["value"]) for event in events]


def hour_and_month(c: Customer) -> tuple[Any, Any]:
    hour, month = c.parts()
    return hour[0], month[0]


def rolls(c: Customer, feature: str = "msg") -> list[Any]:
    """What is left in each rollover, soonest-expiring first."""
    return [row["balance"] for row in c.shown(feature).fields["rollovers"]]


def total(c: Customer, feature: str = "msg") -> Any:
    fields = c.api.post("/v1/check", {"customer_id": c.id, "feature_id": feature}, headers={"x-api-version": "2.1"})
    return fields["balance"]["remaining"]


def test_case_178_confirming_less_gives_back_last_bucket_first(world: World) -> None:
    c = world.holding(H(5), M(10))
    lock(c, 8)
    assert hour_and_month(c) == (0, 7)
    finalize(world.api, 5)
    assert hour_and_month(c) == (0, 10) and c.ru() == (10, 5)
    assert values(c) == [8, -3]


def test_case_179_confirming_more_spends_the_extra_in_order(world: World) -> None:
    c = world.holding(H(5), M(10))
    lock(c, 8)
    finalize(world.api, 11)
    assert c.ru() == (4, 11) and values(c) == [8, 3]


def test_case_181_the_other_sign_undoes_the_hold_first(world: World) -> None:
    c = world.holding(H(5), M(10))
    c.track(5)
    lock(c, 8)
    assert c.ru()[0] == 2
    finalize(world.api, -3)
    assert c.ru()[0] == 13 and values(c) == [5, 8, -11]


@pytest.mark.parametrize(("final", "left"), [(-8, 13), (-3, 8), (3, 2)])
def test_case_182_a_negative_hold_is_a_refund(world: World, final: int, left: int) -> None:
    c = world.holding(H(5), M(10))
    c.track(10)
    lock(c, -5)
    assert c.ru()[0] == 10
    finalize(world.api, final)
    assert c.ru()[0] == left
    assert values(c) == [10, -5, final + 5]


def with_credits(world: World, action1: Any = 100, credits: Any = 200) -> Customer:
    world.credits()
    grants = [L(credits).of("credits")] + ([L(action1).of("action1")] if action1 else [])
    return world.holding(*grants)


@pytest.mark.parametrize(("final", "direct", "credits"), [(3, 2, 200), (12, 0, D("198.6")), (20, 0, 197)])
def test_cases_184_and_185_direct_units_before_credits(world: World, final: int, direct: int, credits: Any) -> None:
    """By what is confirmed: case 184 and case 185."""
    c = with_credits(world)
    c.track(95, "action1")
    lock(c, 8, "action1")
    assert (c.ru("action1")[0], c.ru("credits")[0]) == (0, D("199.4"))
    finalize(world.api, final)
    assert (c.ru("action1")[0], c.ru("credits")[0]) == (direct, credits)


@pytest.mark.parametrize(("final", "left", "difference"), [(20, 180, -10), (45, 155, 15)])
def test_case_187_a_hold_on_credits(world: World, final: int, left: int, difference: int) -> None:
    c = with_credits(world, 0)
    lock(c, 30, "credits")
    finalize(world.api, final)
    assert c.ru("credits")[0] == left and values(c) == [30, difference]


def test_case_188_decimals(world: World) -> None:
    c = with_credits(world)
    lock(c, D("27.89"), "action1")
    finalize(world.api, D("12.45"))
    assert c.ru("action1")[0] == D("87.55") and values(c) == [D("27.89"), D("-15.44")]


def rolling(world: World, months: int) -> Customer:
    c = world.holding(M(100, rollover={"duration": "month", "length": 12}))
    for _ in range(months):
        world.api.advance_to(c.period_end())
    return c


def test_case_190_rollovers_get_theirs_back(world: World) -> None:
    c = rolling(world, 2)
    assert rolls(c) == [100, 100]
    lock(c, 250)
    assert total(c) == 50 and rolls(c) == [0, 0]
    finalize(world.api, 80)
    assert rolls(c) == [20, 100] and total(c) == 220 and values(c) == [250, -170]


def test_case_191_confirming_more_than_rollover_and_hold(world: World) -> None:
    c = rolling(world, 1)
    lock(c, 30)
    assert rolls(c) == [70]
    finalize(world.api, 150)
    assert rolls(c) == [0] and total(c) == 50 and values(c) == [30, 120]


def test_case_193_a_switch_between(world: World) -> None:
    c = world.customer(world.plan(M(50), group="base"))
    lock(c, 40)
    c.attach(world.plan(M(80), group="base"))
    c.track(20)
    finalize(world.api, 30)
    assert c.ru()[0] == 70


def test_case_194_a_customer_hold_over_entities(world: World) -> None:
    c = world.holding(E(10))
    c.entities("e1", "e2")
    lock(c, 14)
    assert (c.ru(entity="e1")[0], c.ru(entity="e2")[0]) == (0, 6)
    finalize(world.api, 8)
    assert (c.ru(entity="e1")[0], c.ru(entity="e2")[0]) == (2, 10)
    assert c.ru()[0] == 12


def test_case_196_two_entities_at_once(world: World) -> None:
    c = world.holding(E(50), M(100))
    c.entities("e1", "e2")
    lock(c, 30, lock_id="one", entity_id="e1")
    lock(c, 20, lock_id="two", entity_id="e2")
    answers = world.api.together(*(
        ("POST", "/v1/balances.finalize", {"lock_id": name, "action": "confirm", "override_value": final})
        for name, final in (("one", 15), ("two", 25))
    ))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [c.parts(entity=entity)[0][0] for entity in ("e1", "e2")] == [35, 25]
    assert c.ru()[0] == 160


def test_case_197_of_two_confirms_at_once_one_counts(world: World) -> None:
    c = world.holding(H(5), M(10))
    lock(c, 8)
    body = {"lock_id": "l", "action": "confirm", "override_value": 4}
    answers = world.api.together(*[("POST", "/v1/balances.finalize", body)] * 2)
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert c.ru()[0] == 11


def test_case_200_a_live_lock_id_is_taken(world: World) -> None:
    c, other = world.holding(M(100)), world.holding(M(100))
    lock(c, 10)
    for who in (c, other):
        body = {"customer_id": who.id, "feature_id": "msg", "required_balance": 5, "lock": {"enabled": True, "lock_id": "l"}}
        world.api.refused("/v1/check", body, 409, "lock_already_exists")
    assert c.ru() == (90, 10) and other.ru() == (100, 0)


def test_case_202_holds_on_unlimited_are_events(world: World) -> None:
    c = world.holding(UNLIMITED)
    lock(c, 10)
    finalize(world.api)
    assert values(c) == [10]
    lock(c, 5, lock_id="m")
    finalize(world.api, lock_id="m", action="release")
    assert values(c) == [10, 5, -5]
    assert world.api.run(world.api.ctx.engine.view(c.id)).holds == {}


@pytest.mark.parametrize("fields", [{}, {"send_event": True}, {"lock": {"enabled": True, "lock_id": "l"}}], ids=str)
@pytest.mark.parametrize("required", [0, 1])
@pytest.mark.parametrize("version", ["1.2", "2.0", "2.1"])
def test_case_203_nothing_held(world: World, fields: dict[str, Any], required: int, version: str) -> None:
    world.feature("msg")
    c = world.customer()
    body = {"customer_id": c.id, "feature_id": "msg", "required_balance": required, **fields}
    answer = world.api.post("/v1/check", body, headers={"x-api-version": version})
    assert (answer["allowed"], answer["reason"]) == (False, "not_held")
    assert "id" not in answer and "event_id" not in answer and "lock_id" not in answer
    assert world.api.events(c.id) == []
    assert world.api.redis.keys("*:lock:*") == [], "the name is free again"


def test_case_238_undoing_a_negative_hold_never_goes_below_zero(world: World) -> None:
    c = world.holding(M(2))
    c.track(2)
    lock(c, -2)
    assert c.ru() == (2, 0)
    c.track(2)
    finalize(world.api, action="release")
    assert c.ru() == (0, 2)


@pytest.mark.parametrize("held", [False, True])
def test_case_238_a_member_of_whole_units_over_credits(world: World, held: bool) -> None:
    world.feature("calls", precision=0)
    world.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "calls", "credit_cost": 3}])
    c = world.holding(U(1).of("pool"))
    if held:
        lock(c, 2, "calls")
        finalize(world.api, 1)
    else:
        c.track(1, "calls")
    assert c.bal("pool") == -2


def test_case_230_a_release_across_a_reset_is_dropped(world: World) -> None:
    c = world.holding(M(100))
    world.api.advance_to(c.period_end() - 3_600_000)
    lock(c, 40)
    world.api.advance_to(c.period_end())
    finalize(world.api, action="release")
    assert c.ru() == (100, 0)


def test_case_231_a_release_across_a_reset_joins_the_rollover(world: World) -> None:
    c = world.holding(M(100, rollover={"max": 500, "duration": "month", "length": 1}))
    world.api.advance_to(c.period_end() - 3_600_000)
    lock(c, 40)
    world.api.advance_to(c.period_end())
    assert rolls(c) == [60] and total(c) == 160
    finalize(world.api, action="release")
    assert rolls(c) == [100] and total(c) == 200
