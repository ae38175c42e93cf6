"""`refund_of` over HTTP: what can be given back, and what was, however long ago and how often at once."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Iterator

import pytest

from sidecar.engine import keys
from tests.http import Api, audit

CHECK, TRACK, FINALIZE = "/v1/check", "/v1/track", "/v1/balances.finalize"
REPLAYED = "idempotency-replayed"
V21 = {"x-api-version": "2.1"}
D = Decimal


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    module_api.feature("msg")
    module_api.feature("other", event_names=["both"])
    module_api.feature("basic", event_names=["both"])
    module_api.feature("seats", "continuous_use")
    module_api.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "basic", "credit_cost": 2}])
    grants = [{"feature_id": name, "included_usage": 100} for name in ("msg", "seats", "pool", "other")]
    per_entity = {"feature_id": "msg", "included_usage": 10, "interval": "month", "entity_feature_id": "seats"}
    module_api.plan("base", *grants, is_default=True)
    module_api.plan("later", {"feature_id": "msg", "included_usage": 50})
    module_api.plan("shares", per_entity, group="shares")
    return module_api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


@pytest.fixture
def c(api: Api) -> str:
    return api.customer()


def left(api: Api, c: str, feature: str = "msg") -> Any:
    return api.balances(c)[feature]["balance"]


def used(api: Api, c: str, value: Any = 30, feature: str = "msg", **fields: Any) -> str:
    """Tracks; the event's id."""
    return str(api.track(c, feature, value, **fields)["id"])


def refund(c: str, event: str, value: Any = None, **fields: Any) -> dict[str, Any]:
    return {"customer_id": c, "refund_of": event, **({} if value is None else {"value": value}), **fields}


def evict(api: Api, c: str) -> None:
    api.sync()
    engine = api.ctx.engine
    last = api.redis.xinfo_stream(keys.log(engine.partition_of(c)))["last-generated-id"]
    assert api.run(engine.evict(c, *map(int, last.split(b"-"))))


# What a refund is ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [TRACK, "/v1/events", "/v1/balances.track"])
@pytest.mark.parametrize("version", ["1.2", "2.0", "2.1"])
def test_by_id_part_by_part(api: Api, c: str, path: str, version: str) -> None:
    event, headers = used(api, c), {"x-api-version": version}
    first = api.post(path, refund(c, event, -10, feature_id="msg"), headers=headers)
    assert left(api, c) == 80
    rest = api.post(path, refund(c, event), headers=headers)
    assert left(api, c) == 100
    if version == "1.2":
        assert first["code"] == "event_received" and first["id"] != event and rest["feature_id"] == "msg"
    else:
        assert (first["value"], rest["value"]) == (-10, -20)
    if version == "2.1":
        (deduction,) = rest["deductions"]
        assert (deduction["value"], deduction["feature_id"], deduction["plan_id"]) == (-20, "msg", "base")
    lines = [(line["value"], line["applied"], line["refund_of"]) for line in api.events(c)]
    assert lines == [("30", 30_000_000, None), ("-10", -10_000_000, event), ("-20", -20_000_000, event)]


@pytest.mark.parametrize("synced", [False, True], ids=["in the log", "in SQL"])
def test_by_idempotency_key(api: Api, c: str, synced: bool) -> None:
    used(api, c, idempotency_key="order-1")
    if synced:
        api.sync()
        api.redis.flushall()
    api.post(TRACK, refund(c, "order-1", -10))
    assert left(api, c) == 80
    other = api.customer()
    api.refused(TRACK, refund(other, "order-1"), 404, "event_not_found")


def test_a_sent_check_is_an_event_too(api: Api, c: str) -> None:
    event = api.check(c, "basic", 10, send_event=True)["id"]
    assert left(api, c, "pool") == 80
    api.post(TRACK, refund(c, event, -4))
    assert left(api, c, "pool") == 88


def test_more_than_is_left(api: Api, c: str) -> None:
    event = used(api, c)
    api.post(TRACK, refund(c, event, -20))
    message = api.refused(TRACK, refund(c, event, -11, overage_behavior="reject"), 400, "insufficient_balance")
    assert "left" in message
    answer = api.post(TRACK, refund(c, event, -11), headers=V21)
    assert answer["value"] == -11 and answer["deductions"][0]["value"] == -10
    assert left(api, c) == 100
    assert [line["applied"] for line in api.events(c)] == [30_000_000, -20_000_000, -10_000_000]


def test_only_what_was_applied_comes_back(api: Api, c: str) -> None:
    event = used(api, c, 130)
    answer = api.post(TRACK, refund(c, event), headers=V21)
    assert answer["value"] == -100 and left(api, c) == 100


def test_a_plain_refund_between_leaves_no_room(api: Api, c: str) -> None:
    event = used(api, c)
    api.track(c, "msg", -30)
    answer = api.post(TRACK, refund(c, event), headers=V21)
    assert answer["deductions"] == [] and left(api, c) == 100


