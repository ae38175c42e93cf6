"""The walk-through "pay-as-you-go overages": blocked at zero, then a card, then billed for more."""

from __future__ import annotations

import time
from decimal import Decimal

from sqlalchemy import select

from sidecar.store.db import Store
from sidecar.store.tables import customers, ledger
from tests.flows.client import Api
from tests.run.harness import Sidecar


def test_the_whole_walk(timed: tuple[Sidecar, Api]) -> None:
    """Cases 15, 60 and 61, to the ledger row of the period's end."""
    sidecar, api = timed
    customer_id = api.customer(name="Jane Doe", email="jane@example.com")
    api.track(customer_id, "notifications", 130)
    check = api.check(customer_id, "notifications")
    assert check["allowed"] is True
    assert (check["balance"], check["usage"], check["included_usage"]) == (870, 130, 1000)
    assert check["overage_allowed"] is False

    api.track(customer_id, "notifications", 900)  # capped at what is there
    check = api.check(customer_id, "notifications")
    assert (check["allowed"], check["balance"], check["usage"]) == (False, 0, 1000)
    reset_at = check["next_reset_at"]

    attached = api.attach(
        customer_id, "pay_as_you_go", setup_payment=True, success_url="https://your-app.com/settings", force_checkout=False
    )
    assert attached["checkout_url"] == attached["url"] and attached["code"] == "checkout_created"
    assert api.check(customer_id, "notifications")["allowed"] is False, "nothing changes before the card is there"
    assert api.pay(attached["url"]).headers["location"] == "https://your-app.com/settings"

    check = api.check(customer_id, "notifications")
    assert (check["allowed"], check["overage_allowed"]) == (True, True)
    assert (check["balance"], check["usage"], check["included_usage"]) == (0, 1000, 1000), "usage carried over"
    assert check["next_reset_at"] == reset_at
    api.track(customer_id, "notifications", 200)
    check = api.check(customer_id, "notifications")
    assert (check["allowed"], check["balance"], check["usage"], check["overage_allowed"]) == (True, -200, 1200, True)

    api.post("/v1/test_clock", {"now_ms": reset_at + 1000})
    after = api.check(customer_id, "notifications")
    assert (after["balance"], after["usage"]) == (1000, 0)
    assert after["next_reset_at"] > reset_at + 27 * 86_400_000
    owed = _owed(sidecar, customer_id)
    assert [(Decimal(row[0]), Decimal(row[1]), Decimal(row[2])) for row in owed] == [(200, 1, Decimal("0.2"))]


def _owed(sidecar: Sidecar, customer_id: str) -> list[tuple[str, str, str]]:
    """(units over, price, amount) of the customer's resets in the ledger that owe something, read from SQL."""
    query = (
        select(ledger.c.units, ledger.c.price, ledger.c.amount).join(customers, customers.c.cid == ledger.c.cid)
        .where(customers.c.id == customer_id, ledger.c.kind == "reset", ledger.c.over_units > 0)
    )
    store = Store(sidecar.settings.get("SIDECAR_DATABASE_URL") or f"sqlite:///{sidecar.data_dir}/sidecar.db")
    try:
        deadline = time.monotonic() + 10
        while True:
            rows = store.read_sync(lambda conn: [tuple(row) for row in conn.execute(query)])
            if rows or time.monotonic() > deadline:
                return rows
            time.sleep(0.05)
    finally:
        store.close()


def test_a_card_on_file_switches_at_once(api: Api) -> None:
    customer_id = api.customer()
    setup = api.post("/v1/setup_payment", {"customer_id": customer_id})
    api.pay(setup["url"])
    api.track(customer_id, "notifications", 400)
    attached = api.attach(customer_id, "pay_as_you_go", setup_payment=True)
    assert (attached["code"], attached["checkout_url"]) == ("upgraded_to_new_product", None)
    assert api.check(customer_id, "notifications")["balance"] == 600
