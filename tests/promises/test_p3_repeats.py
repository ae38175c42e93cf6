"""P3: a repeat (same key) of a call that changed something changes nothing and answers the same, also
after Redis was lost."""

from __future__ import annotations

import asyncio
from typing import Any, Callable, Iterator, NamedTuple

import httpx
import pytest

from tests.http import Api, audit
from tests.promises import books
from tests.promises.books import REPLAYED

CHECK, TRACK, FINALIZE, BATCH = "/v1/check", "/v1/track", "/v1/balances.finalize", "/v1/balances.batch_track"
BALANCES = "/v1/balances."
AT_ONCE = 12


@pytest.fixture(scope="module")
def seller(module_api: Api) -> Api:
    api = module_api
    api.feature("msg", event_names=["both"])
    api.feature("calls", event_names=["both"])
    api.feature("seats", "continuous_use")
    api.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "calls", "credit_cost": 0.3}])
    items: list[dict[str, Any]] = [{"feature_id": name, "included_usage": 100} for name in ("msg", "pool", "seats")]
    api.plan(
        "base", *items, {"feature_id": "msg", "included_usage": 20, "interval": "month"},
        {"feature_id": "msg", "included_usage": 8, "interval": "month", "entity_feature_id": "seats"}, is_default=True,
    )
    return api


@pytest.fixture
def api(seller: Api) -> Iterator[Api]:
    books.open_all(seller)
    yield seller
    audit(seller)


class Verb(NamedTuple):
    """A call that changes something: `before` makes what it needs."""

    path: str
    body: dict[str, Any]
    before: Callable[[Api, str], dict[str, Any]] = lambda api, c: {}
    """Returns more fields of the body."""

    def of(self, api: Api, c: str) -> tuple[str, dict[str, Any]]:
        return self.path.format(c=c), {"customer_id": c, **self.body, **self.before(api, c)}


def hold(api: Api, c: str) -> dict[str, Any]:
    return {"lock_id": api.check(c, "msg", 10, lock={"enabled": True})["lock_id"]}


def event(api: Api, c: str) -> dict[str, Any]:
    return {"refund_of": api.track(c, "msg", 30)["id"]}


def used(api: Api, c: str) -> dict[str, Any]:
    api.track(c, "msg", 30)
    return {}


def gift(api: Api, c: str) -> dict[str, Any]:
    api.post(BALANCES + "create", {"customer_id": c, "feature_id": "msg", "included_grant": 5, "balance_id": "gift"})
    return {}


def debt(api: Api, c: str) -> dict[str, Any]:
    api.track(c, "msg", 140, overage_behavior="overflow")
    return gift(api, c)


def entity(api: Api, c: str) -> dict[str, Any]:
    api.entity(c, "e1")
    return {"entity_id": "e1"}


MSG = {"feature_id": "msg"}
VERBS = {
    "track": Verb(TRACK, {**MSG, "value": 7}),
    "track of an entity": Verb(TRACK, {**MSG, "value": 7}, entity),
    "track by credits": Verb(TRACK, {"feature_id": "calls", "value": 7}),
    "track of an event of two features": Verb(TRACK, {"event_name": "both", "value": 7}),
    "track that applies less": Verb(TRACK, {**MSG, "value": 700}),
    "track that rejects": Verb(TRACK, {**MSG, "value": 7, "overage_behavior": "reject"}),
    "track that overflows": Verb(TRACK, {**MSG, "value": 700, "overage_behavior": "overflow"}),
    "track of nothing": Verb(TRACK, {**MSG, "value": 0}),
    "refund": Verb(TRACK, {**MSG, "value": -7}, used),
    "refund_of": Verb(TRACK, {"value": -7}, event),
    "refund_of all": Verb(TRACK, {}, event),
    "check that sends": Verb(CHECK, {**MSG, "required_balance": 7, "send_event": True}),
    "check that sends by credits": Verb(CHECK, {"feature_id": "calls", "required_balance": 7, "send_event": True}),
    "hold": Verb(CHECK, {**MSG, "required_balance": 7, "lock": {"enabled": True}}),
    "hold by track": Verb(TRACK, {**MSG, "value": 7, "lock": {"enabled": True}}),
    "confirm": Verb(FINALIZE, {"action": "confirm"}, hold),
    "confirm less": Verb(FINALIZE, {"action": "confirm", "override_value": 3}, hold),
    "confirm more": Verb(FINALIZE, {"action": "confirm", "override_value": 30}, hold),
    "release": Verb(FINALIZE, {"action": "release"}, hold),
    "create": Verb(BALANCES + "create", {**MSG, "included_grant": 5}),
    "create by name": Verb(BALANCES + "create", {**MSG, "included_grant": 5, "balance_id": "mine"}),
    "update remaining": Verb(BALANCES + "update", {**MSG, "remaining": 5}),
    "update usage": Verb(BALANCES + "update", {**MSG, "usage": 5}),
    "update by an amount": Verb(BALANCES + "update", {**MSG, "add_to_balance": 5}),
    "update the grant": Verb(BALANCES + "update", {**MSG, "included_grant": 130}),
    "update a date": Verb(BALANCES + "update", {**MSG, "balance_id": "gift", "expires_at": 4_000_000_000_000}, gift),
    "delete": Verb(BALANCES + "delete", {**MSG, "balance_id": "gift"}, gift),
    "recalculate": Verb(BALANCES + "recalculate", MSG, debt),
    "usage": Verb("/v1/usage", {**MSG, "value": 5}),
    "balances of a customer": Verb(
        "/v1/customers/{c}/balances", {"balances": [{"feature_id": "msg", "balance": 3}, {"feature_id": "pool", "balance": 4}]}
    ),
}