def test_an_entitys_event_goes_back_to_the_entity(api: Api, c: str) -> None:
    api.attach(c, "shares")
    for entity in ("a", "b"):
        api.entity(c, entity)
    event = api.track(c, "msg", 15, entity_id="a")["id"]
    api.track(c, "msg", 8, entity_id="b")
    assert left(api, c) == 97
    api.refused(TRACK, refund(c, event, entity_id="b"), 400, "invalid_inputs")
    answer = api.post(TRACK, refund(c, event, -12), headers=V21)
    assert answer["entity_id"] == "a"
    assert api.get(f"/v1/customers/{c}/entities/a")["features"]["msg"]["balance"] == 7 + 100
    api.post(TRACK, refund(c, event, entity_id="a"))
    assert left(api, c) == 112
    both = used(api, c, 115)
    api.call("DELETE", f"/v1/customers/{c}/entities/b")
    api.post(TRACK, refund(c, both))
    assert left(api, c) == 110


def test_an_event_of_a_deleted_entity(api: Api, c: str) -> None:
    api.entity(c, "a")
    event = api.track(c, "msg", 15, entity_id="a")["id"]
    api.call("DELETE", f"/v1/customers/{c}/entities/a")
    api.post(TRACK, refund(c, event))
    assert left(api, c) == 100


def test_an_event_that_fed_two_features(api: Api, c: str) -> None:
    event = api.post(TRACK, {"customer_id": c, "event_name": "both", "value": 10})["id"]
    assert (left(api, c, "other"), left(api, c, "pool")) == (90, 80)
    answer = api.post(TRACK, refund(c, event, -3, event_name="both"), headers=V21)
    assert {d["feature_id"]: d["value"] for d in answer["deductions"]} == {"other": -3, "pool": -6}
    assert (left(api, c, "other"), left(api, c, "pool")) == (93, 86)


# What is refused ----------------------------------------------------------------------------------


def test_events_that_cannot_be_given_back(api: Api, c: str) -> None:
    event, other = used(api, c), api.customer()
    back = api.post(TRACK, refund(c, event, -10))["id"]
    plain = used(api, c, -5)
    nothing = used(api, c, 0)
    full = api.customer()
    api.track(full, "msg", 100)
    dropped = used(api, full, 5)
    for who, which, word in (
        (other, event, "another customer"), (c, back, "refund"), (c, plain, "took nothing"), (c, nothing, "took nothing"),
        (full, dropped, "took nothing"),
    ):
        assert word in api.refused(TRACK, refund(who, which), 400, "invalid_inputs")
    api.sync()
    for who, which, word in ((other, event, "another customer"), (c, back, "refund"), (c, nothing, "took nothing")):
        assert word in api.refused(TRACK, refund(who, which), 400, "invalid_inputs")


@pytest.mark.parametrize("event", ["evt_0_1_999999999", "evt_3_99_0", "evt_99999_1_0", "nobody's", "evt_x", "evt_1_2_3_4", "é"])
def test_an_event_that_is_not_known(api: Api, c: str, event: str) -> None:
    for version in ("1.2", "2.1"):
        api.refused(TRACK, refund(c, event), 404, "event_not_found", headers={"x-api-version": version})


def test_a_customer_that_is_not_known(api: Api, c: str) -> None:
    event = used(api, c)
    api.refused(TRACK, refund("nobody", event), 404, "event_not_found")
    api.refused(TRACK, refund("nobody", event), 404, "customer_not_found", headers=V21)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"value": 1}, "value"), ({"value": 0}, "value"), ({"value": "-1"}, "value"), ({"value": D("-0.0000001")}, "value"),
        ({"value": -(1 << 53)}, "value"), ({"feature_id": "other"}, "feature_id"), ({"entity_id": "e"}, "entity_id"),
        ({"feature_id": "msg", "event_name": "both"}, "feature_id"), ({"lock": {"enabled": True}}, "lock"),
        ({"overage_behavior": "most"}, "overage_behavior"), ({"refund_of": 5}, "refund_of"), ({"refund_of": ""}, "refund_of"),
        ({"refund_of": "x" * 256}, "refund_of"), ({"refund_of": "a\0"}, "refund_of"), ({"refund_of": ["evt_0_1_0"]}, "refund_of"),
    ],
    ids=str,
)
def test_a_refund_that_is_none(api: Api, c: str, fields: dict[str, Any], name: str) -> None:
    body = {**refund(c, used(api, c)), **fields}
    assert api.refused(TRACK, body, 400, "invalid_inputs").startswith(name)


# Holds --------------------------------------------------------------------------------------------


def test_an_open_hold_is_finalized_not_refunded(api: Api, c: str) -> None:
    for synced in (False, True):
        name = f"{c}-{synced}"
        event = api.check(c, "msg", 10, lock={"enabled": True, "lock_id": name})["id"]
        if synced:
            evict(api, c)
        answer = api.post(TRACK, refund(c, event), 400)
        assert answer["code"] == "invalid_inputs" and name in answer["message"]
        api.post(FINALIZE, {"lock_id": name, "action": "release"})


