"""attach, checkout and the customers they are for: what an order carries with it, whom it may make,
and what happens when the catalog or the customer changes under it.
"""

from __future__ import annotations

from typing import Any, Awaitable, Callable

import pytest

from sidecar.billing import entities
from tests.http import DAY_MS, Api, catch_up

pytestmark = pytest.mark.ways("asgi")  # the exceptions call check or track

ATTACH, CHECKOUT = "/v1/attach", "/v1/checkout"


@pytest.fixture
def shop(api: Api) -> Api:
    """Sells a free plan by default, and in the same group pro at $20 a month."""
    api.feature("msg")
    api.feature("words")
    api.feature("seats", "continuous_use")
    api.feature("flag", "boolean")
    api.plan("free", {"feature_id": "msg", "included_usage": 10}, {"feature_id": "words", "included_usage": 10}, is_default=True)
    api.plan(
        "pro", {"price": 20, "interval": "month"}, {"feature_id": "msg", "included_usage": 100, "interval": "month"},
        {"feature_id": "words", "included_usage": 50, "interval": "month", "reset_usage_when_enabled": False},
    )
    return api


def numbers(api: Api, customer_id: str) -> dict[str, tuple[Any, Any]]:
    return {name: (shown["balance"], shown["usage"]) for name, shown in api.balances(customer_id).items()}


# -- usage that is carried over


@pytest.mark.ways("asgi", "short")
@pytest.mark.parametrize("route", [ATTACH, CHECKOUT])
@pytest.mark.parametrize(
    ("carry", "msg", "words"),
    [
        (None, (100, 0), (46, 4)),
        ({"enabled": True}, (97, 3), (46, 4)),
        ({"enabled": False}, (100, 0), (50, 0)),
        ({"enabled": True, "feature_ids": ["msg"]}, (97, 3), (46, 4)),
        ({"enabled": True, "feature_ids": []}, (100, 0), (46, 4)),
        ({"enabled": False, "feature_ids": ["words"]}, (100, 0), (50, 0)),
    ],
    ids=str,
)
def test_the_calls_word_on_usage_beats_the_plans(shop: Api, route: str, carry: Any, msg: Any, words: Any) -> None:
    """Case 208, and through a checkout that is paid later."""
    c = shop.customer()
    shop.track(c, "msg", 3)
    shop.track(c, "words", 4)
    answer = shop.post(route, {"customer_id": c, "product_id": "pro", "carry_over_usages": carry})
    assert numbers(shop, c) == {"msg": (7, 3), "words": (6, 4)}, "nothing changes before it is paid"
    shop.pay(answer["url"])
    assert numbers(shop, c) == {"msg": msg, "words": words}


