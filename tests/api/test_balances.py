"""balances.* over HTTP: which fields go together, ids, lists, keys, and calls at once."""

from __future__ import annotations

import asyncio
from typing import Any, Iterator

import httpx
import msgpack
import pytest
from sqlalchemy import select

from sidecar.store import tables
from tests.http import MSGPACK, Api, audit

pytestmark = pytest.mark.ways("asgi")  # the exceptions call check or track

V1, V20, V21, V23 = ({"x-api-version": version} for version in ("1.2", "2.0", "2.1", "2.3"))
CREATE, UPDATE, DELETE, RECALCULATE = (f"/v1/balances.{verb}" for verb in ("create", "update", "delete", "recalculate"))
REPLAYED = "idempotency-replayed"
FUTURE = 4_000_000_000_000
LARGEST = (2**53 - 1) // 10**6


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    module_api.feature("msg")
    module_api.feature("other")
    module_api.feature("seats", "continuous_use")
    module_api.feature("flag", "boolean")
    module_api.feature("fine", precision=0)
    module_api.plan("base", {"feature_id": "msg", "included_usage": 100, "interval": "month"}, {"feature_id": "flag"}, is_default=True)
    module_api.plan("payg", {"feature_id": "other", "included_usage": 10, "interval": "month", "price": 1, "usage_model": "pay_per_use"}, group="more")
    module_api.plan("life", {"feature_id": "other", "included_usage": 10, "price": 1, "usage_model": "prepaid"}, is_add_on=True)
    return module_api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    yield seller
    audit(seller)


@pytest.fixture
def c(api: Api) -> str:
    return api.customer()


def send(api: Api, path: str, body: dict[str, Any], key: str | None = None, **headers: str) -> httpx.Response:
    return api.raw("POST", path, body, headers={**({"idempotency-key": key} if key else {}), **V21, **headers})


def left(api: Api, c: str, feature: str = "msg") -> Any:
    return api.balances(c)[feature]["balance"]


def entries(api: Api, c: str, headers: dict[str, str] = V21, **fields: Any) -> list[dict[str, Any]]:
    return list(api.post("/v1/balances.list", {"customer_id": c, **fields}, headers=headers)["list"])


WRONG_CREATE: list[tuple[str, dict[str, Any]]] = [
    ("included_grant", {}),
    ("included_grant", {"included_grant": 1, "unlimited": True}),
    ("included_grant", {"included_grant": -1}),
    ("included_grant", {"included_grant": "5"}),
    ("included_grant", {"included_grant": LARGEST + 1}),
    ("included_grant", {"included_grant": LARGEST - 50}),
    ("included_grant", {"included_grant": "0.0000001"}),
    ("unlimited", {"unlimited": "yes"}),
    ("reset", {"included_grant": 1, "reset": "month"}),
    ("reset.interval", {"included_grant": 1, "reset": {}}),
    ("reset.interval", {"included_grant": 1, "reset": {"interval": "decade"}}),
    ("reset.interval", {"included_grant": 1, "reset": {"interval": ["month"]}}),
    ("reset.interval_count", {"included_grant": 1, "reset": {"interval": "month", "interval_count": 0}}),
    ("reset.interval_count", {"included_grant": 1, "reset": {"interval": "year", "interval_count": 101}}),
    ("reset", {"feature_id": "seats", "included_grant": 1, "reset": {"interval": "month"}}),
    ("rollover", {"included_grant": 1, "rollover": {"max": 5}}),
    ("rollover", {"included_grant": 1, "rollover": {"max": 5}, "reset": {"interval": "one_off"}}),
    ("rollover", {"feature_id": "seats", "included_grant": 1, "rollover": {"max": 5}}),
    ("rollover", {"unlimited": True, "rollover": {"max": 5}, "reset": {"interval": "month"}}),
    ("rollover", {"included_grant": 1, "rollover": 5, "reset": {"interval": "month"}}),
    ("rollover.max_percentage", {"included_grant": 1, "rollover": {"max": 5, "max_percentage": 5}, "reset": {"interval": "month"}}),
    ("rollover.length", {"included_grant": 1, "rollover": {"expiry_duration_length": 2}, "reset": {"interval": "day"}}),
    ("next_reset_at", {"included_grant": 1, "next_reset_at": FUTURE}),
    ("next_reset_at", {"included_grant": 1, "next_reset_at": 1000, "reset": {"interval": "month"}}),
    ("next_reset_at", {"included_grant": 1, "next_reset_at": FUTURE, "expires_at": FUTURE, "reset": {"interval": "month"}}),
    ("next_reset_at", {"included_grant": 1, "next_reset_at": "soon", "reset": {"interval": "month"}}),
    ("expires_at", {"included_grant": 1, "expires_at": 1000}),
    ("expires_at", {"included_grant": 1, "expires_at": 10**17}),
    ("expires_at", {"included_grant": 1, "expires_at": -5}),
    ("balance_id", {"included_grant": 1, "balance_id": "bkt_7"}),
    ("balance_id", {"included_grant": 1, "balance_id": 7}),
    ("balance_id", {"included_grant": 1, "balance_id": ""}),
    ("entity_id", {"included_grant": 1, "entity_id": 7}),
    ("included_grant", {"feature_id": "flag", "included_grant": 1}),
    ("unlimited", {"feature_id": "flag", "unlimited": True}),
    ("reset", {"feature_id": "flag", "reset": {"interval": "month"}}),
]


