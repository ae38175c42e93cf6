"""What the flow tests share: a client that speaks like a 1.2 caller, and the catalogs they sell."""

from __future__ import annotations

import json
import uuid
from decimal import Decimal
from typing import Any

import httpx

KEY = "am_sk_test_flows"


class Api:
    """Calls one running sidecar. Numbers come back as int or Decimal, never as floats."""

    def __init__(self, url: str, key: str = KEY):
        self.url = url
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30)
        self.buyer = httpx.Client(timeout=30)  # a buyer's browser: no key, no cookie

    def close(self) -> None:
        """Closes its connections."""
        self.http.close()
        self.buyer.close()

    def call(self, method: str, path: str, body: Any = None, status: int = 200, **kw: Any) -> Any:
        """The decoded answer; fails the test if its status is another one."""
        content = None if body is None else json.dumps(body, default=float)
        headers = {"Content-Type": "application/json", **kw.pop("headers", {})}
        answer = self.http.request(method, path, content=content, headers=headers, **kw)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return json.loads(answer.text, parse_float=Decimal)

    def post(self, path: str, body: Any = None, status: int = 200, **kw: Any) -> Any:
        return self.call("POST", path, body, status, **kw)

    def get(self, path: str, status: int = 200, **kw: Any) -> Any:
        return self.call("GET", path, None, status, **kw)

    def refused(self, method: str, path: str, body: Any, status: int, code: str) -> str:
        """Makes a call that must be refused so; its message."""
        answer = self.call(method, path, body, status)
        assert answer["code"] == code, answer
        return str(answer["message"])

    def customer(self, **fields: Any) -> str:
        """A new customer with the default plans; its id."""
        customer_id = f"c_{uuid.uuid4().hex[:12]}"
        self.post("/v1/customers", {"id": customer_id, **fields})
        return customer_id

    def feature(self, customer_id: str, feature_id: str) -> dict[str, Any]:
        """A feature of the customer as GET shows it."""
        return self.get(f"/v1/customers/{customer_id}")["features"][feature_id]

    def check(self, customer_id: str, feature_id: str, **fields: Any) -> dict[str, Any]:
        return self.post("/v1/check", {"customer_id": customer_id, "feature_id": feature_id, **fields})

    def track(self, customer_id: str, feature_id: str, value: Any, **fields: Any) -> dict[str, Any]:
        return self.post("/v1/track", {"customer_id": customer_id, "feature_id": feature_id, "value": value, **fields})

    def checkout(self, customer_id: str, product_id: str, **fields: Any) -> dict[str, Any]:
        return self.post("/v1/checkout", {"customer_id": customer_id, "product_id": product_id, **fields})

    def attach(self, customer_id: str, product_id: str, status: int = 200, **fields: Any) -> dict[str, Any]:
        return self.post("/v1/attach", {"customer_id": customer_id, "product_id": product_id, **fields}, status)

    def pay(self, url: str, **kw: Any) -> httpx.Response:
        """What `curl -X POST {url}/pay` does."""
        return self.buyer.post(url + "/pay", **kw)

    def sell(self, features: list[dict[str, Any]], products: list[dict[str, Any]]) -> None:
        """Creates features and products."""
        for feature in features:
            self.post("/v1/features", {"name": feature["id"].replace("_", " ").capitalize(), **feature})
        for product in products:
            self.post("/v1/products", {"name": product["id"].replace("_", " ").capitalize(), **product})
