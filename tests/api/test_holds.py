"""Holds over HTTP: what may be held and for how long, who has a name, keys, ends, and races."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Callable, Iterator

import pytest

from sidecar.engine import holds, keys
from tests.http import DAY_MS, HOUR_MS, WAYS, Api, audit

CHECK, TRACK, FINALIZE = "/v1/check", "/v1/track", "/v1/balances.finalize"
REPLAYED = "idempotency-replayed"
VERSIONS = ["1.2", "2.0", "2.1", "2.3"]
ROUNDS = 50 // len(WAYS)
"""Of each race, 50 over both ways in."""


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    module_api.feature("msg")
    module_api.feature("calls", precision=0)
    module_api.feature("seats", "continuous_use")
    module_api.feature("flag", "boolean")
    module_api.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "calls", "credit_cost": 2}])
    grants = [{"feature_id": name, "included_usage": 100} for name in ("msg", "seats", "pool")]
    for plan_id, included in (("hourly", 50), ("hourly-more", 80)):
        item = {"feature_id": "calls", "included_usage": included, "interval": "hour"}
        module_api.plan(plan_id, item, group="hourly")
    module_api.plan("base", *grants, {"feature_id": "flag"}, is_default=True)
    return module_api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


@pytest.fixture
def c(api: Api) -> str:
    return api.customer()


names = iter(f"lock-{number}" for number in range(1_000_000))


def lock(api: Api, c: str, amount: Any = 10, lock_id: str | None = None, feature: str = "msg", **fields: Any) -> str:
    """Holds units; the lock id."""
    asked = {"enabled": True, "lock_id": lock_id or next(names), **fields}
    answer = api.check(c, feature, amount, lock=asked)
    assert answer["allowed"] and answer["lock_id"] == asked["lock_id"]
    return str(asked["lock_id"])


def settle(lock_id: str, action: str = "confirm", value: Any = None) -> dict[str, Any]:
    return {"lock_id": lock_id, "action": action, **({} if value is None else {"override_value": value})}


def left(api: Api, c: str, feature: str = "msg") -> Any:
    return api.balances(c)[feature]["balance"]


# What may be held ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", [CHECK, "/v1/entitled", "/v1/balances.check"])
def test_a_hold_answers_as_a_check_with_its_name_and_end(api: Api, c: str, version: str, path: str) -> None:
    body = {"customer_id": c, "feature_id": "msg", "required_balance": 10, "lock": {"enabled": True}}
    answer = api.post(path, body, headers={"x-api-version": version})
    assert answer["allowed"] and answer["lock_id"].startswith("lock_")
    assert answer["id" if version == "1.2" else "event_id"].startswith("evt_")
    now_ms = api.run(api.ctx.clock.now_ms())
    assert abs(answer["expires_at"] - now_ms - DAY_MS) < 10_000
    again = api.post(path, body, headers={"x-api-version": version})
    assert again["lock_id"] != answer["lock_id"]
    assert left(api, c) == 80


@pytest.mark.parametrize("version", VERSIONS)
def test_a_track_with_a_lock_is_the_same_answered_as_a_track(api: Api, c: str, version: str) -> None:
    body = {"customer_id": c, "feature_id": "msg", "value": 10, "lock": {"enabled": True, "lock_id": next(names)}}
    answer = api.post(TRACK, body, headers={"x-api-version": version})
    assert answer["lock_id"] == body["lock"]["lock_id"] and answer["expires_at"] > 0
    if version == "1.2":
        assert answer["code"] == "event_received" and answer["id"].startswith("evt_")
    else:
        assert answer["value"] == 10 and answer["event_id"].startswith("evt_")
    assert left(api, c) == 90
    api.post(FINALIZE, settle(answer["lock_id"], "release"))
    assert left(api, c) == 100


def test_a_track_with_a_lock_that_does_not_fit_is_refused(api: Api, c: str) -> None:
    body = {"customer_id": c, "feature_id": "msg", "value": 101, "lock": {"enabled": True, "lock_id": next(names)}}
    answer = api.post(TRACK, body, 400)
    assert answer["code"] == "insufficient_balance" and "insufficient_balance" in answer["message"]
    for mode in ("cap", "overflow"):
        api.refused(TRACK, {**body, "overage_behavior": mode}, 400, "invalid_inputs")
    assert left(api, c) == 100


@pytest.mark.parametrize("version", VERSIONS)
def test_a_denied_hold_says_why_and_leaves_the_name_free(api: Api, c: str, version: str) -> None:
    name = next(names)
    body = {"customer_id": c, "feature_id": "msg", "required_balance": 101, "lock": {"enabled": True, "lock_id": name}}
    answer = api.post(CHECK, body, headers={"x-api-version": version})
    assert (answer["allowed"], answer["reason"]) == (False, "insufficient_balance")
    assert "lock_id" not in answer and "id" not in answer and "event_id" not in answer
    lock(api, c, 10, name)
    assert left(api, c) == 90


def test_held_by_others_is_a_reason(api: Api, c: str) -> None:
    lock(api, c, 60)
    for fields in ({}, {"send_event": True}, {"lock": {"enabled": True, "lock_id": next(names)}}):
        assert api.check(c, "msg", 50, **fields)["reason"] == "held_by_others"
    assert api.check(c, "msg", 101)["reason"] == "insufficient_balance"
    shown = api.balances(c)["msg"]
    assert (shown["balance"], shown["usage"], shown["held"]) == (40, 60, 60)


@pytest.mark.parametrize("feature", ["flag", "seats"])
@pytest.mark.parametrize("path", [CHECK, TRACK])
def test_only_what_is_used_up_can_be_held(api: Api, c: str, feature: str, path: str) -> None:
    message = api.refused(
        path, {"customer_id": c, "feature_id": feature, "lock": {"enabled": True, "lock_id": "l"}}, 400, "invalid_inputs"
    )
    assert message.startswith("lock: ")


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("yes", "lock"), ([], "lock"), ({"enabled": "yes"}, "lock.enabled"), ({"enabled": True, "lock_id": ""}, "lock.lock_id"),
        ({"enabled": True, "lock_id": 5}, "lock.lock_id"), ({"enabled": True, "lock_id": "x" * 257}, "lock.lock_id"),
        ({"enabled": True, "lock_id": "a\0b"}, "lock.lock_id"), ({"enabled": True, "expires_at": "soon"}, "lock.expires_at"),
        ({"enabled": True, "expires_at": True}, "lock.expires_at"), ({"enabled": True, "expires_at": 1}, "lock.expires_at"),
        ({"enabled": True, "expires_at": 0}, "lock.expires_at"), ({"enabled": True, "expires_at": 1 << 60}, "lock.expires_at"),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", [CHECK, TRACK])
def test_a_lock_that_is_none(api: Api, c: str, path: str, asked: Any, name: str) -> None:
    message = api.refused(path, {"customer_id": c, "feature_id": "msg", "lock": asked}, 400, "invalid_inputs")
    assert message.startswith(name + ":")


def test_a_name_of_256_characters(api: Api, c: str) -> None:
    name = lock(api, c, 10, "ü" * 256)
    api.post(FINALIZE, settle(name, "release"))


@pytest.mark.parametrize("asked", [{}, {"enabled": False}, {"enabled": False, "lock_id": "l"}, {"lock_id": None}], ids=str)
def test_a_lock_that_is_not_enabled_is_none(api: Api, c: str, asked: dict[str, Any]) -> None:
    assert "lock_id" not in api.check(c, "msg", 10, lock=asked)
    assert left(api, c) == 100


def test_a_hold_is_on_a_feature_not_on_a_plan(api: Api, c: str) -> None:
    body = {"customer_id": c, "product_id": "base", "lock": {"enabled": True}}
    assert api.refused(CHECK, body, 400, "invalid_inputs").startswith("lock")


def test_how_long_a_hold_may_last(api: Api, c: str) -> None:
    now_ms = api.run(api.ctx.clock.now_ms())
    for expires_at in (now_ms - 1, now_ms + DAY_MS + 60_000):
        body = {"customer_id": c, "feature_id": "msg", "lock": {"enabled": True, "expires_at": expires_at}}
        assert api.refused(CHECK, body, 400, "invalid_inputs").startswith("lock.expires_at")
    ends = now_ms + HOUR_MS
    assert api.check(c, "msg", 1, lock={"enabled": True, "expires_at": ends})["expires_at"] == ends


def test_nothing_required_is_an_empty_hold(api: Api, c: str) -> None:
    name = lock(api, c, 0)
    api.post(FINALIZE, settle(name, "confirm", 7))
    assert left(api, c) == 93
    api.post(FINALIZE, settle(lock(api, c, 0), "release"))
    assert left(api, c) == 93


def test_below_2_1_a_hold_makes_the_customer(api: Api) -> None:
    asked = {"enabled": True, "lock_id": next(names)}
    body = {"customer_id": f"new-{next(names)}", "feature_id": "msg", "required_balance": 10, "lock": asked}
    api.refused(CHECK, body, 404, "customer_not_found", headers={"x-api-version": "2.1"})
    assert api.post(CHECK, body)["allowed"]
    assert left(api, body["customer_id"]) == 90


# Finalizing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("action", "value", "remains"), [("confirm", None, 90), ("confirm", 4, 96), ("release", None, 100)])
def test_a_hold_ends_once(api: Api, c: str, version: str, action: str, value: Any, remains: int) -> None:
    name = lock(api, c)
    headers = {"x-api-version": version}
    assert api.post(FINALIZE, settle(name, action, value), headers=headers) == {"success": True}
    for again in ("confirm", "release"):
        told = api.refused(FINALIZE, settle(name, again), 409, "lock_already_finalized", headers=headers)
        assert name in told and ("released" if action == "release" else f"confirmed before at {value or 10}") in told
    assert left(api, c) == remains


def test_a_name_can_be_used_again_once_its_hold_has_ended(api: Api, c: str) -> None:
    other = api.customer()
    name = lock(api, c)
    api.post(FINALIZE, settle(name))
    assert lock(api, other, 20, name) == name
    assert left(api, other) == 80
    api.post(FINALIZE, settle(name, "release"))
    assert (left(api, c), left(api, other)) == (90, 100)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"action": "confirm"}, "lock_id"), ({"lock_id": 5, "action": "confirm"}, "lock_id"), ({"lock_id": "l"}, "action"),
        ({"lock_id": "l", "action": "keep"}, "action"), ({"lock_id": "l", "action": ["confirm"]}, "action"),
        ({"lock_id": "l", "action": "confirm", "override_value": "5"}, "override_value"),
        ({"lock_id": "l", "action": "release", "override_value": 5}, "override_value"),
        ({"lock_id": "x" * 257, "action": "confirm"}, "lock_id"),
    ],
    ids=str,
)
def test_a_finalize_that_is_none(api: Api, body: dict[str, Any], name: str) -> None:
    assert api.refused(FINALIZE, body, 400, "invalid_inputs").startswith(name)


def test_a_value_the_feature_cannot_hold(api: Api, c: str) -> None:
    name = lock(api, c, 2, feature="calls")
    for value in (1 << 53, -(1 << 53)):
        assert api.refused(FINALIZE, settle(name, "confirm", value), 400, "invalid_inputs").startswith("override_value")
    api.post(FINALIZE, settle(name, "release"))
    assert left(api, c, "pool") == 100


def test_a_hold_never_known(api: Api) -> None:
    for action in ("confirm", "release"):
        assert "never" in api.refused(FINALIZE, settle("never", action), 404, "lock_not_found")


def test_after_its_end_a_hold_cannot_be_settled(api: Api, c: str) -> None:
    name = lock(api, c, expires_at=api.run(api.ctx.clock.now_ms()) + HOUR_MS)
    assert left(api, c) == 90
    api.advance(HOUR_MS + 1000)
    assert left(api, c) == 100, "it went back although nobody settled it"
    for action in ("confirm", "release"):
        api.refused(FINALIZE, settle(name, action), 410, "lock_expired")
    assert [event["value"] for event in api.events(c)] == ["10", "-10"]
    lock(api, c, 20, name)
    assert left(api, c) == 80


def test_a_late_finalize_ends_the_hold_itself(api: Api, c: str) -> None:
    name = lock(api, c, expires_at=api.run(api.ctx.clock.now_ms()) + 300)
    api.run(asyncio.sleep(0.4))
    assert left(api, c) == 90
    assert api.post(FINALIZE, settle(name), 410, headers={"idempotency-key": "late"})["code"] == "lock_expired"
    assert left(api, c) == 100
    api.refused(FINALIZE, settle(name), 410, "lock_expired")


def test_a_setting_bounds_the_life_of_holds(make_short: Callable[[], Api]) -> None:
    api = make_short()
    c = api.customer()
    answer = api.check(c, "msg", 1, lock={"enabled": True})
    assert abs(answer["expires_at"] - api.run(api.ctx.clock.now_ms()) - 60_000) < 10_000
    body = {"customer_id": c, "feature_id": "msg", "lock": {"enabled": True, "expires_at": answer["expires_at"] + 30_000}}
    api.refused(CHECK, body, 400, "invalid_inputs")


@pytest.fixture
def make_short(module_apps: Callable[..., Api], seller: Api) -> Callable[[], Api]:
    return lambda: module_apps(hold_max_s=60)


@pytest.mark.parametrize(("value", "remains"), [(25, 75), (5, 95), (None, 90), (-5, 100)])
def test_an_entity_deleted_since(api: Api, c: str, value: Any, remains: int) -> None:
    api.entity(c, "e", "seats")
    name = next(names)
    api.check(c, "msg", 10, entity_id="e", lock={"enabled": True, "lock_id": name})
    api.call("DELETE", f"/v1/customers/{c}/entities/e")
    api.post(FINALIZE, settle(name, "confirm", value))
    assert left(api, c) == remains


def test_a_deleted_customers_hold_is_gone(api: Api, c: str) -> None:
    name = lock(api, c)
    api.call("DELETE", f"/v1/customers/{c}")
    api.refused(FINALIZE, settle(name), 404, "lock_not_found")
    other = api.customer()
    api.advance(61_000)
    lock(api, other, 5, name)
    assert left(api, other) == 95


# Where Redis has lost something -------------------------------------------------------------------


def forget_directory(api: Api, name: str) -> None:
    assert api.redis.delete(keys.lock(api.ctx.engine.partition_of(name), name)) == 1


def evict(api: Api, c: str) -> None:
    api.sync()
    engine = api.ctx.engine
    last = api.redis.xinfo_stream(keys.log(engine.partition_of(c)))["last-generated-id"]
    assert api.run(engine.evict(c, *map(int, last.split(b"-"))))


def test_sql_knows_whose_hold_a_name_is(api: Api, c: str) -> None:
    name = lock(api, c)
    evict(api, c)
    forget_directory(api, name)
    api.post(FINALIZE, settle(name, "confirm", 4))
    assert left(api, c) == 96


def test_sql_knows_what_became_of_a_hold(api: Api, c: str) -> None:
    outcomes = {}
    for action in ("confirm", "release"):
        name = outcomes[action] = lock(api, c)
        api.post(FINALIZE, settle(name, action))
    api.sync()
    for action, name in outcomes.items():
        forget_directory(api, name)
        assert api.redis.delete(keys.settled(api.ctx.engine.partition_of(c), name)) == 1
        told = api.refused(FINALIZE, settle(name), 409, "lock_already_finalized")
        assert ("released" if action == "release" else "confirmed before at 10") in told


def test_the_hold_of_an_evicted_customer_is_live(api: Api, c: str) -> None:
    name = lock(api, c)
    evict(api, c)
    body = {"customer_id": api.customer(), "feature_id": "msg", "lock": {"enabled": True, "lock_id": name}}
    api.refused(CHECK, body, 409, "lock_already_exists")
    evict(api, c)
    api.post(FINALIZE, settle(name, "release"))
    assert left(api, c) == 100


def test_a_claim_without_a_hold_is_void_after_a_while(api: Api, c: str) -> None:
    engine, name = api.ctx.engine, next(names)
    feature = api.ctx.catalog.current.features["msg"]
    entry = holds.msgpack.packb([c, feature.id, "", api.run(engine.now_ms())])
    api.redis.set(keys.lock(engine.partition_of(name), name), entry, px=DAY_MS)
    body = {"customer_id": c, "feature_id": "msg", "lock": {"enabled": True, "lock_id": name}}
    api.refused(CHECK, body, 409, "lock_already_exists")
    api.refused(FINALIZE, settle(name), 404, "lock_not_found")
    api.advance(60_001)
    lock(api, c, 10, name)


def test_after_redis_lost_all_open_holds_keep_their_names(api: Api, c: str) -> None:
    name = lock(api, c)
    api.sync()
    api.redis.flushall()
    api.run(api.ctx.engine.open_partitions([]))
    body = {"customer_id": api.customer(), "feature_id": "msg", "lock": {"enabled": True, "lock_id": name}}
    assert api.post(CHECK, body, 409)["code"] == "lock_already_exists"
    fresh = {**body, "lock": {"enabled": True, "lock_id": next(names)}}
    assert api.post(CHECK, fresh)["allowed"]
    assert left(api, c) == 90
    api.post(FINALIZE, settle(name))
    assert left(api, c) == 90


# Keys ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["given", None])
@pytest.mark.parametrize("path", [CHECK, TRACK])
def test_a_repeated_hold_gets_the_first_answer(api: Api, c: str, path: str, name: str | None) -> None:
    asked = {"enabled": True, **({"lock_id": next(names)} if name else {})}
    amount = {"required_balance": 10} if path == CHECK else {"value": 10}
    body = {"customer_id": c, "feature_id": "msg", "lock": asked, "idempotency_key": "k", **amount}
    first = api.post(path, body)
    again = api.raw("POST", path, body)
    assert again.status_code == 200 and again.json() == first and again.headers[REPLAYED] == "true"
    assert left(api, c) == 90
    api.post(FINALIZE, settle(first["lock_id"], "release"))
    assert api.raw("POST", path, body).json() == first
    assert left(api, c) == 100
    api.refused(FINALIZE, settle(first["lock_id"]), 409, "lock_already_finalized")


def test_another_call_under_a_holds_key(api: Api, c: str) -> None:
    name = lock(api, c)
    body = {"customer_id": c, "feature_id": "msg", "idempotency_key": "k", "lock": {"enabled": True, "lock_id": next(names)}}
    api.post(CHECK, body)
    for other in (
        {"lock": {"enabled": True}}, {"lock": {"enabled": True, "lock_id": next(names)}}, {"lock": None, "send_event": True},
        {"lock": {"enabled": True, "lock_id": body["lock"]["lock_id"], "expires_at": api.run(api.ctx.clock.now_ms()) + HOUR_MS}},
    ):
        assert api.post(CHECK, {**body, **other}, 409)["code"] == "duplicate_idempotency_key"
    taken = {**body, "idempotency_key": "free", "lock": {"enabled": True, "lock_id": name}}
    api.refused(CHECK, taken, 409, "lock_already_exists")


@pytest.mark.parametrize(("action", "value"), [("confirm", None), ("confirm", 4), ("confirm", 15), ("release", None)])
def test_a_repeated_finalize_gets_the_first_answer(api: Api, c: str, action: str, value: Any) -> None:
    name = lock(api, c)
    body = settle(name, action, value)
    key = {"idempotency-key": f"k-{name}"}
    first = api.raw("POST", FINALIZE, body, headers=key)
    assert first.status_code == 200 and REPLAYED not in first.headers
    with api.nothing_changes():
        again = api.raw("POST", FINALIZE, body, headers=key)
    assert (again.status_code, again.json(), again.headers[REPLAYED]) == (200, {"success": True}, "true")
    other = settle(name, "release" if action == "confirm" else "confirm")
    api.refused(FINALIZE, other, 409, "duplicate_idempotency_key", headers=key)
    api.refused(FINALIZE, body, 409, "lock_already_finalized")


# Races --------------------------------------------------------------------------------------------


def test_of_many_finalizes_exactly_one_counts(api: Api, c: str) -> None:
    for _ in range(5):
        name = lock(api, c)
        before = left(api, c)
        wanted = [("confirm", value) for value in range(1, 13)] + [("release", None)] * 4
        random.shuffle(wanted)
        answers = api.together(*(("POST", FINALIZE, settle(name, *one)) for one in wanted))
        won = [one for one, answer in zip(wanted, answers) if answer.status_code == 200]
        assert len(won) == 1 and all(answer.status_code in (200, 409) for answer in answers)
        assert left(api, c) == before + 10 - (won[0][1] or 0)


def test_of_many_holds_of_one_name_exactly_one_is_made(api: Api) -> None:
    for _ in range(5):
        name, who = next(names), [api.customer() for _ in range(6)]
        calls = [
            ("POST", CHECK, {"customer_id": c, "feature_id": "msg", "required_balance": 10, "lock": {"enabled": True, "lock_id": name}})
            for c in who
        ]
        answers = api.together(*calls)
        assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5
        assert sorted(left(api, c) for c in who) == [90] + [100] * 5
        api.post(FINALIZE, settle(name, "release"))


def test_no_more_holds_than_units(api: Api, c: str) -> None:
    calls = [
        ("POST", CHECK, {"customer_id": c, "feature_id": "msg", "required_balance": 7, "lock": {"enabled": True}})
        for _ in range(30)
    ]
    answers = [answer.json() for answer in api.together(*calls)]
    assert sum(answer["allowed"] for answer in answers) == 14
    assert {answer["reason"] for answer in answers if not answer["allowed"]} == {"held_by_others"}
    assert left(api, c) == 2


def test_confirm_release_and_expiry_at_once(api: Api, c: str) -> None:
    engine = api.ctx.engine

    async def all_at_once(name: str, ends: int) -> list[Any]:
        await asyncio.sleep((ends - await engine.now_ms()) / 1000 + random.uniform(-0.03, 0.005))

        async def expire() -> bool:
            for _ in range(200):
                if await holds.expire_hold(engine, c, name):
                    return True
                await asyncio.sleep(0.001)
            return False

        return list(await asyncio.gather(
            api.send("POST", FINALIZE, settle(name, "confirm", 3)), api.send("POST", FINALIZE, settle(name, "release")),
            *([expire()] if random.random() < 0.7 else []),
        ))

    seen = set()
    for _ in range(ROUNDS):
        began_ms = api.run(engine.now_ms())
        before = left(api, c)
        now_ms = api.run(engine.now_ms())
        ends = now_ms + 60 + 5 * (now_ms - began_ms)  # so that the hold is there before it ends, however slow the machine
        name = lock(api, c, 10, expires_at=ends)
        confirmed, released, *_ = api.run(all_at_once(name, ends))
        outcome = (confirmed.status_code, released.status_code)
        seen.add(outcome)
        assert outcome in ((200, 409), (409, 200), (410, 410)), (outcome, confirmed.text, released.text)
        assert left(api, c) == (before - 3 if confirmed.status_code == 200 else before)
        if left(api, c) < 20:
            c = api.customer()
    assert len(seen) > 1, "the race had more than one winner over the rounds"


def test_settlements_switches_resets_and_tracks_at_once(api: Api) -> None:
    """Whatever the order, one of confirm and release counts, and what is left is what some order
    leaves; the audit at the end compares both stores."""
    for round_ in range(ROUNDS):
        c = api.customer("hourly")
        assert api.check(c, "calls", 40, lock={"enabled": True, "lock_id": f"race-{round_}"})["allowed"]
        end = api.balances(c)["calls"]["next_reset_at"]
        calls: list[tuple[Any, ...]] = [
            ("POST", FINALIZE, settle(f"race-{round_}", "confirm", 30)), ("POST", FINALIZE, settle(f"race-{round_}", "release")),
            ("POST", TRACK, {"customer_id": c, "feature_id": "calls", "value": 20}),
        ]
        switch = ("POST", "/v1/attach", {"customer_id": c, "product_id": "hourly-more"})
        reset = ("POST", "/v1/test_clock", {"now_ms": end})
        calls += [[switch], [reset], []][round_ % 3]
        random.shuffle(calls)
        answers = dict(zip((call[1] + str(call[2].get("action", "")) for call in calls), api.together(*calls)))
        ended = sorted(answers[FINALIZE + action].status_code for action in ("confirm", "release"))
        assert ended == [200, 409] and answers[TRACK].status_code == 200
        remains, confirmed = left(api, c, "calls"), answers[FINALIZE + "confirm"].status_code == 200
        if round_ % 3 == 0:
            assert answers["/v1/attach"].status_code == 200
            assert remains in range(60, 81), "the track before or after the switch, the give-back too"
        elif round_ % 3 == 1:
            assert remains in (30, 50), "the track before or after the reset, which drops what comes after it"
        else:
            assert remains in ((0, 10) if confirmed else (30, 40)), "the track took credits for what was held still"