@pytest.mark.parametrize(("field", "body"), WRONG_CREATE, ids=str)
def test_create_refuses_what_does_not_go_together(api: Api, c: str, field: str, body: dict[str, Any]) -> None:
    message = api.refused(CREATE, {"customer_id": c, "feature_id": "msg", **body}, 400, "invalid_inputs", headers=V21)
    assert message.startswith(f"{field}:"), message


WRONG_UPDATE: list[tuple[str, dict[str, Any]]] = [
    ("remaining", {}),
    ("remaining", {"interval": "month"}),
    ("add_to_balance", {"remaining": 1, "add_to_balance": 1}),
    ("usage", {"remaining": 1, "usage": 1}),
    ("included_grant", {"usage": 1, "included_grant": 1}),
    ("remaining", {"remaining": "1"}),
    ("remaining", {"remaining": True}),
    ("remaining", {"remaining": 10**12}),
    ("usage", {"usage": -(10**12)}),
    ("included_grant", {"included_grant": -1}),
    ("included_grant", {"included_grant": 10**12}),
    ("next_reset_at", {"next_reset_at": 1000}),
    ("next_reset_at", {"remaining": 5, "next_reset_at": 1000}),
    ("next_reset_at", {"next_reset_at": True}),
    ("expires_at", {"expires_at": 1000}),
    ("expires_at", {"included_grant": 5, "expires_at": 1.5}),
    ("interval", {"remaining": 5, "interval": "lifetime"}),
    ("balance_id", {"remaining": 5, "balance_id": 5}),
    ("feature_id", {"feature_id": "flag", "remaining": 5}),
    ("next_reset_at", {"feature_id": "seats", "next_reset_at": FUTURE}),
    ("expires_at", {"feature_id": "other", "expires_at": FUTURE}),
]


@pytest.mark.parametrize(("field", "body"), WRONG_UPDATE, ids=str)
def test_update_refuses_what_does_not_go_together(api: Api, c: str, field: str, body: dict[str, Any]) -> None:
    if body.get("feature_id") == "seats":
        api.post(CREATE, {"customer_id": c, "feature_id": "seats", "included_grant": 5})
    if body.get("feature_id") == "other":
        api.attach(c, "payg")
    message = api.refused(UPDATE, {"customer_id": c, "feature_id": "msg", **body}, 400, "invalid_inputs", headers=V21)
    assert message.startswith(f"{field}:"), message


