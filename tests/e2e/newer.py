"""The newest published clients as the tests use them: autumn-js 1.3.13 and autumn-sdk 1.2.0, which parse
every answer strictly at API version 2.4 and 2.5, and autumn-python 0.2.0, which speaks 2.0.

Each runs in a process of its own (`clients/newer/bridge.*`), never failing open.
"""

from __future__ import annotations

import re
import uuid
from typing import Any

import httpx

from tests.run.harness import Sidecar

from . import install
from .client import KEY, Bridge

NEWER = install.CLIENTS / "newer"
HEADERS = {"Authorization": f"Bearer {KEY}"}


class AutumnJs13(Bridge):
    """npm autumn-js 1.3.13: camelCase, which is put into the names of the wire here."""

    name = "autumn-js"
    has_features = lists_plans_for_customers = True
    lists_balances, tracks_holds = False, True

    def __init__(self, url: str):
        super().__init__(["node", str(NEWER / "bridge.mjs"), str(install.javascript(NEWER)), url, KEY])

    def _call(self, method: str, fields: dict[str, Any]) -> dict[str, Any]:
        asked = fields.get("request", fields)  # a call whose body is an array has it as `request`
        return {"method": _camel(method), "args": [renamed(asked, _camel)] if fields else []}

    def call(self, method: str, **fields: Any) -> Any:
        data = renamed(super().call(method, **fields), _snake)
        return data["result"] if "result" in data else data


class AutumnSdk(Bridge):
    """PyPI autumn-sdk 1.2.0, whose group `features` does not load at all, and whose `plans.list` takes
    no customer. It alone lists balances."""

    name = "autumn-sdk"
    has_features = lists_plans_for_customers = False
    lists_balances, tracks_holds = True, False

    def __init__(self, url: str):
        super().__init__([str(install.python(NEWER / "autumn-sdk.txt")), str(NEWER / "bridge.py"), self.name, url, KEY])

    def _call(self, method: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {"method": method, "kwargs": fields}

    def call(self, method: str, **fields: Any) -> Any:
        data = super().call(method, **fields)
        return data["result"] if "result" in data else data


class AutumnPython(Bridge):
    """PyPI autumn-python 0.2.0: API version 2.0, REST, models without validation."""

    name = "autumn-python"

    def __init__(self, url: str):
        super().__init__([str(install.python(NEWER / "autumn-python.txt")), str(NEWER / "bridge.py"), self.name, url, KEY])

    def _call(self, method: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {"method": method, "kwargs": fields}


def renamed(value: Any, rename: Any) -> Any:
    """The value with every name of its objects changed."""
    if isinstance(value, dict):
        return {rename(name): renamed(item, rename) for name, item in value.items()}
    return [renamed(item, rename) for item in value] if isinstance(value, list) else value


def _camel(name: str) -> str:
    return re.sub(r"_([a-z])", lambda match: match[1].upper(), name)


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda match: "_" + match[0].lower(), name)


def new_id(kind: str = "new") -> str:
    return f"{kind}_{uuid.uuid4().hex[:8]}"


def pay(url: str) -> httpx.Response:
    """What a buyer's click on the page's button sends."""
    answer = httpx.post(f"{url}/pay")
    assert answer.status_code < 400, answer.text
    return answer


def buy_messages(sidecar: Sidecar, customer_id: str) -> None:
    """200 messages, bought on the payment page."""
    body = {"customer_id": customer_id, "product_id": "top_up", "options": [{"feature_id": "messages", "quantity": 200}]}
    url = httpx.post(f"{sidecar.url}/v1/attach", json=body, headers=HEADERS).raise_for_status().json()["checkout_url"]
    pay(url)
