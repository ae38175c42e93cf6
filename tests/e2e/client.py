"""The published clients as the flow tests use them: one shape of call over both.

Each client runs in a process of its own (`clients/bridge.*`), so every byte to and from the sidecar is
the client's. A call that the client answers with an error, or that raises inside it, fails the test
unless it was expected to be refused.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from decimal import Decimal
from typing import Any

from . import install

KEY = "am_sk_42424242"


class Bridge:
    """A client in its process. Answers hold Decimals, never floats."""

    name: str
    sends_setup_payment = True
    checks_show_usage = True

    def __init__(self, words: list[str]):
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it may have ended by itself
            self.process.stdin.close()
        with self.process.stdout:
            self.process.wait(10)

    def _answer(self, call: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"{self.name} ended with {self.process.wait(10)} at {call}"
        answer: dict[str, Any] = json.loads(line, parse_float=Decimal)
        assert "thrown" not in answer, f"{call}\n{answer['thrown']}"
        return answer

    def call(self, method: str, **fields: Any) -> Any:
        """What the client returns for `method` with these fields; no error is let through."""
        answer = self._answer(self._call(method, fields))
        assert answer.get("error") is None, f"{method}({fields}): {answer}"
        return answer["data"]

    def refused(self, method: str, **fields: Any) -> tuple[int, str]:
        """The (status, code) that the client reports for a call that must be refused."""
        answer = self._answer(self._call(method, fields))
        assert answer.get("error") is not None and answer.get("data") is None, answer
        return answer["status"], answer["error"]["code"]

    def customer(self, customer_id: str) -> Any:
        """`customers.get`."""
        return self._get_customer(customer_id)

    def feature(self, customer_id: str, feature_id: str) -> Any:
        """One feature of `customers.get`."""
        return self.customer(customer_id)["features"][feature_id]

    def set_balances(self, customer_id: str, balances: list[dict[str, Any]]) -> None:
        """Sets what remains of features."""
        raise NotImplementedError

    def _call(self, method: str, fields: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def _get_customer(self, customer_id: str) -> Any:
        raise NotImplementedError


class AutumnJs(Bridge):
    """npm autumn-js 0.1.85: `{data, error}`, `error` must be null."""

    name = "autumn-js"

    def __init__(self, url: str):
        super().__init__(["node", str(install.CLIENTS / "bridge.mjs"), str(install.javascript()), url, KEY])

    def _call(self, method: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {"method": method, "args": [fields]}

    def set_balances(self, customer_id: str, balances: list[dict[str, Any]]) -> None:
        answer = self._answer({"method": "customers.updateBalances", "args": [customer_id, balances]})
        assert answer["error"] is None and answer["data"] == {"success": True}, answer

    def _get_customer(self, customer_id: str) -> Any:
        answer = self._answer({"method": "customers.get", "args": [customer_id]})
        assert answer["error"] is None, answer
        return answer["data"]


class AutumnPy(Bridge):
    """PyPI autumn-py 3.1.9: strict models, whose check has no fields beside the balance, and whose
    `attach` has no `setup_payment`."""

    name = "autumn-py"
    sends_setup_payment = False
    checks_show_usage = False

    def __init__(self, url: str):
        super().__init__([str(install.python()), str(install.CLIENTS / "bridge.py"), url, KEY])

    def _call(self, method: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {"method": method, "kwargs": fields}

    def set_balances(self, customer_id: str, balances: list[dict[str, Any]]) -> None:
        self.call("features.set_balances", customer_id=customer_id, balances=balances)

    def _get_customer(self, customer_id: str) -> Any:
        return self.call("customers.get", customer_id=customer_id)