@pytest.mark.parametrize("path", [CREATE, UPDATE, DELETE, RECALCULATE, "/v1/usage"])
@pytest.mark.parametrize("version", [V1, V21], ids=str)
def test_who_and_what_is_not_there(api: Api, c: str, path: str, version: dict[str, str]) -> None:
    more = {CREATE: {"included_grant": 5}, UPDATE: {"remaining": 5}, "/v1/usage": {"value": 5}}.get(path, {})
    body = {"customer_id": c, "feature_id": "msg", **more}
    api.refused(path, {**body, "customer_id": "nobody"}, 404, "customer_not_found", headers=version)
    api.refused(path, {**body, "feature_id": "nothing"}, 404, "feature_not_found", headers=version)
    api.refused(path, {**body, "entity_id": "no one"}, 404, "entity_not_found", headers=version)
    api.refused(path, {**more, "feature_id": "msg"}, 400, "invalid_inputs", headers=version)
    if path != CREATE:
        api.refused(path, {**body, "feature_id": "seats"}, 404, "balance_not_found", headers=version)


@pytest.mark.parametrize("body", [{"balance_id": "bkt_99"}, {"balance_id": "mine"}, {"interval": "year"}], ids=str)
def test_filters_that_choose_none(api: Api, c: str, body: dict[str, Any]) -> None:
    for path, more in ((UPDATE, {"remaining": 5}), (DELETE, {})):
        api.refused(path, {"customer_id": c, "feature_id": "msg", **more, **body}, 404, "balance_not_found")


def test_both_styles_and_older_names(api: Api, c: str) -> None:
    api.post("/v1/balances/create", {"customer_id": c, "feature_id": "other", "granted_balance": 7}, headers=V1)
    api.post("/v1/balances/create", {"customer_id": c, "feature_id": "other", "included_grant": 3}, headers=V23)
    assert left(api, c, "other") == 10
    api.post("/v1/balances/update", {"customer_id": c, "feature_id": "other", "current_balance": 4}, headers=V20)
    assert left(api, c, "other") == 4
    api.refused("/v1/balances/create", {"customer_id": c, "feature_id": "other", "granted_balance": 7}, 400, "invalid_inputs", headers=V21)
    body = {"customer_id": c, "feature_id": "other", "granted_balance": 7, "included_grant": 8}
    api.refused("/v1/balances/create", body, 400, "invalid_inputs", headers=V1)


def test_ids_of_the_callers_own(api: Api, c: str) -> None:
    body = {"customer_id": c, "feature_id": "other", "included_grant": 5, "balance_id": "gift", "surprise": {"x": 1}}
    api.post(CREATE, body, headers=V21)
    message = api.refused(CREATE, {**body, "feature_id": "msg"}, 409, "balance_already_exists", headers=V21)
    assert "gift" in message
    api.post(CREATE, {**body, "customer_id": api.customer()}, headers=V21)
    assert [one["id"] for one in entries(api, c, feature_id="other")] == ["gift"]
    api.post(UPDATE, {"customer_id": c, "feature_id": "other", "balance_id": "gift", "remaining": 3}, headers=V21)
    assert left(api, c, "other") == 3
    api.refused(UPDATE, {"customer_id": c, "feature_id": "msg", "balance_id": "gift", "remaining": 3}, 404, "balance_not_found")
    api.post(DELETE, {"customer_id": c, "balance_id": "gift"}, headers=V21)
    api.post(CREATE, body, headers=V21)
    assert left(api, c, "other") == 5


def test_plans_balances_are_not_deleted(api: Api, c: str) -> None:
    api.attach(c, "payg")
    for body in ({"feature_id": "other"}, {"feature_id": "msg"}, {"balance_id": "bkt_1"}):
        api.refused(DELETE, {"customer_id": c, **body}, 409, "balance_of_plan", headers=V21)
    api.refused(DELETE, {"customer_id": c}, 400, "invalid_inputs", headers=V21)
    api.post(CREATE, {"customer_id": c, "feature_id": "msg", "included_grant": 5}, headers=V21)
    api.post(DELETE, {"customer_id": c, "feature_id": "msg"}, headers=V21)
    assert left(api, c) == 100