@pytest.mark.parametrize(
    ("carry", "status", "code", "name"),
    [
        (True, 400, "invalid_inputs", "carry_over_usages:"), ({}, 400, "invalid_inputs", "carry_over_usages.enabled:"),
        ({"enabled": "yes"}, 400, "invalid_inputs", "carry_over_usages.enabled:"),
        ({"enabled": True, "feature_ids": "msg"}, 400, "invalid_inputs", "carry_over_usages.feature_ids:"),
        ({"enabled": True, "feature_ids": [5]}, 400, "invalid_inputs", "carry_over_usages.feature_ids[0]:"),
        ({"enabled": True, "feature_ids": ["nope"]}, 404, "feature_not_found", "feature 'nope'"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_carry_over_is_named(shop: Api, carry: Any, status: int, code: str, name: str) -> None:
    body = {"customer_id": "nobody", "product_id": "pro", "carry_over_usages": carry}
    assert shop.refused(ATTACH, body, status, code).startswith(name)


# -- cards and prices


def test_a_price_of_zero_needs_no_card(shop: Api) -> None:
    shop.plan("zero", {"price": 0, "interval": "month"}, {"feature_id": "msg", "included_usage": 30, "interval": "month"})
    c = shop.customer()
    answer = shop.post(ATTACH, {"customer_id": c, "product_id": "zero"})
    assert (answer["code"], answer["checkout_url"]) == ("free_product_attached", None)
    assert shop.balances(c)["msg"]["balance"] == 30
    assert shop.post(CHECKOUT, {"customer_id": c, "product_id": "pro"})["url"], "a price above zero needs one"


def test_a_default_plan_may_ask_for_no_quantity(shop: Api) -> None:
    """Else no customer could be made any more."""
    item = {"feature_id": "msg", "price": 0, "billing_units": 10, "usage_model": "prepaid"}
    message = shop.refused("/v1/products", {"id": "d", "name": "D", "items": [item], "is_default": True}, 400, "invalid_inputs")
    assert message.startswith("is_default")


def test_setup_payment_collects_a_card_for_a_free_plan_too(shop: Api) -> None:
    shop.plan("other", {"feature_id": "words", "included_usage": 1}, group="other")
    c = shop.customer()
    answer = shop.post(ATTACH, {"customer_id": c, "product_id": "other", "setup_payment": True})
    assert answer["code"] == "checkout_created" and shop.balances(c)["words"]["balance"] == 10
    shop.pay(answer["url"])
    assert shop.balances(c)["words"]["balance"] == 11
    assert shop.get(f"/v1/customers/{c}?expand=payment_method")["payment_method"] is not None
    assert shop.post(ATTACH, {"customer_id": c, "product_id": "pro", "setup_payment": True})["checkout_url"] is None


# -- the billing cycle


@pytest.mark.parametrize("interval, keeps", [(None, False), ("month", True), ("year", False)])
def test_period_next_cycle_and_reset_are_one_date(shop: Api, interval: str | None, keeps: bool) -> None:
    """A customer of the free plan buys pro two weeks later: the old date survives a switch from an
    interval that is not longer, else the cycle begins with the purchase."""
    shop.plan("start", {"feature_id": "msg", "included_usage": 10, "interval": interval}, group="g")
    shop.plan("paid", {"price": 20, "interval": "month"}, {"feature_id": "msg", "included_usage": 100, "interval": "month"}, group="g")
    c = shop.customer("start")
    began = shop.get(f"/v1/customers/{c}")["products"][-1]["started_at"]
    shop.advance(14 * DAY_MS)
    answer = shop.post(CHECKOUT, {"customer_id": c, "product_id": "paid"})
    shop.pay(answer["url"])
    shown = shop.get(f"/v1/customers/{c}")
    paid = next(product for product in shown["products"] if product["id"] == "paid")
    bucket = next(part for part in shown["features"]["msg"]["breakdown"] if part["included_usage"] == 100)
    assert paid["current_period_start"] == (began if keeps else paid["started_at"])
    assert paid["current_period_end"] == bucket["next_reset_at"]
    assert abs(answer["next_cycle"]["starts_at"] - bucket["next_reset_at"]) < 5_000, "quoted a moment before"


# -- an order that is refused makes nobody


@pytest.mark.parametrize("route", [ATTACH, CHECKOUT])
@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"options": [{"feature_id": "msg", "quantity": 5}]}, 400, "invalid_options"),
        ({"entity_id": "e"}, 404, "entity_not_found"),
        ({"entity_id": "e", "entity_data": {"feature_id": "nope"}}, 404, "feature_not_found"),
        ({"entity_id": "e", "entity_data": {"feature_id": "flag"}}, 400, "invalid_inputs"),
        ({"product_id": "free"}, 409, "customer_product_already_exists"),
        (
            {"entity_id": "e", "entity_data": {"feature_id": "seats"}, "options": [{"feature_id": "msg", "quantity": 5}]},
            400, "invalid_options",
        ),
    ],
    ids=str,
)
def test_a_refused_order_makes_no_customer(shop: Api, route: str, fields: dict[str, Any], status: int, code: str) -> None:
    shop.refused(route, {"customer_id": "nobody", "product_id": "pro", **fields}, status, code)
    shop.get("/v1/customers/nobody", 404)


@pytest.mark.ways("asgi", "short")
def test_an_order_makes_its_customer_and_its_entity(shop: Api) -> None:
    shop.plan("own", {"feature_id": "words", "included_usage": 5}, group="own")
    body = {"customer_id": "new", "product_id": "own", "entity_id": "e", "entity_data": {"feature_id": "seats", "name": "E"}}
    shop.post(ATTACH, {**body, "customer_data": {"name": "N"}})
    assert shop.get("/v1/customers/new")["name"] == "N"
    assert shop.get("/v1/customers/new/entities/e")["features"]["words"]["balance"] == 15
    assert shop.check("new", "words", 11)["allowed"] is False, "the customer itself holds 10"


