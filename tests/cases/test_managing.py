"""The worked cases of balances managed by hand, over HTTP, in both styles and generations."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from sync import tidy
from tests.cases.world import Bucket, Customer, E, L, M, P, U, World
from tests.http import DAY_MS, HOUR_MS

V2 = {"x-api-version": "2.1"}
UPDATE = ("/v1/balances/update", "/v1/balances.update")
each_style = pytest.mark.parametrize("path", UPDATE)


def update(c: Customer, path: str = UPDATE[1], feature: str = "msg", **fields: object) -> None:
    body = {"customer_id": c.id, "feature_id": feature, **fields}
    assert c.api.post(path, body, headers=V2) == {"success": True}


def refused(c: Customer, path: str, status: int, code: str, **fields: object) -> str:
    return c.api.refused(path, {"customer_id": c.id, "feature_id": "msg", **fields}, status, code, headers=V2)


def create(c: Customer, feature: str = "msg", **fields: object) -> None:
    assert c.api.post("/v1/balances.create", {"customer_id": c.id, "feature_id": feature, **fields}) == {"success": True}


def listed(c: Customer, version: str = "2.1", **fields: object) -> list[dict[str, object]]:
    body = {"customer_id": c.id, **fields}
    return list(c.api.post("/v1/balances.list", body, headers={"x-api-version": version})["list"])


def test_case_113_seats_are_set_below_zero(world: World) -> None:
    c = world.holding(L(5).of("seats"))
    update(c, feature="seats", remaining=2)
    assert (c.shown("seats").u, c.shown("seats").v2()[1]) == (3, 0)
    update(c, feature="seats", remaining=-5)
    assert c.shown("seats").v2() == (0, 5, 10)


@each_style
def test_case_157_set_remaining(world: World, path: str) -> None:
    c = world.holding(M(100))
    for remaining, usage in ((80, 20), (120, -20), (0, 100)):
        update(c, path, remaining=remaining)
        assert (c.bal(), c.shown().u, c.shown().g) == (remaining, usage, 100)


def test_case_157_by_the_older_route_and_by_usage(world: World) -> None:
    c = world.customer(world.plan(M(100), L(50).of("other")))
    balances = [{"feature_id": "msg", "balance": 80}, {"feature_id": "other", "balance": 7}]
    assert c.api.post(f"/v1/customers/{c.id}/balances", {"balances": balances}) == {"success": True}
    assert (c.ru(), c.ru("other")) == ((80, 20), (7, 43))
    assert c.api.post("/v1/usage", {"customer_id": c.id, "feature_id": "msg", "value": 90}) == {"success": True}
    assert c.ru() == (10, 90)


def test_case_158_chosen_by_interval(world: World) -> None:
    c = world.holding(M(100), L(200))
    update(c, remaining=50, interval="month")
    assert c.parts() == [(50, 50), (200, 0)]
    update(c, remaining=100, interval="one_off")
    assert c.parts() == [(50, 50), (100, 100)]
    refused(c, UPDATE[1], 404, "balance_not_found", remaining=1, interval="day")


def test_case_160_recalculate(world: World) -> None:
    c = world.holding(M(100), L(200))
    update(c, remaining=-30, interval="month")
    update(c, remaining=200, interval="one_off")
    assert c.bal() == 170
    for path in ("/v1/balances.recalculate", "/v1/balances/recalculate"):
        c.api.post(path, {"customer_id": c.id, "feature_id": "msg"})
        assert c.parts() == [(0, 100), (170, 30)]


def test_case_161_a_deleted_grant(world: World) -> None:
    world.plan(M(1))
    for again, expected in ((False, (200, 0)), (True, (160, 40))):
        c = world.customer()
        create(c, included_grant=100, balance_id="a")
        create(c, included_grant=200, balance_id="b")
        update(c, remaining=60, balance_id="a")
        c.api.post("/v1/balances.delete", {"customer_id": c.id, "balance_id": "a", "recalculate_balances": again})
        assert c.ru() == expected


def test_case_161_the_only_grant_stays_as_its_usage(world: World) -> None:
    world.plan(M(1))
    c = world.customer()
    create(c, included_grant=100, reset={"interval": "month"})
    c.track(40)
    c.api.post("/v1/balances/delete", {"customer_id": c.id, "feature_id": "msg", "recalculate_balances": True})
    for _ in range(2):
        shown = c.shown()
        assert (shown.bal, shown.u, shown.g, shown.overage, shown.fields["next_reset_at"]) == (-40, 40, 0, 40, None)
        c.api.advance(40 * DAY_MS)


def test_case_163_expiry(world: World) -> None:
    now = world.api.advance(0)
    c = world.holding(M(100))
    refused(c, UPDATE[1], 400, "invalid_inputs", expires_at=now - 1)
    update(c, expires_at=now + DAY_MS)
    assert c.shown().fields["breakdown"][0]["expires_at"] == now + DAY_MS
    paid = world.customer(world.plan(U(100)))
    assert "price" in refused(paid, UPDATE[1], 400, "invalid_inputs", expires_at=now + DAY_MS)
    c.api.advance(DAY_MS)
    assert c.check(1)["reason"] == "not_held"


def test_case_146_a_reset_date_of_ones_own(world: World) -> None:
    c = world.holding(M(50))
    at = c.api.advance(0) + 10 * DAY_MS
    update(c, next_reset_at=at)
    c.track(10)
    assert (c.bal(), c.period_end()) == (40, at)
    c.api.advance_to(at + 1)
    assert c.bal() == 50 and 28 * DAY_MS <= c.period_end() - at <= 31 * DAY_MS


def test_case_122_usage_of_all_entities(world: World) -> None:
    c = world.holding(E(100))
    c.entities("e1", "e2", "e3")
    update(c, usage=150)
    assert [c.bal(entity=e) for e in ("e1", "e2", "e3")] == [0, 50, 100] and c.ru() == (150, 150)


def test_case_167_entities_usage_set_beside_a_track(world: World) -> None:
    c = world.holding(E(100), L(200).of("credits"))
    c.entities("e1", "e2")
    body = {"customer_id": c.id, "feature_id": "msg"}
    answers = c.api.together(
        ("POST", "/v1/usage", {**body, "entity_id": "e1", "value": 30}),
        ("POST", "/v1/track", {"customer_id": c.id, "feature_id": "credits", "value": 3}),
        ("POST", "/v1/balances.update", {**body, "entity_id": "e2", "usage": 50}),
    )
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert (c.bal(entity="e1"), c.bal(entity="e2"), c.bal("credits")) == (70, 50, 197)


def test_case_166_updates_beside_tracks_lose_nothing(world: World) -> None:
    c = world.holding(M(1000), L(500))
    calls = []
    for number in range(40):
        calls.append(("POST", "/v1/track", {"customer_id": c.id, "feature_id": "msg", "value": 3}))
        calls.append(("POST", "/v1/balances.update", {"customer_id": c.id, "feature_id": "msg", "add_to_balance": number % 5 - 1}))
        calls.append(("POST", "/v1/check", {"customer_id": c.id, "feature_id": "msg", "required_balance": 2, "send_event": True}))
    assert {answer.status_code for answer in c.api.together(*calls)} == {200}
    assert c.bal() == 1500 - 40 * 3 - 40 * 2 + sum(number % 5 - 1 for number in range(40))


def test_a_grant_changes_with_its_balance(world: World) -> None:
    c = world.holding(M(100), L(10))
    c.track(30)
    update(c, included_grant=50)
    assert c.parts() == [(20, 30), (10, 0)]
    update(c, included_grant=5, interval="one_off")
    assert c.parts() == [(20, 30), (5, 0)]


def test_a_grant_of_what_was_bought_too(world: World) -> None:
    c = world.customer(world.plan(P(100, 500)))
    update(c, included_grant=10)
    assert (c.shown().g, c.bal()) == (510, 510)


def test_a_grant_per_entity_is_changed_for_every_entity(world: World) -> None:
    c = world.holding(E(100))
    c.entities("e1", "e2")
    c.track(90, entity_id="e1")
    update(c, included_grant=70)
    assert (c.bal(entity="e1"), c.bal(entity="e2"), c.bal()) == (-20, 70, 50)
    c.entities("e3")
    assert c.bal(entity="e3") == 70


def test_up_heals_refills_and_leaves_the_rest_on_the_first(world: World) -> None:
    c = world.holding(M(100), L(50))
    c.track(200, overage_behavior="overflow")
    assert c.bal() == -50
    for add, parts in ((60, [10, 0]), (100, [100, 10]), (60, [120, 50])):
        update(c, add_to_balance=add)
        assert [part["balance"] for part in c.shown().fields["breakdown"]] == parts


def test_an_entitys_call_takes_its_own_first_and_then_the_customers(world: World) -> None:
    c = world.holding(M(100), E(50))
    c.entities("e1", "e2")
    update(c, entity_id="e1", remaining=20)
    assert (c.bal(entity="e1"), c.bal(entity="e2"), c.bal()) == (20, 70, 70)
    update(c, entity_id="e1", remaining=200)
    assert (c.bal(entity="e1"), c.bal(entity="e2")) == (200, 150)


def test_loose_grants_are_spent_and_reset_as_their_terms_say(world: World) -> None:
    world.plan(M(1))
    c = world.customer()
    now = c.api.advance(0)
    create(c, included_grant=30, reset={"interval": "day", "interval_count": 2})
    create(c, included_grant=20, expires_at=now + 3 * DAY_MS)
    c.track(40)
    assert c.parts() == [(0, 30), (10, 10)]
    c.api.advance(2 * DAY_MS + HOUR_MS)
    assert c.parts() == [(30, 0), (10, 10)]
    c.api.advance(DAY_MS)
    assert c.parts() == [(30, 0)]


def test_a_loose_grant_rolls_over(world: World) -> None:
    world.plan(M(1))
    c = world.customer()
    create(c, included_grant=30, reset={"interval": "month"}, rollover={"max": 20, "expiry_duration_type": "forever"})
    c.track(5)
    c.api.advance(32 * DAY_MS)
    assert c.check(50)["allowed"] and not c.check(51)["allowed"]


def test_an_entitys_own_grant_ends_with_it(world: World) -> None:
    c = world.holding(M(10), L(0).of("seats"))
    c.entities("e1", "e2")
    create(c, included_grant=100, entity_id="e1", balance_id="mine")
    assert (c.bal(entity="e1"), c.bal(entity="e2"), c.bal()) == (110, 10, 110)
    c.track(50, entity_id="e1")
    update(c, add_to_balance=5, balance_id="mine")
    assert (c.bal(entity="e1"), c.bal(entity="e2")) == (65, 10)
    c.api.call("DELETE", f"/v1/customers/{c.id}/entities/e1")
    assert c.bal() == 10 and [one["id"] for one in listed(c, feature_id="msg")] == ["bkt_1"]
    create(c, included_grant=1, balance_id="mine")


def test_an_entitys_usage_is_spent_again_on_what_the_customer_has(world: World) -> None:
    c = world.holding(M(100), L(5).of("seats"))
    c.entities("e1")
    create(c, included_grant=50, entity_id="e1")
    c.track(30, entity_id="e1")
    c.api.post("/v1/balances.delete", {
        "customer_id": c.id, "feature_id": "msg", "entity_id": "e1", "recalculate_balances": True,
    })
    assert c.ru() == (70, 30)


def test_unlimited_by_hand(world: World) -> None:
    world.plan(M(1))
    c = world.customer()
    create(c, unlimited=True)
    c.track(7)
    assert c.allowed(10**6)
    assert refused(c, UPDATE[1], 400, "invalid_inputs", remaining=5)
    assert refused(c, UPDATE[1], 400, "invalid_inputs", included_grant=5)
    for usage in (12, 2**53 // 10**6 - 1):
        update(c, usage=usage)
        assert listed(c)[0]["usage"] == usage
        c.track(3)
        assert listed(c)[0]["usage"] == usage + 3


def test_a_flag_by_hand(world: World) -> None:
    world.plan(Bucket({"feature_id": "flag"}))
    c = world.customer()
    assert not c.allowed(feature="flag")
    create(c, "flag", balance_id="beta")
    assert c.allowed(feature="flag") and listed(c) == []
    c.api.post("/v1/balances.delete", {"customer_id": c.id, "balance_id": "beta"})
    assert not c.allowed(feature="flag")


def test_recalculate_leaves_priced_and_whole_balances_alone(world: World) -> None:
    c = world.customer(world.plan(M(100)), world.plan(U(10), is_add_on=True))
    c.track(150)
    c.api.post("/v1/balances.recalculate", {"customer_id": c.id, "feature_id": "msg"})
    assert [part["balance"] for part in c.shown().fields["breakdown"]] == [0, -40]


def test_several_features_are_set_together_or_not_at_all(world: World) -> None:
    c = world.customer(world.plan(M(100), L(50).of("other")))
    largest = (2**53 - 1) // 10**6
    create(c, included_grant=largest - 1000, feature="other")
    entry = {"feature_id": "msg", "balance": 1}
    path = f"/v1/customers/{c.id}/balances"
    body = {"balances": [entry, {"feature_id": "other", "balance": 10**12}]}
    assert "other" not in c.api.refused(path, body, 400, "invalid_inputs") and c.ru() == (100, 0)
    c.api.refused(path, {"balances": [entry, {"feature_id": "none", "balance": 1}]}, 404, "feature_not_found")
    c.api.refused(path, {"balances": [entry, entry]}, 400, "invalid_inputs")
    assert c.ru() == (100, 0)


def test_the_live_range_refuses_a_step_whole(world: World) -> None:
    world.plan(M(1), L(1).of("other"))
    c = world.customer()
    create(c, included_grant=100)
    create(c, "other", included_grant=100)
    largest = (2**53 - 1) // 10**6
    body = {"customer_id": c.id, "feature_id": "other", "add_to_balance": largest}
    answer = c.api.post("/v1/balances.update", body, 400)
    assert answer["code"] == "invalid_inputs" and c.ru("other") == (100, 0)
    both = [{"feature_id": "msg", "balance": 3}, {"feature_id": "other", "balance": largest}]
    c.api.post(f"/v1/customers/{c.id}/balances", {"balances": both})
    assert (c.bal(), c.bal("other")) == (3, largest)
    c.api.post("/v1/balances.update", {"customer_id": c.id, "feature_id": "other", "add_to_balance": 1}, 400)
    assert c.bal("other") == largest


def archive(c: Customer) -> None:
    """Lets used-up grants leave the hot state, as the worker does."""
    c.api.sync()

    def decide(conn: Connection) -> None:
        for cid, ops in tidy.used_up(conn, 0).ops.items():
            assert tidy.decide(conn, cid, ops, 0) == c.id

    c.api.ctx.store.write_sync(decide)
    c.api.run(c.api.ctx.engine.project(c.id))


@pytest.mark.parametrize("synced", [True, False])
def test_used_up_grants_that_left_the_hot_state_come_back(world: World, synced: bool) -> None:
    world.plan(M(1))
    c = world.customer()
    for _ in range(8):
        create(c, included_grant=10)
    c.track(75)
    archive(c)
    state = c.api.run(c.api.ctx.engine.view(c.id))
    assert state is not None and state.archived["msg", ""].count == 3 and c.ru() == (5, 75)
    if synced:
        c.api.sync()
    update(c, usage=10)
    assert c.ru() == (70, 10) and len(listed(c)) == 8
    c.track(65)
    archive(c)
    c.api.post("/v1/balances.delete", {"customer_id": c.id, "feature_id": "msg"})
    assert listed(c) == []


def test_case_32_the_grant_that_ends_first_pays_first(world: World) -> None:
    world.feature("msg")
    c = world.customer()
    now_ms = c.api.advance(1)
    for days in (365, 30):
        create(c, included_grant=100, expires_at=now_ms + days * DAY_MS)
    c.track(60)
    assert [balance for balance, _ in c.parts()] == [40, 100]