@pytest.mark.ways("asgi", "short")
def test_a_list_has_every_balance_in_the_shape_of_its_version(api: Api, c: str) -> None:
    api.entity(c, "e1")
    api.post(CREATE, {"customer_id": c, "feature_id": "msg", "included_grant": 5, "balance_id": "extra"})
    api.post(CREATE, {"customer_id": c, "feature_id": "other", "included_grant": 8, "entity_id": "e1"})
    api.track(c, "msg", 130, overage_behavior="overflow")
    old = api.get(f"/v1/balances/list?customer_id={c}", headers=V1)["list"]
    assert [(one["feature_id"], one["balance"], one["overage"], one["held"]) for one in old] == [
        ("msg", -25, 25, 0), ("other", 8, 0, 0),
    ], "a used-up loose grant is left out"
    new = entries(api, c, V23)
    assert {"included_grant", "prepaid_grant", "remaining", "usage", "unlimited", "reset", "price", "expires_at"} <= set(new[0])
    assert "granted_balance" in entries(api, c, V20)[0]
    assert new[0]["plan_id"] == "base" and new[-1]["plan_id"] is None
    assert [one["feature_id"] for one in entries(api, c, feature_id="other")] == ["other"]
    assert {one["feature_id"] for one in entries(api, c, entity_id="e1")} == {"msg", "other"}
    for body, code in (
        ({"customer_id": "nobody"}, "customer_not_found"), ({"customer_id": c, "entity_id": "e9"}, "entity_not_found"),
        ({"customer_id": c, "feature_id": "nothing"}, "feature_not_found"),
    ):
        api.refused("/v1/balances.list", body, 404, code)
    api.get("/v1/balances/list", 400)


def test_quantities_are_exact(api: Api, c: str) -> None:
    body = {"customer_id": c, "feature_id": "msg"}
    for value in ("0.1", "0.2"):
        api.raw("POST", UPDATE, content=b'{"customer_id":"%b","feature_id":"msg","add_to_balance":%b}' % (c.encode(), value.encode()))
    assert str(left(api, c)) == "100.3"
    answer = api.raw("POST", UPDATE, content=msgpack.packb({**body, "remaining": 0.30000000000000004}), headers={"content-type": MSGPACK})
    assert answer.status_code == 200 and str(left(api, c)) == "0.3"
    message = api.refused(CREATE, {"customer_id": c, "feature_id": "fine", "included_grant": 0.25}, 400, "invalid_inputs")
    assert "precision 2" in message or "precision 1" in message


def test_updates_leave_ledger_entries_and_no_events(api: Api, c: str) -> None:
    api.post(UPDATE, {"customer_id": c, "feature_id": "msg", "remaining": 70})
    api.post(UPDATE, {"customer_id": c, "feature_id": "msg", "included_grant": 80})
    assert api.events(c) == []
    cid = api.run(api.ctx.engine.view(c)).cid
    x = tables.ledger.c
    lines = api.ctx.store.read_sync(
        lambda conn: [tuple(row) for row in conn.execute(select(x.kind, x.delta).where(x.cid == cid, x.feature_id == "msg").order_by(x.at, x.gen, x.seq))]
    )
    assert lines == [("grant", 100_000_000), ("set", -30_000_000), ("set", -20_000_000)]


# Idempotency-Key


KEYED: list[tuple[str, dict[str, Any]]] = [
    (UPDATE, {"add_to_balance": 5}), (CREATE, {"included_grant": 5}), ("/v1/usage", {"value": 10}),
]


@pytest.mark.ways("asgi", "short")
@pytest.mark.parametrize(("path", "more"), KEYED, ids=str)
def test_a_repeat_gets_the_first_answer_and_changes_nothing(api: Api, c: str, path: str, more: dict[str, Any]) -> None:
    body = {"customer_id": c, "feature_id": "msg", **more}
    first = send(api, path, body, "k")
    assert (first.status_code, first.json()) == (200, {"success": True}) and REPLAYED not in first.headers
    api.track(c, "msg", 1)
    before = left(api, c)
    again = send(api, path, {**body, "unknown": 1}, "k")
    assert (again.status_code, again.json(), again.headers[REPLAYED]) == (200, {"success": True}, "true")
    assert left(api, c) == before
    api.refused(path, {**body, next(iter(more)): 6}, 409, "duplicate_idempotency_key", headers={"idempotency-key": "k", **V21})
    api.refused("/v1/track", {"customer_id": c, "feature_id": "msg"}, 409, "duplicate_idempotency_key", headers={"idempotency-key": "k"})
    assert left(api, c) == before


