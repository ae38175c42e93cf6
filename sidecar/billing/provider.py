"""What this project asks of a payment provider, whichever it is.

A provider shows a page where a buyer pays, and charges the card on file. It knows nothing of plans
or balances: what a payment buys is decided by its caller, in the caller's transaction.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Protocol

from sqlalchemy import Connection

from ..store.customers import Customer


class PaymentProvider(Protocol):
    """Takes money, or in a sandbox acts as if."""

    def page_url(self, base_url: str, token: str) -> str:
        """The absolute address where the buyer of checkout `token` pays. The address is the
        secret: whoever has it may pay."""

    def new_card(self, conn: Connection, customer: Customer) -> dict[str, Any]:
        """The payment method that paying a checkout puts on file, as shown to callers."""

    def charge(self, conn: Connection, customer: Customer, amount: Decimal, currency: str) -> None:
        """Takes `amount` from the card on file. Raises ApiError 400 `stripe_error` if it cannot;
        then the caller's transaction is undone and nothing has been bought."""
