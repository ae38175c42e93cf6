"""The sandbox payment page, in a real browser."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.flows.client import Api
from tests.pages.browser import Browser

SCREENSHOTS = os.environ.get("SCREENSHOTS")
"""A folder to keep what the pages look like; not set: none are kept."""


def keep(browser: Browser, name: str) -> None:
    if SCREENSHOTS:
        browser.screenshot(Path(SCREENSHOTS) / f"{name}.png")


@pytest.fixture
def top_up(api: Api) -> tuple[str, str]:
    customer_id = api.customer(name="Jane <Doe>")
    checkout = api.checkout(
        customer_id, "top_up", options=[{"feature_id": "messages", "quantity": 200}], success_url=api.url + "/livez"
    )
    return customer_id, checkout["url"]


def test_pay(browser: Browser, api: Api, top_up: tuple[str, str]) -> None:
    customer_id, url = top_up
    browser.open(url)
    keep(browser, "checkout")
    assert (browser.text("h1"), browser.text(".who")) == ("Top up", "for Jane <Doe>")
    assert browser.text("tbody tr") == "Top up - 200 Messages $20"
    assert browser.text("#total") == "$20"
    assert browser.role_and_name("#pay") == ("button", "Pay $20")
    assert browser.role_and_name("#cancel") == ("button", "Cancel")
    assert browser.run("return document.documentElement.lang") == "en"
    assert browser.run("return performance.getEntriesByType('resource').length") == 0, "nothing else is fetched"
    assert api.check(customer_id, "messages")["balance"] == 10
    browser.click("#pay")
    assert browser.url == api.url + "/livez", "on to the seller's page"
    assert api.check(customer_id, "messages")["balance"] == 210
    browser.open(url)
    keep(browser, "paid")
    assert browser.text("h1") == "Payment complete"
    assert browser.run("return document.forms.length") == 0


def test_two_tabs(browser: Browser, api: Api, top_up: tuple[str, str]) -> None:
    customer_id, url = top_up
    first = browser.tab
    browser.open(url)
    browser.new_tab()
    browser.open(url)
    browser.click("#pay")
    browser.switch(first)
    browser.press_enter("#pay")
    assert api.check(customer_id, "messages")["balance"] == 210
    assert browser.url == api.url + "/livez"


def test_cancel_then_pay(browser: Browser, api: Api, top_up: tuple[str, str]) -> None:
    customer_id, url = top_up
    first = browser.tab
    browser.open(url)
    browser.new_tab()
    browser.open(url)
    browser.click("#cancel")
    keep(browser, "cancelled")
    assert browser.text("h1") == "Checkout cancelled"
    browser.switch(first)
    browser.click("#pay")
    keep(browser, "closed")
    assert browser.text("h1") == "This checkout is closed"
    assert "cancelled" in browser.text("[role=status]")
    assert api.check(customer_id, "messages")["balance"] == 10


def test_a_card_without_a_charge(browser: Browser, api: Api) -> None:
    customer_id = api.customer()
    attached = api.attach(customer_id, "pay_as_you_go", setup_payment=True)
    browser.open(attached["url"])
    keep(browser, "pay_as_you_go")
    assert (browser.text("#total"), browser.text("#pay")) == ("$0", "Save card and start")
    assert browser.text("li") == "1,000 notifications, then $1 per 1,000 notifications per month"
    browser.click("#pay")
    keep(browser, "thank_you")
    assert browser.text("h1") == "Payment complete"
    assert api.check(customer_id, "notifications")["overage_allowed"] is True


def test_a_subscription_says_what_comes_again(browser: Browser, api: Api) -> None:
    customer_id = api.customer(name="Łukasz " + "very-long-name-" * 12)
    browser.open(api.attach(customer_id, "pro")["url"])
    keep(browser, "pro")
    assert browser.text("#pay") == "Pay $10"
    assert "$10 again each period, until cancelled" in browser.text("ul")
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")


def test_an_unknown_checkout(browser: Browser, api: Api) -> None:
    browser.open(api.url + "/checkout/nothing")
    assert (browser.title, browser.text("h1")) == (
        "This checkout does not exist · Sandbox checkout", "This checkout does not exist"
    )
