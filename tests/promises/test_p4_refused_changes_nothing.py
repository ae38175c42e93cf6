"""P4: a refused call changes nothing but what was due anyway (resets, expiries)."""

from __future__ import annotations

from typing import Any, Iterator

import pytest

from tests.http import DAY_MS, HOUR_MS, Api, audit
from tests.promises import books
from tests.promises.books import UNIT

CHECK, TRACK, FINALIZE = "/v1/check", "/v1/track", "/v1/balances.finalize"
BATCH, BATCH_CHECK = "/v1/balances.batch_track", "/v1/balances.batch_check"
CREATE, UPDATE, DELETE, RECALCULATE = (f"/v1/balances.{verb}" for verb in ("create", "update", "delete", "recalculate"))
V21 = {"x-api-version": "2.1"}
LARGEST = (2**53 - 1) // UNIT
MSG: dict[str, Any] = {"feature_id": "msg"}
LATER = 4_000_000_000_000


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    api = module_api
    api.feature("msg", event_names=["both"])
    api.feature("calls", event_names=["both"])
    api.feature("capped")
    api.feature("seats", "continuous_use")
    api.feature("flag", "boolean")
    api.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "calls", "credit_cost": 0.3}])
    paid = {"interval": "month", "price": 1}
    api.plan(
        "base", {"feature_id": "msg", "included_usage": 20, "interval": "week", "rollover": {"max": 50, "duration": "month", "length": 1}},
        {"feature_id": "msg", "included_usage": 30}, {"feature_id": "pool", "included_usage": 30}, {"feature_id": "flag"},
        {"feature_id": "seats", "included_usage": 2, "usage_limit": 2, "usage_model": "pay_per_use", **paid},
        {"feature_id": "capped", "included_usage": 5, "usage_model": "pay_per_use", **paid},
    )
    api.plan("packs", {"feature_id": "calls", "included_usage": 0, "usage_model": "prepaid", "billing_units": 5, **paid}, is_add_on=True)
    return api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


@pytest.fixture(scope="module")
def c(seller: Api) -> str:
    """A customer with something of everything, for calls that are refused."""
    return busy(seller)


def busy(api: Api) -> str:
    """A customer with uses, an open hold, settled ones, a refund, two entities, caps, and keys."""
    c = api.customer("base")
    for name in ("e0", "e1"):
        api.entity(c, name)
    api.call("POST", f"/v1/customers/{c}", {"billing_controls": {
        "spend_limits": [{"feature_id": "capped", "enabled": True, "overage_limit": 4}],
        "usage_limits": [{"feature_id": "calls", "enabled": True, "limit": 40, "interval": "day"}],
    }})
    api.track(c, "msg", 6, idempotency_key="spent")
    api.track(c, "calls", 10)
    api.track(c, "capped", 9)
    api.post(TRACK, {"customer_id": c, "refund_of": "spent", "value": -2, "idempotency_key": "refund"})
    hold(api, c, "open")
    for name, action in (("confirmed", "confirm"), ("released", "release")):
        hold(api, c, name)
        api.post(FINALIZE, {"lock_id": f"{c}-{name}", "action": action})
    api.post(CREATE, {"customer_id": c, **MSG, "included_grant": 3, "balance_id": "gift"})
    return c


def hold(api: Api, c: str, name: str, **fields: Any) -> None:
    api.check(c, "msg", 5, lock={"enabled": True, "lock_id": f"{c}-{name}", **fields})


def lock(name: Any = "{c}-new", **fields: Any) -> dict[str, Any]:
    return {"lock": {"enabled": True, "lock_id": name, **fields}}


