"""Paying: once, whatever the buyer does; and what a checkout's address may do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.flows.client import Api
from tests.run.harness import Sidecar


@pytest.fixture
def top_up(api: Api) -> tuple[str, str]:
    """A customer and the address of a checkout for 200 messages."""
    customer_id = api.customer()
    checkout = api.checkout(customer_id, "top_up", options=[{"feature_id": "messages", "quantity": 200}])
    return customer_id, checkout["url"]


def balance(api: Api, customer_id: str) -> int:
    return int(api.check(customer_id, "messages")["balance"])


def test_paying_twice_grants_once(api: Api, top_up: tuple[str, str]) -> None:
    customer_id, url = top_up
    first, second = api.pay(url), api.pay(url)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json() == {"status": "paid"}
    assert balance(api, customer_id) == 210
    shown = api.buyer.get(url, headers={"Accept": "text/html"})
    assert shown.status_code == 200 and "Payment complete" in shown.text and "<form" not in shown.text


def test_two_tabs_at_once_grant_once(api: Api, top_up: tuple[str, str]) -> None:
    customer_id, url = top_up
    with ThreadPoolExecutor(8) as tabs:
        answers = list(tabs.map(lambda _: api.pay(url).status_code, range(8)))
    assert answers == [200] * 8
    assert balance(api, customer_id) == 210
    held = [p["id"] for p in api.get(f"/v1/customers/{customer_id}")["products"]]
    assert held.count("top_up") == 1


def test_cancel_then_pay_is_gone(api: Api, top_up: tuple[str, str]) -> None:
    customer_id, url = top_up
    assert api.buyer.post(url + "/cancel").status_code == 200
    refused = api.pay(url)
    assert (refused.status_code, refused.json()["code"]) == (410, "checkout_expired")
    assert api.buyer.get(url).status_code == 410
    assert api.buyer.post(url + "/cancel").status_code == 200, "cancelling again is fine"
    assert balance(api, customer_id) == 10
    assert api.get(f"/v1/customers/{customer_id}", params={"expand": "payment_method"})["payment_method"] is None


def test_a_paid_checkout_cannot_be_cancelled(api: Api, top_up: tuple[str, str]) -> None:
    customer_id, url = top_up
    api.pay(url)
    refused = api.buyer.post(url + "/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "checkout_completed")
    assert balance(api, customer_id) == 210


def test_unknown_addresses(api: Api) -> None:
    for path in ("/checkout/nothing", "/checkout/nothing/pay", "/checkout/nothing/cancel"):
        method = "GET" if path.endswith("nothing") else "POST"
        answer = api.buyer.request(method, api.url + path)
        assert (answer.status_code, answer.json()["code"]) == (404, "checkout_unavailable"), path
        page = api.buyer.request(method, api.url + path, headers={"Accept": "text/html"})
        assert page.status_code == 404 and "<h1>This checkout does not exist</h1>" in page.text


def test_a_deleted_customers_checkout_is_gone(api: Api, top_up: tuple[str, str]) -> None:
    customer_id, url = top_up
    api.call("DELETE", f"/v1/customers/{customer_id}")
    assert api.pay(url).status_code == 404
    api.post("/v1/customers", {"id": customer_id})  # another one of that name
    assert api.pay(url).status_code == 404
    assert balance(api, customer_id) == 10


def test_two_checkouts_of_one_main_plan_pay_once(api: Api) -> None:
    customer_id = api.customer()
    urls = [api.attach(customer_id, "pro")["checkout_url"] for _ in range(2)]
    assert api.pay(urls[0]).status_code == 200
    refused = api.pay(urls[1])
    assert (refused.status_code, refused.json()["code"]) == (409, "customer_product_already_exists")
    assert [p["id"] for p in api.get(f"/v1/customers/{customer_id}")["products"]].count("pro") == 1
    page = api.buyer.get(urls[1], headers={"Accept": "text/html"})
    assert page.status_code == 409 and "Nothing was charged" in page.text


def test_force_checkout_asks_for_a_payment_again(api: Api, top_up: tuple[str, str]) -> None:
    customer_id, url = top_up
    api.pay(url)
    options = [{"feature_id": "messages", "quantity": 100}]
    forced = api.attach(customer_id, "top_up", options=options, force_checkout=True)
    assert forced["code"] == "checkout_created" and forced["url"] == forced["checkout_url"]
    assert balance(api, customer_id) == 210
    api.pay(forced["url"])
    assert balance(api, customer_id) == 310


def test_setup_payment_puts_a_card_on_file(api: Api) -> None:
    customer_id = api.customer()
    setup = api.post("/v1/setup_payment", {"customer_id": customer_id, "success_url": "https://app.test/card"})
    assert setup["customer_id"] == customer_id
    assert api.pay(setup["url"]).headers["location"] == "https://app.test/card"
    shown = api.get(f"/v1/customers/{customer_id}", params={"expand": "payment_method"})
    assert shown["payment_method"]["card"]["last4"] == "4242"
    assert api.attach(customer_id, "pro")["code"] == "upgraded_to_new_product"


def test_a_checkout_expires_after_a_day(timed: tuple[Sidecar, Api]) -> None:
    _, api = timed
    customer_id = api.customer()
    options = [{"feature_id": "messages", "quantity": 200}]
    late, early = (api.checkout(customer_id, "top_up", options=options)["url"] for _ in range(2))
    api.post("/v1/test_clock", {"advance_ms": 24 * 3_600_000 - 60_000})
    assert api.pay(early).status_code == 200
    api.post("/v1/test_clock", {"advance_ms": 60_001})
    refused = api.pay(late)
    assert (refused.status_code, refused.json()["code"]) == (410, "checkout_expired")
    assert api.check(customer_id, "messages")["balance"] == 210


def test_an_address_that_is_no_address_is_refused(api: Api) -> None:
    for success_url in ("javascript:alert(1)", "/done", "https://a.test/x\r\nX: y", "data:text/html,x", 5):
        body = {"customer_id": "nobody", "product_id": "pro", "success_url": success_url}
        api.refused("POST", "/v1/attach", body, 400, "invalid_inputs")
    api.get("/v1/customers/nobody", 404)  # a refused call makes no customer
