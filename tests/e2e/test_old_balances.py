"""What the older clients can say of balances: autumn-js 0.1.85, whose `v2` methods speak 2.1 and all others
1.2, and of autumn-py 3.1.9, which knows little of it, setting balances.
"""

from __future__ import annotations

import uuid
from typing import Any, Iterator

import pytest

from tests.run.harness import Sidecar, wait_for

from .client import AutumnJs, Bridge
from .test_flows import created, pay, totals


@pytest.fixture(scope="module")
def js(example: Sidecar) -> Iterator[AutumnJs]:
    """autumn-js 0.1.85."""
    bridge = AutumnJs(example.url)
    yield bridge
    bridge.close()


def hold(js: AutumnJs, customer_id: str, units: int) -> str:
    """Takes a hold that is granted; its id."""
    lock_id = f"lock_{uuid.uuid4().hex[:8]}"
    check = js.call(
        "check", customer_id=customer_id, feature_id="messages", required_balance=units,
        lock={"lock_id": lock_id, "enabled": True},
    )
    assert check["allowed"] is True and check["lock_id"] == lock_id
    return lock_id


def test_holds(js: AutumnJs) -> None:
    c = created(js)
    confirmed, released, cheaper = hold(js, c, 2), hold(js, c, 3), hold(js, c, 5)
    assert js.call("check", customer_id=c, feature_id="messages")["allowed"] is False
    assert js.call("v2.balances.finalize", lock_id=confirmed, action="confirm") == {"success": True}
    js.call("v2.balances.finalize", lock_id=released, action="release")
    js.call("v2.balances.finalize", lock_id=cheaper, action="confirm", override_value=1)
    assert totals(js.feature(c, "messages")) == (7, 3, 10)
    assert js.refused("v2.balances.finalize", lock_id=released, action="confirm") == (409, "lock_already_finalized")


def test_usage_overages_and_loose_grants(js: AutumnJs) -> None:
    c = created(js)
    asked: dict[str, Any] = {"customer_id": c, "feature_id": "messages"}
    assert js.call("usage", **asked, value=4) == {"success": True}
    assert totals(js.feature(c, "messages")) == (6, 4, 10)
    assert js.refused("track", **asked, value=7, overage_behavior="reject") == (400, "insufficient_balance")
    assert js.call("balances.create", **asked, granted_balance=50, reset={"interval": "month"}) == {"success": True}
    assert totals(js.feature(c, "messages")) == (56, 4, 60)
    js.call("v2.balances.update", **asked, remaining=20)
    assert js.feature(c, "messages")["balance"] == 20
    js.call("v2.balances.update", **asked, usage=10)
    assert totals(js.feature(c, "messages")) == (50, 10, 60)
    js.call("track", **asked, value=3)
    wait_for("the event", lambda: js.call("events.list", **asked)["list"])
    assert [event["value"] for event in js.call("events.list", **asked)["list"]] == [3]


def test_buying_by_the_v2_methods(js: AutumnJs) -> None:
    c = created(js)
    units = {"plan_id": "top_up", "feature_quantities": [{"feature_id": "messages", "quantity": 200}]}
    preview = js.call("v2.billing.previewAttach", customer_id=c, **units)
    assert (preview["total"], preview["redirect_to_checkout"]) == (20, True)
    pay(js.call("v2.billing.attach", customer_id=c, **units)["payment_url"])
    assert totals(js.feature(c, "messages")) == (210, 0, 210)
    pay(js.call("v2.billing.setupPayment", customer_id=c, plan_id="pay_as_you_go")["url"])
    assert js.feature(c, "notifications")["overage_allowed"] is True


def test_setting_balances(client: Bridge) -> None:
    c, wanted = created(client), [{"feature_id": "messages", "balance": 77}]
    client.set_balances(c, wanted)
    assert totals(client.feature(c, "messages"))[0] == 77