def send(api: Api, path: str, body: dict[str, Any], version: str) -> httpx.Response:
    headers = {"idempotency-key": "k", **({"x-api-version": version} if version else {})}
    return api.raw("POST", path, body, headers=headers)


def moved(api: Api, c: str) -> None:
    """Something else happens, so that an answer made anew would be another."""
    api.track(c, "msg", 1)
    api.track(c, "calls", 1)


@pytest.mark.parametrize("name", VERBS)
def test_a_repeat_changes_nothing_and_answers_the_same(api: Api, name: str) -> None:
    """P3, for every verb that changes something: at once, after other calls, many at a time, after the
    customer was evicted, and after Redis lost everything; twice each."""
    c, version = api.customer(), "2.1" if api.way == "short" else ""
    path, body = VERBS[name].of(api, c)
    start = books.digest(api, c)
    first = send(api, path, body, version)
    assert first.status_code == 200 and REPLAYED not in first.headers, first.text
    assert books.changed(start, books.digest(api, c)), "it changed something"

    def repeat() -> None:
        again = send(api, path, body, version)
        assert (again.status_code, again.text, again.headers.get(REPLAYED)) == (200, first.text, "true")

    with api.nothing_changes():
        repeat()
    moved(api, c)
    known = books.digest(api, c)
    with api.nothing_changes():
        repeat()
        headers = {"idempotency-key": "k", "x-api-version": version or "1.2"}
        answers = api.run(_gather(*(api.send("POST", path, body, headers=headers) for _ in range(AT_ONCE))))
        assert {(answer.status_code, answer.text) for answer in answers} == {(200, first.text)}
    for lose in (lambda: books.evict(api, c), lambda: books.lose_redis(api)):
        lose()
        repeat()
        repeat()
    assert not books.changed(known, books.digest(api, c))
    other = {**body, "unheard_of": 1}
    assert send(api, path, other, version).text == first.text, "unknown fields are no other call"


@pytest.mark.parametrize("lost", [False, True], ids=["known", "after a loss"])
@pytest.mark.parametrize("name", ["track", "check that sends", "hold", "confirm less", "refund_of", "update by an amount", "create", "delete"])
def test_of_the_same_call_many_times_at_once_one_is_made(api: Api, name: str, lost: bool) -> None:
    """P3 in a race: all answer alike, one of them for the first time; if it was made before Redis was
    lost, none."""
    c = api.customer()
    path, body = VERBS[name].of(api, c)
    before = books.balances(api, c)
    if lost:
        first = send(api, path, body, "").text
        after = books.balances(api, c)
        books.lose_redis(api)
    headers = {"idempotency-key": "k"}
    answers = api.run(_gather(*(api.send("POST", path, body, headers=headers) for _ in range(AT_ONCE))))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert sum(REPLAYED not in answer.headers for answer in answers) == (0 if lost else 1)
    if lost:
        assert answers[0].text == first and books.balances(api, c) == after
    assert books.balances(api, c) != before


def test_items_of_a_batch(api: Api) -> None:
    """P3, for each item by its own key, in another order, in other company, and by itself."""
    c, other = api.customer(), api.customer()
    lock = {"enabled": True, "lock_id": f"{c}-l"}
    used = api.track(c, "msg", 20)["id"]
    items: list[dict[str, Any]] = [
        {"customer_id": c, "feature_id": "msg", "value": 3}, {"customer_id": other, "feature_id": "calls", "value": 5},
        {"customer_id": c, "event_name": "both", "value": 2}, {"customer_id": c, "feature_id": "msg", "value": 4, "lock": lock},
        {"customer_id": c, "refund_of": used, "value": -6}, {"customer_id": c, "feature_id": "msg", "value": 9000},
    ]
    items = [{**item, "idempotency_key": f"k{number}"} for number, item in enumerate(items)]
    first = api.post(BATCH, items, 202)["results"]
    assert {result["status"] for result in first} == {200}
    api.post(FINALIZE, {"lock_id": lock["lock_id"], "action": "confirm", "override_value": 1})
    known = books.digest(api, c, other)
    for lose in (lambda: None, lambda: books.evict(api, c), lambda: books.lose_redis(api)):
        lose()
        assert api.post(BATCH, items, 202)["results"] == first
        assert api.post(BATCH, [*items[::-1], *items], 202)["results"] == [*first[::-1], *first]
        assert not books.changed(known, books.digest(api, c, other))
    alone = api.post(TRACK, items[0], headers={"x-api-version": "2.1"})
    assert alone["event_id"] == first[0]["event_id"] and not books.changed(known, books.digest(api, c, other))
    fresh = {**items[0], "idempotency_key": "fresh"}
    results = api.post(BATCH, [items[0], fresh, {**items[1], "value": 6}], 202)["results"]
    assert results[0] == first[0] and results[1]["event_id"] != first[0]["event_id"]
    assert (results[2]["status"], results[2]["code"]) == (409, "duplicate_idempotency_key")
    assert books.changed(known, books.digest(api, c, other))


async def _gather(*calls: Any) -> list[httpx.Response]:
    return list(await asyncio.gather(*calls))
