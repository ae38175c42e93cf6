"""The calls of an application that sells by the example catalog (`docs/examples/chat.py`).

A few customers make most of the calls: customer k is called about 1/k as often as the first (Zipf).
By itself, against a running sidecar:

    SIDECAR_KEY=… locust -f loadtests/locustfile.py --host http://127.0.0.1:8700

`LOAD_CUSTOMERS` is how many customers there are (2,000); `LOAD_REPORT` names a file that gets what
happened as JSON, for `python -m loadtests.run`.

With `LOAD_RATE` so many of its actions begin each second whatever the answers do (an open loop); how long
one waited for a free user is reported as "sent late", so give it users enough. Without, each user begins
its next up to 10 ms after its last was answered, which hides what one slow answer does to all those that
would have come meanwhile.
"""

from __future__ import annotations

import bisect
import itertools
import json
import os
import random
import time
import uuid
from pathlib import Path
from typing import Any

from locust import FastHttpUser, events, task

CUSTOMERS = int(os.environ.get("LOAD_CUSTOMERS", "2000"))
KEY = os.environ.get("SIDECAR_KEY", "am_sk_test_load")
RATE = float(os.environ.get("LOAD_RATE", "0"))
SENT_LATE = "sent late"
ZIPF_EXPONENT = 1.0
REPEATED_SHARE = 0.2
"""Of the calls with an idempotency key, how many are sent twice."""

RUN = uuid.uuid4().hex[:6]
WEIGHTS = list(itertools.accumulate(1 / (k + 1) ** ZIPF_EXPONENT for k in range(CUSTOMERS)))
METERED = ("messages", "images", "notifications")
PAID_FROM_CREDITS = ("basic_messages", "premium_messages")
PACKAGES = {"messages": ("top_up", 100), "images": ("image_top_up", 200), "usd_credits": ("credit_top_up", 20)}

acknowledged: set[str] = set()
"""Ids of all events the sidecar said it has recorded."""
on_pay_as_you_go: set[str] = set()
arrivals = itertools.count()
began: list[float] = []
"""When the first action was due, by the monotonic clock."""


def some_customer() -> str:
    """A customer's id, the first ones far more often than the rest."""
    return f"{RUN}_{bisect.bisect(WEIGHTS, random.random() * WEIGHTS[-1])}"


def some_amount() -> int:
    """Mostly 1, sometimes more."""
    return random.choice((1, 1, 1, 1, 2, 3, 5, 20))


