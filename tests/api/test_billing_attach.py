"""billing.attach, billing.preview_attach and billing.setup_payment: both generations of the wire on
every path, when a purchase happens at once and when on the page, and what is refused.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.http import Api

pytestmark = pytest.mark.ways("asgi")  # the exceptions call check or track

V12, V20, V23, V25 = ({"x-api-version": version} for version in ("1.2", "2.0.0", "2.3.0", "2.5.0"))
ATTACH, PREVIEW, SETUP = "/v1/billing.attach", "/v1/billing.preview_attach", "/v1/billing.setup_payment"
PREVIEW_FIELDS = {
    "customer_id", "line_items", "subtotal", "total", "currency", "incoming", "outgoing", "redirect_to_checkout", "checkout_type",
}
"""What the strict 2.x clients want."""
LINE_FIELDS = {"display_name", "description", "subtotal", "total", "plan_id", "feature_id", "quantity"}
CHANGE_FIELDS = {"plan_id", "feature_quantities", "effective_at", "canceled_at", "expires_at"}


@pytest.fixture
def shop(api: Api) -> Api:
    """Sells a free plan by default, in the same group pro at $20 and basic at $5 a month, a top-up
    of 100 for $10, and packs of 3 tokens at $5 beside 2 included, a month."""
    api.feature("msg")
    api.feature("tokens")
    api.feature("seats", "continuous_use")
    monthly = {"feature_id": "msg", "interval": "month"}
    api.plan("free", {**monthly, "included_usage": 10}, is_default=True)
    api.plan("pro", {"price": 20, "interval": "month"}, {**monthly, "included_usage": 100})
    api.plan("basic", {"price": 5, "interval": "month"}, {**monthly, "included_usage": 50})
    api.plan("gratis", {**monthly, "included_usage": 7}, group="other")
    api.plan("top_up", {"feature_id": "msg", "price": 10, "billing_units": 100, "usage_model": "prepaid"})
    api.plan(
        "packs", {"price": 1, "interval": "month"},
        {"feature_id": "tokens", "included_usage": 2, "interval": "month", "price": 5, "billing_units": 3, "usage_model": "prepaid"},
        {**monthly, "price": 1, "usage_model": "pay_per_use"},
        group="packs",
    )
    return api


def order(customer_id: str, plan_id: str, **fields: Any) -> dict[str, Any]:
    return {"customer_id": customer_id, "plan_id": plan_id, **fields}


def attach(api: Api, customer_id: str, plan_id: str, headers: dict[str, str] = V23, **fields: Any) -> Any:
    return api.post(ATTACH, order(customer_id, plan_id, **fields), headers=headers)


def with_card(api: Api) -> str:
    c = api.customer()
    api.pay(api.post(SETUP, {"customer_id": c}, headers=V23)["url"])
    return c


def balance(api: Api, customer_id: str, feature_id: str = "msg") -> Any:
    return api.balances(customer_id)[feature_id]["balance"]


# -- at once, or on the page


def test_a_free_plan_is_attached_at_once(shop: Api) -> None:
    c = shop.customer()
    assert attach(shop, c, "gratis") == {"customer_id": c, "payment_url": None}
    assert balance(shop, c) == 17


def test_a_priced_plan_waits_for_its_page(shop: Api) -> None:
    c = shop.customer()
    answer = attach(shop, c, "pro", success_url="https://example.com/done")
    assert set(answer) == {"customer_id", "payment_url"} and balance(shop, c) == 10
    shop.pay(answer["payment_url"])
    assert balance(shop, c) == 100
    shop.pay(answer["payment_url"])
    assert balance(shop, c) == 100, "paid twice applies once"


def test_with_a_card_it_is_attached_at_once(shop: Api) -> None:
    c = with_card(shop)
    assert attach(shop, c, "pro", redirect_mode="if_required")["payment_url"] is None
    assert balance(shop, c) == 100


def test_always_means_the_page_even_with_a_card(shop: Api) -> None:
    c = with_card(shop)
    url = attach(shop, c, "pro", redirect_mode="always")["payment_url"]
    assert url and balance(shop, c) == 10
    shop.pay(url)
    assert balance(shop, c) == 100
    assert attach(shop, c, "gratis", redirect_mode="always")["payment_url"] is None, "nothing is to be paid"


def test_never_means_no_page(shop: Api) -> None:
    c = shop.customer()
    message = shop.refused(ATTACH, order(c, "pro", redirect_mode="never"), 400, "invalid_request", headers=V23)
    assert message.startswith("redirect_mode:")
    assert attach(shop, c, "gratis", redirect_mode="never")["payment_url"] is None
    assert attach(shop, with_card(shop), "pro", redirect_mode="never")["payment_url"] is None


def test_never_makes_nobody_on_the_way(shop: Api) -> None:
    body = order("nobody", "pro", redirect_mode="never", entity_id="e1", entity_data={"feature_id": "seats"})
    shop.refused(ATTACH, body, 400, "invalid_request")
    shop.refused(ATTACH, order("nobody", "pro", redirect_mode="never"), 400, "invalid_request")
    shop.get("/v1/customers/nobody", 404)


# -- quantities


@pytest.mark.parametrize("quantity, total, granted", [(2, 1, 2), (3, 6, 5), (5, 6, 5), (6, 11, 8), (0, 1, 2)])
def test_quantities_count_the_included_units(shop: Api, quantity: int, total: int, granted: int) -> None:
    c = with_card(shop)
    wanted = [{"feature_id": "tokens", "quantity": quantity}]
    seen = shop.post(PREVIEW, order(c, "packs", feature_quantities=wanted), headers=V23)
    assert seen["total"] == total
    assert seen["incoming"][0]["feature_quantities"] == [{"feature_id": "tokens", "quantity": granted}]
    attach(shop, c, "packs", feature_quantities=wanted)
    assert balance(shop, c, "tokens") == granted


def test_options_count_beyond_the_included_units_at_any_version(shop: Api) -> None:
    for version in (V12, V23):
        c = with_card(shop)
        attach(shop, c, "packs", version, options=[{"feature_id": "tokens", "quantity": 3}])
        assert balance(shop, c, "tokens") == 5


def test_a_top_up_stacks(shop: Api) -> None:
    """As autumn-sdk sends it: floats where whole numbers are meant."""
    c = with_card(shop)
    for expected in (210, 410):
        body = b'{"customer_id": "%s", "plan_id": "top_up", "feature_quantities": [{"feature_id": "msg", "quantity": 200.0}]}'
        shop.post(ATTACH, content=body % c.encode(), headers=V25)
        assert balance(shop, c) == expected


@pytest.mark.parametrize(
    "given", [None, [], [{"feature_id": "tokens"}], [{"feature_id": "tokens", "quantity": None}]], ids=str
)
def test_a_prepaid_item_needs_its_quantity(shop: Api, given: Any) -> None:
    c = with_card(shop)
    shop.refused(ATTACH, order(c, "packs", feature_quantities=given), 400, "invalid_options", headers=V23)


# -- when


@pytest.mark.ways("asgi", "short")
@pytest.mark.parametrize("version", [V12, V23], ids=str)
def test_a_downgrade_now(shop: Api, version: dict[str, str]) -> None:
    c = with_card(shop)
    attach(shop, c, "pro")
    shop.track(c, "msg", 30)
    body = order(c, "basic")
    assert "plan_schedule" in shop.refused(ATTACH, body, 400, "not_supported", headers=version)
    attach(shop, c, "basic", version, plan_schedule="immediate", carry_over_usages={"enabled": True})
    assert balance(shop, c) == 20
    attach(shop, c, "free", version, plan_schedule="immediate")
    assert balance(shop, c) == 10


def test_the_end_of_the_cycle_is_refused_where_it_would_be_waited_for(shop: Api) -> None:
    c = with_card(shop)
    message = shop.refused(ATTACH, order(c, "pro", plan_schedule="end_of_cycle"), 400, "not_supported", headers=V23)
    assert message.startswith("plan_schedule:")
    attach(shop, c, "gratis", plan_schedule="end_of_cycle")
    assert balance(shop, c) == 17, "it replaces nothing, so there is nothing to wait for"


@pytest.mark.ways("asgi", "short")
def test_what_an_order_says_is_kept_until_it_is_paid(shop: Api) -> None:
    c = shop.customer()
    shop.track(c, "msg", 4)
    url = attach(
        shop, c, "pro", plan_schedule="immediate", carry_over_balances={"enabled": True, "feature_ids": ["msg"]}
    )["payment_url"]
    shop.track(c, "msg", 1)
    shop.pay(url)
    assert balance(shop, c) == 105, "what is left when it is paid"


# -- versions and paths


@pytest.mark.parametrize("path", ["/v1/attach", ATTACH])
@pytest.mark.parametrize("name", ["plan_id", "product_id"])
def test_the_version_alone_decides_the_shape_of_attach(shop: Api, path: str, name: str) -> None:
    for version in (None, V12, V20):
        c = with_card(shop)
        answer = shop.post(path, {"customer_id": c, name: "pro"}, headers=version)
        assert set(answer) == {"success", "customer_id", "product_ids", "code", "message", "checkout_url", "url"}
        assert answer["code"] == "upgraded_to_new_product" and balance(shop, c) == 100
    for version in (V23, V25, {"x-api-version": "2.1"}):
        c = with_card(shop)
        assert shop.post(path, {"customer_id": c, name: "pro"}, headers=version) == {"customer_id": c, "payment_url": None}


@pytest.mark.parametrize("path", ["/v1/attach/preview", PREVIEW, "/v1/checkout"])
def test_the_version_alone_decides_the_shape_of_a_preview(shop: Api, path: str) -> None:
    c = shop.customer()
    older = shop.post(path, order(c, "pro"), headers=V12)
    assert {"url", "lines", "product", "current_product", "options", "total", "has_prorations"} <= set(older)
    assert (older["url"] is not None) is (path == "/v1/checkout")
    newer = shop.post(path, order(c, "pro"), headers=V23)
    assert PREVIEW_FIELDS <= set(newer)


@pytest.mark.ways("asgi", "short")
def test_answers_name_the_entity(shop: Api) -> None:
    c = shop.customer()
    shop.plan("room", {"feature_id": "seats", "included_usage": 5}, group="seats")
    attach(shop, c, "room")
    shop.entity(c, "e1")
    assert attach(shop, c, "gratis", entity_id="e1") == {"customer_id": c, "payment_url": None, "entity_id": "e1"}
    assert shop.check(c, "msg", entity_id="e1")["balance"] == 17
    shop.refused(ATTACH, order(c, "gratis", entity_id="e2"), 404, "entity_not_found", headers=V23)


# -- previews


def test_a_preview_says_what_the_strict_clients_want(shop: Api) -> None:
    c = shop.customer()
    with shop.nothing_changes():
        seen = shop.post(PREVIEW, order(c, "pro"), headers=V25)
    assert PREVIEW_FIELDS | {"next_cycle"} == set(seen)
    assert seen["line_items"] == [{
        "display_name": "Pro", "description": "Pro", "subtotal": 20, "total": 20, "plan_id": "pro", "feature_id": None,
        "quantity": 1,
    }]
    assert (seen["subtotal"], seen["total"], seen["currency"]) == (20, 20, "usd")
    assert [change["plan_id"] for change in seen["incoming"]] == ["pro"]
    assert [change["plan_id"] for change in seen["outgoing"]] == ["free"]
    assert all(set(change) == CHANGE_FIELDS for change in [*seen["incoming"], *seen["outgoing"]])
    assert (seen["redirect_to_checkout"], seen["checkout_type"]) == (True, "autumn_checkout")
    assert seen["next_cycle"]["total"] == 20 and len(seen["next_cycle"]["line_items"]) == 1


def test_a_preview_of_quantities_and_usage(shop: Api) -> None:
    c = with_card(shop)
    body = order(c, "packs", feature_quantities=[{"feature_id": "tokens", "quantity": 8}])
    seen = shop.post(PREVIEW, body, headers=V23)
    assert all(set(line) == LINE_FIELDS for line in seen["line_items"])
    bought = seen["line_items"][1]
    assert (bought["feature_id"], bought["quantity"], bought["total"]) == ("tokens", 6, 10)
    assert seen["outgoing"] == [] and (seen["redirect_to_checkout"], seen["checkout_type"]) == (False, None)
    assert [line["feature_id"] for line in seen["next_cycle"]["usage_line_items"]] == ["msg"]
    attach(shop, c, "packs", feature_quantities=body["feature_quantities"])
    shop.plan("more", {"price": 9, "interval": "month"}, group="packs")
    (gone,) = shop.post(PREVIEW, order(c, "more"), headers=V23)["outgoing"]
    assert gone["feature_quantities"] == [{"feature_id": "tokens", "quantity": 8}]


def test_a_preview_refuses_what_attach_would(shop: Api) -> None:
    c = with_card(shop)
    attach(shop, c, "pro")
    for plan_id, status, code in (
        ("pro", 409, "customer_product_already_exists"), ("basic", 400, "not_supported"), ("none", 404, "product_not_found"),
        ("packs", 400, "invalid_options"),
    ):
        shop.refused(PREVIEW, order(c, plan_id), status, code, headers=V23)
        shop.refused(ATTACH, order(c, plan_id), status, code, headers=V23)


def test_a_preview_makes_nobody(shop: Api) -> None:
    for version in (V12, V23):
        shop.refused(PREVIEW, order("nobody", "pro"), 404, "customer_not_found", headers=version)


# -- who buys


def test_newer_callers_must_name_a_customer_there_is(shop: Api) -> None:
    for path, body in ((ATTACH, order("ghost", "pro")), (SETUP, {"customer_id": "ghost"}), (SETUP, order("ghost", "pro"))):
        shop.refused(path, body, 404, "customer_not_found", headers=V23)
    assert attach(shop, "ghost", "gratis", V12)["success"]
    assert balance(shop, "ghost") == 17


# -- cards


def test_setup_payment_puts_a_card_on_file(shop: Api) -> None:
    for path in ("/v1/setup_payment", SETUP):
        for version in (V12, V23):
            c = shop.customer()
            answer = shop.post(path, {"customer_id": c, "success_url": "https://example.com"}, headers=version)
            assert set(answer) == {"customer_id", "url"} and answer["customer_id"] == c
            shop.pay(answer["url"])
            assert attach(shop, c, "pro")["payment_url"] is None


def test_setup_payment_of_a_plan_applies_it_then(shop: Api) -> None:
    c = shop.customer()
    answer = shop.post(SETUP, order(c, "pro"), headers=V23)
    assert balance(shop, c) == 10
    shop.pay(answer["url"])
    assert balance(shop, c) == 100
    shop.refused(SETUP, order(c, "pro"), 409, "customer_product_already_exists", headers=V23)


# -- what is refused


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("discounts", [{"reward_id": "r"}]), ("customize", {"price": None, "items": [{"feature_id": "msg"}]}),
        ("invoice_mode", {"enabled": True}), ("proration_behavior", "none"), ("subscription_id", "s"),
        ("billing_cycle_anchor", "now"), ("starts_at", 1), ("ends_at", 1), ("long_lived_checkout", True),
        ("custom_line_items", [{"amount": 1, "description": "x"}]), ("license_quantities", [{"license_plan_id": "l", "quantity": 1}]),
        ("no_billing_changes", True), ("enable_plan_immediately", True), ("tax_rate_id", "t"), ("remove_plan_ids", ["pro"]),
        ("new_billing_subscription", True), ("free_trial", {"length": 7}), ("metadata", {"a": "b"}), ("currency", "eur"),
        ("version", 9), ("processor_subscription_id", "p"),
    ],
)
def test_what_is_not_built_is_refused_by_name(shop: Api, field: str, value: Any) -> None:
    c = shop.customer()
    for path in (ATTACH, PREVIEW):
        body = order(c, "gratis", **{field: value})
        assert shop.refused(path, body, 400, "not_supported", headers=V23).startswith(f"{field}:")


def test_fields_that_ask_for_nothing_are_fine(shop: Api) -> None:
    c = shop.customer()
    attach(
        shop, c, "gratis", discounts=[], customize=None, invoice_mode={"enabled": False}, metadata={}, currency="USD",
        version=1, no_billing_changes=False, plan_schedule=None, redirect_mode=None, carry_over_usages=None, unheard_of=1,
    )
    assert balance(shop, c) == 17


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"redirect_mode": "perhaps"}, "redirect_mode"), ({"redirect_mode": 5}, "redirect_mode"),
        ({"plan_schedule": "later"}, "plan_schedule"), ({"plan_schedule": True}, "plan_schedule"),
        ({"product_id": "pro"}, "product_id"), ({"redirect_mode": "never", "force_checkout": True}, "redirect_mode"),
        ({"carry_over_balances": {"feature_ids": []}}, "carry_over_balances.enabled"),
        ({"carry_over_balances": {"enabled": True, "feature_ids": [""]}}, "carry_over_balances.feature_ids[0]"),
        ({"success_url": "javascript://x"}, "success_url"), ({"currency": 5}, "currency"),
    ],
    ids=str,
)
def test_wrong_values_are_named(shop: Api, fields: dict[str, Any], name: str) -> None:
    c = shop.customer()
    message = shop.refused(ATTACH, order(c, "gratis", **fields), 400, "invalid_inputs", headers=V23)
    assert message.startswith(f"{name}:")


@pytest.mark.parametrize("name", ["multi_attach", "update", "preview_update", "create_schedule", "open_customer_portal"])
def test_routes_that_are_not_built_say_so(shop: Api, name: str) -> None:
    path = f"billing.{name}"
    assert shop.refused(f"/v1/{path}", {"customer_id": "c"}, 400, "not_supported", headers=V23).startswith(f"{path}:")