REFUSED: list[tuple[str, str, Any, int, str]] = [
    # track
    ("too much", TRACK, {**MSG, "value": 500, "overage_behavior": "reject"}, 400, "insufficient_balance"),
    ("one of two features too little", TRACK,
     {"event_name": "both", "value": 31, "overage_behavior": "reject"}, 400, "usage_limit_exceeded"),
    ("two features, the other one", TRACK, {"event_name": "both", "value": 80, "overage_behavior": "reject"}, 400, "insufficient_balance"),
    ("past the spend limit", TRACK, {"feature_id": "capped", "value": 1, "overage_behavior": "reject"}, 400, "insufficient_balance"),
    ("past the window", TRACK, {"feature_id": "calls", "value": 31, "overage_behavior": "reject"}, 400, "usage_limit_exceeded"),
    ("no such feature", TRACK, {"feature_id": "nope"}, 404, "feature_not_found"),
    ("no such entity", TRACK, {**MSG, "entity_id": "nope"}, 404, "entity_not_found"),
    ("no such value", TRACK, {**MSG, "value": "1"}, 400, "invalid_inputs"),
    ("no such mode", TRACK, {**MSG, "overage_behavior": "most"}, 400, "invalid_inputs"),
    ("out of range", TRACK, {**MSG, "value": -LARGEST, "overage_behavior": "overflow"}, 400, ""),
    ("another call's key", TRACK, {**MSG, "value": 7, "idempotency_key": "spent"}, 409, "duplicate_idempotency_key"),
    # refund_of
    ("more than is left", TRACK, {"refund_of": "spent", "value": -5, "overage_behavior": "reject"}, 400, "insufficient_balance"),
    ("no such event", TRACK, {"refund_of": "evt_0_1_12345678"}, 404, "event_not_found"),
    ("a refund's refund", TRACK, {"refund_of": "refund"}, 400, "invalid_inputs"),
    ("a positive refund", TRACK, {"refund_of": "spent", "value": 1}, 400, "invalid_inputs"),
    ("another feature's", TRACK, {"refund_of": "spent", "feature_id": "calls"}, 400, "invalid_inputs"),
    # check
    ("denied", CHECK, {**MSG, "required_balance": 500}, 200, ""),
    ("denied, sent", CHECK, {**MSG, "required_balance": 500, "send_event": True}, 200, ""),
    ("denied by the window, sent", CHECK, {"feature_id": "calls", "required_balance": 31, "send_event": True}, 200, ""),
    ("denied by the spend limit, sent", CHECK, {"feature_id": "capped", "required_balance": 1, "send_event": True}, 200, ""),
    ("denied, with another's key", CHECK, {**MSG, "send_event": True, "idempotency_key": "spent"}, 409, "duplicate_idempotency_key"),
    ("no such feature to check", CHECK, {"feature_id": "nope", "send_event": True}, 404, "feature_not_found"),
    # holds
    ("denied hold", CHECK, {**MSG, "required_balance": 500, **lock()}, 200, ""),
    ("held by others", CHECK, {**MSG, "required_balance": 41, **lock()}, 200, ""),
    ("denied hold by track", TRACK, {**MSG, "value": 500, **lock()}, 400, "insufficient_balance"),
    ("a name that is taken", CHECK, {**MSG, **lock("{c}-open")}, 409, "lock_already_exists"),
    ("of what is occupied", CHECK, {"feature_id": "seats", **lock()}, 400, "invalid_inputs"),
    ("of a flag", CHECK, {"feature_id": "flag", **lock()}, 400, "invalid_inputs"),
    ("that is over", CHECK, {**MSG, **lock(expires_at=1)}, 400, "invalid_inputs"),
    ("for ever", CHECK, {**MSG, **lock(expires_at=LATER)}, 400, "invalid_inputs"),
    # finalize
    ("no such hold", FINALIZE, {"lock_id": "never", "action": "confirm"}, 404, "lock_not_found"),
    ("confirmed before", FINALIZE, {"lock_id": "{c}-confirmed", "action": "release"}, 409, "lock_already_finalized"),
    ("released before", FINALIZE, {"lock_id": "{c}-released", "action": "confirm", "override_value": 3}, 409, "lock_already_finalized"),
    ("release of a part", FINALIZE, {"lock_id": "{c}-open", "action": "release", "override_value": 3}, 400, "invalid_inputs"),
    ("no such action", FINALIZE, {"lock_id": "{c}-open", "action": "keep"}, 400, "invalid_inputs"),
    ("confirm of no quantity", FINALIZE, {"lock_id": "{c}-open", "action": "confirm", "override_value": 2**53}, 400, "invalid_inputs"),
    # batches
    ("a batch of nothing", BATCH, [], 400, "invalid_inputs"),
    ("a batch of refused items", BATCH, [
        {**MSG, "value": 500, "overage_behavior": "reject"}, {"feature_id": "nope"}, {**MSG, "value": "x"}, 5,
        {**MSG, "value": 7, "idempotency_key": "spent"}, {**MSG, **lock("{c}-open")}, {"refund_of": "refund"}, {**MSG, "entity_id": "nope"},
    ], 202, ""),
    ("a batch of checks denied", BATCH_CHECK,
     [{**MSG, "required_balance": 500, "send_event": True}, {**MSG, **lock("{c}-open")}, {"feature_id": "nope"}], 200, ""),
    # balances
    ("a grant below nothing", CREATE, {**MSG, "included_grant": -1}, 400, "invalid_inputs"),
    ("a name given before", CREATE, {**MSG, "included_grant": 1, "balance_id": "gift"}, 409, "balance_already_exists"),
    ("grants past the range", CREATE, {**MSG, "included_grant": LARGEST - 40}, 400, "invalid_inputs"),
    ("a rollover without resets", CREATE, {**MSG, "included_grant": 1, "rollover": {"max": 5}}, 400, "invalid_inputs"),
    ("two ways at once", UPDATE, {**MSG, "remaining": 5, "usage": 5}, 400, "invalid_inputs"),
    ("a sum past the range", UPDATE, {**MSG, "add_to_balance": LARGEST - 20}, 400, "invalid_inputs"),
    ("a usage past the range", UPDATE, {**MSG, "usage": -LARGEST}, 400, "invalid_inputs"),
    ("a grant past the range", UPDATE, {**MSG, "included_grant": LARGEST - 20}, 400, "invalid_inputs"),
    ("no such balance", UPDATE, {**MSG, "remaining": 5, "balance_id": "nope"}, 404, "balance_not_found"),
    ("a date gone by", UPDATE, {**MSG, "remaining": 5, "next_reset_at": 1000}, 400, "invalid_inputs"),
    ("a good value with a bad date", UPDATE, {**MSG, "remaining": 5, "interval": "one_off", "next_reset_at": LATER}, 400, "invalid_inputs"),
    ("a plan's balance", DELETE, {"feature_id": "pool"}, 409, "balance_of_plan"),
    ("no such balance to delete", DELETE, {"balance_id": "nope"}, 404, "balance_not_found"),
    ("nothing to recalculate", RECALCULATE, {"feature_id": "calls"}, 404, "balance_not_found"),
    ("usage of nothing", "/v1/usage", {"feature_id": "calls", "value": 5}, 404, "balance_not_found"),
    ("usage past the range", "/v1/usage", {**MSG, "value": -LARGEST}, 400, "invalid_inputs"),
    ("one of two balances wrong", "/v1/customers/{c}/balances",
     {"balances": [{**MSG, "balance": 5}, {"feature_id": "pool", "balance": "x"}]}, 400, "invalid_inputs"),
    ("one of two balances missing", "/v1/customers/{c}/balances",
     {"balances": [{**MSG, "balance": 5}, {"feature_id": "calls", "balance": 1}]}, 404, "balance_not_found"),
    ("one of two past the range", "/v1/customers/{c}/balances",
     {"balances": [{"feature_id": "pool", "balance": 5}, {**MSG, "balance": 2**53}]}, 400, "invalid_inputs"),
    # structure
    ("a seat too many", "/v1/customers/{c}/entities", {"id": "e2", "feature_id": "seats"}, 400, ""),
    ("several seats too many", "/v1/customers/{c}/entities", [{"id": f"s{n}", "feature_id": "seats"} for n in range(3)], 400, ""),
    ("a seat taken", "/v1/customers/{c}/entities", {"id": "e0", "feature_id": "seats"}, 409, "entity_already_exists"),
    ("no such plan", "/v1/attach", {"product_id": "nope"}, 404, "product_not_found"),
    ("attached already", "/v1/attach", {"product_id": "base"}, 409, "customer_product_already_exists"),
    ("no quantity", "/v1/attach", {"product_id": "packs"}, 400, "invalid_options"),
    ("too large a quantity", "/v1/attach",
     {"product_id": "packs", "options": [{"feature_id": "calls", "quantity": 2**53}]}, 400, "invalid_options"),
    ("no such limit", "/v1/customers/{c}",
     {"billing_controls": {"spend_limits": [{"feature_id": "nope", "overage_limit": 1}]}}, 400, "invalid_inputs"),
    ("a feature twice", "/v1/features", {"id": "msg", "name": "M", "type": "single_use"}, 409, "duplicate_feature_id"),
]