def test_the_other_style_is_the_same_call_and_another_verb_is_not(api: Api, c: str) -> None:
    body = {"customer_id": c, "feature_id": "msg", "usage": 10}
    send(api, UPDATE, body, "k")
    assert REPLAYED in send(api, "/v1/balances/update", {**body, "usage": 10.0}, "k").headers
    assert send(api, "/v1/usage", {"customer_id": c, "feature_id": "msg", "value": 10}, "k").status_code == 409


@pytest.mark.ways("asgi", "short")
def test_a_key_used_by_a_track_is_taken(api: Api, c: str) -> None:
    send(api, "/v1/track", {"customer_id": c, "feature_id": "msg", "value": 5}, "k")
    body = {"customer_id": c, "feature_id": "msg", "remaining": 5}
    api.refused(UPDATE, body, 409, "duplicate_idempotency_key", headers={"idempotency-key": "k", **V21})


def test_a_refused_call_frees_its_key(api: Api, c: str) -> None:
    body = {"customer_id": c, "feature_id": "other", "add_to_balance": LARGEST}
    assert send(api, UPDATE, body, "k").status_code == 404
    send(api, CREATE, {"customer_id": c, "feature_id": "other", "included_grant": 5})
    assert send(api, UPDATE, body, "k").status_code == 400, "refused by the script"
    assert send(api, UPDATE, {**body, "add_to_balance": 5}, "k").status_code == 200
    assert left(api, c, "other") == 10


def test_the_same_call_at_once_is_made_once(api: Api, c: str) -> None:
    call = ("POST", UPDATE, {"customer_id": c, "feature_id": "msg", "add_to_balance": 5})

    async def all_of_them() -> list[httpx.Response]:
        return await asyncio.gather(*(api.send(*call, headers={"idempotency-key": "k"}) for _ in range(12)))

    answers = api.run(all_of_them())
    assert {answer.status_code for answer in answers} == {200}
    assert sum(REPLAYED not in answer.headers for answer in answers) == 1 and left(api, c) == 105


@pytest.mark.ways("asgi", "short")
def test_different_calls_at_once_under_a_key_make_one(api: Api, c: str) -> None:
    async def all_of_them() -> list[httpx.Response]:
        bodies = [(UPDATE, {"customer_id": c, "feature_id": "msg", "add_to_balance": n}) for n in range(1, 7)]
        bodies += [("/v1/track", {"customer_id": c, "feature_id": "msg", "value": 10 * n}) for n in range(1, 4)]
        return await asyncio.gather(*(api.send("POST", path, body, headers={"idempotency-key": "k"}) for path, body in bodies))

    statuses = sorted(answer.status_code for answer in api.run(all_of_them()))
    assert statuses == [200] + [409] * 8 and left(api, c) != 100


def test_creates_at_once_with_one_id_make_one(api: Api, c: str) -> None:
    call = ("POST", CREATE, {"customer_id": c, "feature_id": "other", "included_grant": 5, "balance_id": "one"})
    statuses = sorted(answer.status_code for answer in api.together(*[call] * 6))
    assert statuses == [200] + [409] * 5 and left(api, c, "other") == 5


def test_each_of_many_at_once_hears_of_its_own_refusal(api: Api, c: str) -> None:
    """Whoever brings a step to Redis, whoever decided it is told what became of it."""
    api.post(CREATE, {"customer_id": c, "feature_id": "other", "included_grant": 1})
    body = {"customer_id": c, "feature_id": "other"}
    calls = [("POST", UPDATE, {**body, "add_to_balance": LARGEST if n % 2 else 1}) for n in range(12)]
    statuses = [answer.status_code for answer in api.together(*calls)]
    assert statuses == [200, 400] * 6 and left(api, c, "other") == 7