class Application(FastHttpUser):
    """One connection of the application."""

    default_headers = {"Authorization": f"Bearer {KEY}"}
    due: float | None = None

    def wait_time(self) -> float:
        """How long until the next action: at a rate, until the next one that no other user has taken."""
        if not RATE:
            return random.uniform(0, 0.01)
        now = time.monotonic()
        if not began:
            began.append(now)
        self.due = began[0] + next(arrivals) / RATE
        return max(0.0, self.due - now)

    def told_late(self) -> None:
        """Reports how long after it was due an action begins."""
        if self.due is not None:
            late_ms, self.due = max(0.0, time.monotonic() - self.due) * 1000, None
            self.environment.events.request.fire(
                request_type="WAIT", name=SENT_LATE, response_time=late_ms, response_length=0, exception=None, context={},
            )

    def post(self, name: str, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The answer, or None after one that is no 2xx, which counts as a failure of `name`."""
        self.told_late()
        with self.client.post(path, json=body, name=name, catch_response=True) as response:
            if not response.ok:
                response.failure(f"{response.status_code} {response.text}")
                return None
            return dict(response.json())

    @task(45)
    def check(self) -> None:
        """May this customer do it?"""
        feature_id = random.choice(METERED + PAID_FROM_CREDITS)
        body = {"customer_id": some_customer(), "feature_id": feature_id, "required_balance": some_amount()}
        self.post("check", "/v1/check", body)

    @task(30)
    def track(self) -> None:
        """They did it."""
        feature_id = random.choice(METERED + PAID_FROM_CREDITS)
        body = {"customer_id": some_customer(), "feature_id": feature_id, "value": some_amount()}
        if answer := self.post("track", "/v1/track", body):
            acknowledged.add(answer["id"])

    @task(12)
    def check_with_send_event(self) -> None:
        """May they, and if so they did."""
        body = {
            "customer_id": some_customer(), "feature_id": random.choice(METERED), "required_balance": some_amount(),
            "send_event": True,
        }
        answer = self.post("check + send_event", "/v1/check", body)
        if answer and answer["allowed"]:
            acknowledged.add(answer["id"])

    @task(8)
    def track_with_key(self) -> None:
        """As a queue consumer does it: with a key, and now and then twice."""
        body = {
            "customer_id": some_customer(), "feature_id": random.choice(METERED), "value": some_amount(),
            "idempotency_key": uuid.uuid4().hex, "properties": {"source": "queue"},
        }
        first = self.post("track with key", "/v1/track", body)
        if first is None:
            return
        acknowledged.add(first["id"])
        if random.random() < REPEATED_SHARE:
            with self.client.post("/v1/track", json=body, name="track repeated", catch_response=True) as response:
                if not response.ok or response.json() != first:
                    response.failure(f"not the first answer again: {response.status_code} {response.text}")

    @task(3)
    def give_back(self) -> None:
        """An action failed; its unit comes back."""
        body = {"customer_id": some_customer(), "feature_id": random.choice(METERED), "value": -1}
        if answer := self.post("track -1", "/v1/track", body):
            acknowledged.add(answer["id"])

    @task(2)
    def top_up(self) -> None:
        """Buys a package: the first time on the payment page, then by the card on file."""
        customer_id = some_customer()
        feature_id, (product_id, quantity) = random.choice(list(PACKAGES.items()))
        options = [{"feature_id": feature_id, "quantity": quantity}]
        order = {"customer_id": customer_id, "product_id": product_id, "options": options}
        checkout = self.post("checkout", "/v1/checkout", order)
        if checkout is None:
            return
        if checkout["url"] is not None:
            self.pay(checkout["url"])
        else:
            self.post("attach top-up", "/v1/attach", order)

    @task(1)
    def switch_to_pay_as_you_go(self) -> None:
        """Lets a customer go past zero on notifications."""
        customer_id = some_customer()
        if customer_id in on_pay_as_you_go:
            return
        on_pay_as_you_go.add(customer_id)
        attached = self.post(
            "attach pay-as-you-go", "/v1/attach",
            {"customer_id": customer_id, "product_id": "pay_as_you_go", "setup_payment": True},
        )
        if attached and attached["checkout_url"] is not None:
            self.pay(attached["checkout_url"])

    @task(2)
    def show(self) -> None:
        """A page that shows the balances."""
        customer_id = some_customer()
        self.post("create customer", "/v1/customers", {"id": customer_id})
        with self.client.get(f"/v1/customers/{customer_id}", name="get customer", catch_response=True) as response:
            if not response.ok:
                response.failure(f"{response.status_code} {response.text}")

    def pay(self, url: str) -> None:
        """What the buyer's click sends."""
        with self.client.post(url + "/pay", name="pay", catch_response=True) as response:
            if not response.ok:
                response.failure(f"{response.status_code} {response.text}")


@events.quitting.add_listener
def report(environment: Any, **_: Any) -> None:
    """Writes what happened to `LOAD_REPORT`, once no call is in flight."""
    path = os.environ.get("LOAD_REPORT")
    if path is None:
        return
    requests = {
        entry.name: {
            "count": entry.num_requests,
            "failures": entry.num_failures,
            "p50_ms": entry.get_response_time_percentile(0.5),
            "p99_ms": entry.get_response_time_percentile(0.99),
        }
        for entry in environment.stats.entries.values()
    }
    failures = [f"{error.name}: {error.error}" for error in environment.stats.errors.values()]
    Path(path).write_text(
        json.dumps({"requests": requests, "failures": failures, "acknowledged": sorted(acknowledged)})
    )
