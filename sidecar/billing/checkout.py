"""A checkout on the payment page: shown, paid once, or cancelled.

Paying is one transaction: the checkout's status moves from open to paid by compare-and-set, the
card is put on file and the order applied with its step. So of two tabs one grants, and the other
is told that it is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Mapping

import structlog
from sqlalchemy import Connection, select, update

from ..catalog.snapshot import Catalog
from ..errors import ApiError
from ..store import customers
from ..store.tables import checkouts
from .attach import OPEN, carry_out, provider, quote_for
from .change import Change
from .decide import decide
from .orders import Order, Quote
from .projection import project

if TYPE_CHECKING:
    from ..api.endpoint import Context

log = structlog.get_logger()

PAID, CANCELLED = "paid", "cancelled"


@dataclass(frozen=True)
class Page:
    """A checkout as its page shows it. Without a quote it only collects a card, or is closed."""

    token: str
    status: str
    customer_name: str
    success_url: str | None
    quote: Quote | None


async def show(ctx: Context, token: str) -> Page:
    """The checkout to show. Raises ApiError: 404 `checkout_unavailable` for an unknown one or one
    whose customer is gone, 410 `checkout_expired` for a cancelled or expired one, and what
    `orders.quote` raises when the order fits no longer."""
    return await ctx.store.read(_show, await ctx.catalog.refresh(), await ctx.clock.now_ms(), token)


async def pay(ctx: Context, token: str) -> Page:
    """Pays a checkout and applies its order; one that is paid already stays as it is. When this
    returns, the next check sees what was bought. Raises ApiError as `show`; then nothing was paid
    or changed."""
    page, customer_id = await decide(ctx, _pay, token, ctx.settings.currency, ctx.settings.persist_free_overage)
    try:
        await project(ctx, customer_id)
    except ApiError as problem:  # it is paid and will be applied: no second payment
        log.warning("paid_but_not_projected_yet", problem=problem.message)
    return page


async def cancel(ctx: Context, token: str) -> Page:
    """Closes a checkout for good; again is fine. Raises ApiError 404 `checkout_unavailable`, and
    409 `checkout_completed` when it is paid."""
    return await ctx.store.write(_cancel, await ctx.clock.now_ms(), token)


def _show(conn: Connection, catalog: Catalog, now_ms: int, token: str) -> Page:
    row = _row(conn, token)
    _check_open(row, now_ms)
    customer = customers.by_cid(conn, row["cid"])
    if customer is None or customer.deleted_at is not None:
        raise _unavailable()
    what = None
    if row["status"] == OPEN and row["request"]:
        what = quote_for(conn, catalog, customer, _order(catalog, row), now_ms)
    return Page(token, row["status"], customer.name or customer.id, row["success_url"], what)


def _pay(
    conn: Connection, catalog: Catalog, now_ms: int, token: str, currency: str, pays_debts: bool
) -> tuple[Page, str]:
    row = _row(conn, token, lock=True)
    _check_open(row, now_ms)
    change = Change.of_cid(conn, catalog, now_ms, row["cid"])
    if change is None:
        raise _unavailable()
    customer = change.customer
    page = Page(token, PAID, customer.name or customer.id, row["success_url"], None)
    if row["status"] == PAID or not _close(conn, token, PAID, now_ms):
        return page, customer.id
    customers.change(conn, customer.cid, payment_method=provider.new_card(conn, customer))
    if row["request"]:
        what = quote_for(conn, catalog, customer, _order(catalog, row), now_ms)
        if what.total:
            provider.charge(conn, customer, Decimal(what.total), currency)
        carry_out(change, what, pays_debts)
    return page, customer.id


def _cancel(conn: Connection, now_ms: int, token: str) -> Page:
    row = _row(conn, token, lock=True)
    if row["status"] == PAID:
        raise ApiError(409, "checkout_completed", "this checkout is paid already and cannot be cancelled")
    if row["status"] == OPEN:
        _close(conn, token, CANCELLED, now_ms)
    return Page(token, CANCELLED, "", row["success_url"], None)


def _close(conn: Connection, token: str, status: str, now_ms: int) -> bool:
    """Moves an open checkout to its last status; False if it was not open any more."""
    closed = conn.execute(
        update(checkouts)
        .where(checkouts.c.token == token, checkouts.c.status == OPEN)
        .values(status=status, closed_at=now_ms)
    )
    return closed.rowcount == 1


def _row(conn: Connection, token: str, lock: bool = False) -> Mapping[str, Any]:
    query = select(checkouts).where(checkouts.c.token == token)
    row = conn.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if row is None:
        raise _unavailable()
    return row


def _order(catalog: Catalog, row: Mapping[str, Any]) -> Order:
    order = Order.from_json(row["request"])
    if order.plan_uid not in catalog.plans_by_uid:
        raise _unavailable()
    return order


def _check_open(row: Mapping[str, Any], now_ms: int) -> None:
    if row["status"] == CANCELLED:
        raise ApiError(410, "checkout_expired", "this checkout was cancelled; start a new one")
    if row["status"] == OPEN and row["expires_at"] <= now_ms:
        raise ApiError(410, "checkout_expired", "this checkout has expired; start a new one")


def _unavailable() -> ApiError:
    return ApiError(404, "checkout_unavailable", "there is no such checkout")