@pytest.mark.parametrize(("path", "body", "status", "code"), [case[1:] for case in REFUSED], ids=[f"{case[1]}: {case[0]}" for case in REFUSED])
def test_a_refused_call_changes_nothing(api: Api, c: str, path: str, body: Any, status: int, code: str) -> None:
    """P4, for every verb and refusal: what Redis and SQL hold before and after, and the call's key is
    free."""
    before = books.digest(api, c)
    keyed = path in (TRACK, CHECK, FINALIZE) and "idempotency_key" not in body
    headers = {**V21, **({"idempotency-key": "refused"} if keyed else {})}
    for given in (V21, headers, {"x-api-version": "1.2"}):
        answer = api.raw("POST", path.format(c=c), filled(body, c), headers=given)
        assert answer.status_code == status, answer.text
        told = answer.json()
        if status in (200, 202):
            results = told["results"] if "results" in told else [told]
            assert all(not one.get("allowed", False) and one.get("status", 400) >= 400 for one in results), told
        else:
            assert told["code"] == code or not code, told
    assert not books.changed(before, books.digest(api, c))
    if keyed:
        other = api.check(c, "msg", 0, send_event=True, idempotency_key=f"refused-{path}-{status}")
        assert other["allowed"]


def filled(body: Any, c: str) -> Any:
    """A body with the customer's name put in."""
    if isinstance(body, list):
        return [filled(one, c) if not isinstance(one, dict) or "id" not in one else one for one in body]
    if not isinstance(body, dict):
        return body
    named = {name: value.format(c=c) if isinstance(value, str) else filled(value, c) if name == "lock" else value for name, value in body.items()}
    return named if "enabled" in body else {"customer_id": c, **named}