@pytest.mark.parametrize("synced", [False, True], ids=["in the log", "in SQL"])
@pytest.mark.parametrize(
    ("end", "back"), [({"action": "confirm"}, 10), ({"action": "confirm", "override_value": 4}, 4), ({"action": "release"}, 0)]
)
def test_of_a_settled_hold_what_it_kept_comes_back(api: Api, c: str, end: dict[str, Any], back: int, synced: bool) -> None:
    name = f"{c}-l"
    event = api.check(c, "msg", 10, lock={"enabled": True, "lock_id": name})["id"]
    api.post(FINALIZE, {"lock_id": name, **end})
    if synced:
        evict(api, c)
    api.check(c, "msg", 1, lock={"enabled": True, "lock_id": name})
    answer = api.post(TRACK, refund(c, event), headers=V21)
    assert answer["value"] == -back and left(api, c) == 99


def test_what_a_confirm_took_beyond_its_hold(api: Api, c: str) -> None:
    name = f"{c}-l"
    event = api.check(c, "msg", 10, lock={"enabled": True, "lock_id": name})["id"]
    api.post(FINALIZE, {"lock_id": name, "action": "confirm", "override_value": 150})
    held, beyond = api.events(c)
    assert (held["applied"], beyond["applied"], beyond["requested"]) == (10_000_000, 90_000_000, 140_000_000)
    api.post(TRACK, refund(c, f"evt_{beyond['p']}_{beyond['gen']}_{beyond['seq']}"))
    assert left(api, c) == 90
    api.post(TRACK, refund(c, event))
    assert left(api, c) == 100


# Long ago, and at once ----------------------------------------------------------------------------


def test_an_event_that_left_redis_is_not_given_back_twice(api: Api, c: str) -> None:
    event = used(api, c)
    evict(api, c)
    api.post(TRACK, refund(c, event, -10))
    evict(api, c)
    assert api.post(TRACK, refund(c, event), headers=V21)["value"] == -20
    evict(api, c)
    assert api.post(TRACK, refund(c, event), headers=V21)["value"] == 0
    api.redis.flushall()
    assert api.post(TRACK, refund(c, event), headers=V21)["value"] == 0
    assert left(api, c) == 100


@pytest.mark.parametrize("evicted", [False, True])
def test_refunds_at_once_and_tracks_between(api: Api, c: str, evicted: bool) -> None:
    for _ in range(5):
        event = used(api, c, 40)
        if evicted:
            evict(api, c)
        before = left(api, c)
        calls = [("POST", TRACK, refund(c, event)) for _ in range(4)] + [("POST", TRACK, refund(c, event, -25)) for _ in range(4)]
        calls += [("POST", TRACK, {"customer_id": c, "feature_id": "msg", "value": 1}) for _ in range(3)]
        answers = api.together(*calls)
        assert {answer.status_code for answer in answers} == {200}
        assert left(api, c) == before + 40 - 3


def test_two_refunds_of_all_in_reject_mode_at_once(api: Api, c: str) -> None:
    for _ in range(5):
        event = used(api, c, 40)
        call = ("POST", TRACK, refund(c, event, -40, overage_behavior="reject"))
        assert sorted(answer.status_code for answer in api.together(*[call] * 4)) == [200, 400, 400, 400]
        assert left(api, c) == 100


def test_a_repeated_refund_gets_the_first_answer(api: Api, c: str) -> None:
    event = used(api, c)
    body = refund(c, event, -10, idempotency_key="r")
    first = api.raw("POST", TRACK, body, headers=V21)
    again = api.raw("POST", TRACK, body, headers=V21)
    assert again.json() == first.json() and again.headers[REPLAYED] == "true" and REPLAYED not in first.headers
    assert left(api, c) == 80
    for other in ({"value": -11}, {"value": None}, {"overage_behavior": "reject"}, {"refund_of": used(api, c, 1)}):
        api.refused(TRACK, {**body, **other}, 409, "duplicate_idempotency_key")


def test_after_its_plan_was_replaced_the_plain_rule_follows(api: Api, c: str) -> None:
    event = used(api, c)
    api.attach(c, "later")
    assert left(api, c) == 50
    api.track(c, "msg", 20)
    api.post(TRACK, refund(c, event, -10))
    assert left(api, c) == 40
    api.post(TRACK, refund(c, event))
    assert left(api, c) == 50


def test_a_credit_system_that_lost_its_member_gets_its_credits_back(api: Api) -> None:
    api.feature("gone")
    api.feature("wallet", "credit_system", credit_schema=[{"metered_feature_id": "gone", "credit_cost": 3}])
    api.plan("wallets", {"feature_id": "wallet", "included_usage": 100}, group="wallets")
    c = api.customer("wallets")
    event = used(api, c, 10, "gone")
    assert left(api, c, "wallet") == 70
    api.post("/v1/features/wallet", {"credit_schema": [{"metered_feature_id": "msg", "credit_cost": 3}]})
    answer = api.post(TRACK, refund(c, event, -4), headers=V21)
    assert [(d["feature_id"], d["value"]) for d in answer["deductions"]] == [("wallet", -12)]
    assert left(api, c, "wallet") == 82