@pytest.mark.ways("asgi", "short")
@pytest.mark.parametrize("path", ["/v1/check", "/v1/track"])
def test_an_entity_of_a_wrong_feature_makes_no_customer(shop: Api, path: str) -> None:
    body = {"customer_id": "nobody", "feature_id": "msg", "entity_id": "e", "entity_data": {"feature_id": "flag"}}
    shop.refused(path, body, 400, "invalid_inputs")


# -- the catalog moves


def meanwhile(api: Api, change: Callable[[int], Awaitable[Any]]) -> None:
    """Makes a change each of the next two times that the catalog has just been read."""
    cache, times, busy = api.ctx.catalog, [0], [False]
    read = cache.refresh

    async def refresh() -> Any:
        seen = await read()
        if times[0] < 2 and not busy[0]:  # the change reads the catalog too
            times[0] += 1
            busy[0] = True
            await change(times[0])
            busy[0] = False
        return seen

    cache.refresh = refresh  # type: ignore[method-assign]


def granted_is_what_the_plan_says(api: Api, customer_id: str, plan_id: str) -> None:
    shown = api.get(f"/v1/customers/{customer_id}")
    plan = next(product for product in shown["products"] if product["id"] == plan_id)
    says = next(item["included_usage"] for item in plan["items"] if item["feature_id"] == "msg")
    assert shown["features"]["msg"]["included_usage"] == says


@pytest.mark.ways("asgi", "short")
@pytest.mark.parametrize("how", ["attach", "create", "check"])
def test_a_plan_edited_while_it_is_granted_is_granted_as_it_is_then(shop: Api, how: str) -> None:
    """Nobody holds the plan yet, so the edit is made in place."""
    plan_id = "own" if how == "attach" else "free"
    if how == "attach":
        shop.plan("own", {"feature_id": "msg", "included_usage": 1})
        shop.customer(id="c")
    edit = lambda n: shop.send("POST", f"/v1/products/{plan_id}", {"items": [{"feature_id": "msg", "included_usage": 200 + n}]})  # noqa: E731
    meanwhile(shop, edit)
    if how == "attach":
        shop.post(ATTACH, {"customer_id": "c", "product_id": plan_id})
    elif how == "create":
        shop.customer(id="c")
    else:
        shop.check("c")
    granted_is_what_the_plan_says(shop, "c", plan_id)


def test_a_plan_deleted_while_it_is_ordered_is_not_found(shop: Api) -> None:
    shop.customer(id="c")
    shop.plan("brief", {"feature_id": "msg", "included_usage": 1})
    meanwhile(shop, lambda _: shop.send("DELETE", "/v1/products/brief"))
    assert shop.post(ATTACH, {"customer_id": "c", "product_id": "brief"}, 404)["code"] == "product_not_found"


# -- the customer goes