def test_a_refused_call_leaves_its_key_free(api: Api) -> None:
    """P4: the key of a refused call can be used by another one."""
    c = busy(api)
    for path, body in (
        (TRACK, {**MSG, "value": 500, "overage_behavior": "reject"}), (UPDATE, {**MSG, "add_to_balance": LARGEST}),
        (DELETE, {"feature_id": "pool"}),
    ):
        assert api.raw("POST", path, {"customer_id": c, **body}, headers={"idempotency-key": "k"}).status_code in (400, 409)
    answer = api.raw("POST", UPDATE, {"customer_id": c, **MSG, "add_to_balance": 1}, headers={"idempotency-key": "k"})
    assert answer.status_code == 200 and books.REPLAYED not in answer.headers


WHEN_DUE = [case for case in REFUSED if case[1] in (TRACK, CHECK, FINALIZE, UPDATE, BATCH) and case[0] in (
    "too much", "two features, the other one", "out of range", "more than is left", "denied", "denied, sent", "denied hold",
    "denied hold by track", "no such hold", "a sum past the range", "a usage past the range",
)]


@pytest.mark.parametrize(("path", "body", "status", "code"), [case[1:] for case in WHEN_DUE], ids=[case[0] for case in WHEN_DUE])
def test_but_for_what_was_due(api: Api, path: str, body: Any, status: int, code: str) -> None:
    """P4 beside what was due: a reset with its rollover, a hold and a grant whose time is over. After the
    refused call everything is as if somebody had only looked."""
    refused, looked = busy(api), busy(api)
    for who in (refused, looked):
        now_ms = api.run(api.ctx.clock.now_ms())
        hold(api, who, "brief", expires_at=now_ms + HOUR_MS // 2)
        api.post(CREATE, {"customer_id": who, **MSG, "included_grant": 9, "expires_at": now_ms + HOUR_MS // 2})
    api.advance(7 * DAY_MS)
    assert api.raw("POST", path, filled(body, refused), headers=V21).status_code == status
    seen = []
    for who in (refused, looked):
        state = books.state(api, who)
        rows = [[(row.balance, row.granted, row.flags, row.held, row.plan_id) for row in rows] for _, rows in sorted(state.features.items())]
        kinds = sorted((line.kind, line.delta) for line in books.ledger(api, who) if line.kind != "step")
        windows = [window.used for of in state.windows.values() for window in of]
        events = [(event["feature_id"], event["applied"]) for event in api.events(who)]
        seen.append((rows, kinds, windows, events, len(state.holds)))
    assert seen[0] == seen[1]
    assert any(kind == "reset" for kind, _ in seen[0][1])
