"""The sandbox payment provider: a local page, a card that always works, no money.

It implements `provider.PaymentProvider`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from ..store.customers import Customer


class SandboxProvider:
    """Every payment succeeds and costs nothing."""

    def page_url(self, base_url: str, token: str) -> str:
        """This server's own payment page."""
        return f"{base_url}/checkout/{token}"

    def new_card(self, conn: Connection, customer: Customer) -> dict[str, Any]:
        """A test card."""
        return {
            "type": "card", "provider": "sandbox",
            "card": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2099},
        }

    def charge(self, conn: Connection, customer: Customer, amount: Decimal, currency: str) -> None:
        """Always succeeds."""