def test_an_entity_is_not_settled_for_a_later_customer_of_that_name(shop: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.customer(id="c")
    project, times = entities.project, [0]

    async def slow(ctx: Any, customer_id: str, cid: int | None = None) -> Any:
        times[0] += 1
        if times[0] == 1:
            await shop.send("DELETE", "/v1/customers/c")
            await shop.send("POST", "/v1/customers", {"id": "c"})
        return await project(ctx, customer_id, cid)

    monkeypatch.setattr(entities, "project", slow)
    shop.post("/v1/customers/c/entities", {"id": "e", "feature_id": "seats"}, 404)
    assert shop.get("/v1/customers/c/entities")["list"] == []
    shop.post("/v1/customers/c/entities", {"id": "e", "feature_id": "seats"})
    assert [entity["id"] for entity in shop.get("/v1/customers/c/entities")["list"]] == ["e"]


def test_a_refused_entity_is_not_forgotten_when_it_is_let_in_later(shop: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQL hears of the refusal just after the next try was written."""
    shop.plan("two", {"feature_id": "seats", "included_usage": 1, "price": 7, "usage_limit": 2, "usage_model": "pay_per_use"})
    c = shop.customer("two")
    path = f"/v1/customers/{c}/entities"
    shop.post(path, {"id": "e1", "feature_id": "seats"})
    shop.sync()
    shop.post(path, [{"id": "e2", "feature_id": "seats"}, {"id": "e3", "feature_id": "seats"}], 400)
    project = entities.project

    async def slow(ctx: Any, customer_id: str, cid: int | None = None) -> Any:
        await catch_up(shop)
        return await project(ctx, customer_id, cid)

    monkeypatch.setattr(entities, "project", slow)
    assert shop.post(path, {"id": "e2", "name": "Second", "feature_id": "seats"})["name"] == "Second"
    shop.sync()
    assert [entity["name"] for entity in shop.get(path)["list"]] == [None, "Second"]


# -- ids and keys


def test_ids_with_a_slash_are_reached_by_their_encoded_form(shop: Api) -> None:
    shop.customer(id="org/1")
    assert shop.get("/v1/customers/org%2F1")["id"] == "org/1"
    path = "/v1/customers/org%2f1/entities"
    assert shop.post(path, {"id": "a/b", "feature_id": "seats"})["id"] == "a/b"
    assert shop.get(f"{path}/a%2Fb")["id"] == "a/b"
    assert shop.call("DELETE", f"{path}/a%2Fb") == {"success": True}
    assert shop.call("DELETE", "/v1/customers/org%2F1") == {"success": True}
    shop.get("/v1/customers/org%2F1", 404)
    shop.get("/v1/customers/org/1", 404)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", ATTACH, {"customer_id": "c", "product_id": "pro"}), ("POST", CHECKOUT, {"customer_id": "c", "product_id": "pro"}),
        ("POST", "/v1/customers", {"id": "new"}), ("POST", "/v1/customers/c", {"name": "x"}), ("DELETE", "/v1/customers/c", None),
        ("POST", "/v1/customers/c/entities", {"id": "e", "feature_id": "seats"}), ("POST", "/v1/features", {"id": "f", "type": "boolean"}),
        ("POST", "/v1/products", {"id": "p", "name": "P"}), ("POST", "/v1/setup_payment", {"customer_id": "c"}),
    ],
    ids=lambda part: str(part)[:24],
)
def test_an_idempotency_key_is_refused_where_it_has_no_effect(shop: Api, method: str, path: str, body: Any) -> None:
    shop.customer(id="c")
    with shop.nothing_changes():
        answer = shop.call(method, path, body, 400, headers={"idempotency-key": "k"})
    assert answer["code"] == "not_supported" and answer["message"].startswith("Idempotency-Key")
    shop.call(method, path, body)


@pytest.mark.ways("asgi", "short")
@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"required_balance": "x"}, "required_balance"), ({"send_event": 1}, "send_event"), ({"properties": []}, "properties"),
        ({"entity_data": 5}, "entity_data"), ({"idempotency_key": 5}, "idempotency_key"), ({"customer_data": {"name": 5}}, "customer_data.name"),
    ],
    ids=str,
)
@pytest.mark.parametrize("asked", [{"product_id": "free"}, {"feature_id": "msg"}], ids=str)
def test_a_check_of_either_kind_reads_every_field(shop: Api, asked: dict[str, Any], fields: dict[str, Any], name: str) -> None:
    shop.customer(id="c")
    assert shop.refused("/v1/check", {"customer_id": "c", **asked, **fields}, 400, "invalid_inputs").startswith(name)


@pytest.mark.ways("asgi", "short")
def test_a_check_of_a_credit_system_tells_what_its_members_cost(shop: Api) -> None:
    """Every field of a 1.2 feature but id, type and name."""
    shop.feature("pool", "credit_system", credit_schema=[{"metered_feature_id": "msg", "credit_cost": 3}])
    shop.plan("credits", {"feature_id": "pool", "included_usage": 50, "interval": "month"}, group="c")
    c = shop.customer("credits")
    shown, checked = shop.balances(c)["pool"], shop.check(c, "pool")
    assert checked["credit_schema"] == [{"feature_id": "msg", "credit_amount": 3}]
    assert {name: checked[name] for name in shown.keys() - {"id", "type", "name"}} == {
        name: value for name, value in shown.items() if name not in ("id", "type", "name")
    }
