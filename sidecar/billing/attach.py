"""Buying a plan: at once with a card on file (or without a price), else by a checkout that is paid
on the provider's page (see `checkout`).

What a purchase changes is written in one transaction, step and all; the engine projects the step
before the caller is answered.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert

from ..catalog.snapshot import Catalog
from ..errors import ApiError, not_found
from ..store import customers
from ..store.customers import Customer
from ..store.tables import checkouts
from .change import Change, read_holdings
from .customers import CustomerData, create, get_or_create
from .decide import decide
from .entities import NewEntity, ensure_entity, entity_feature, open_entity_row
from .orders import Order, Quote, quote
from .projection import project
from .provider import PaymentProvider
from .sandbox import SandboxProvider

if TYPE_CHECKING:
    from ..api.endpoint import Context

CHECKOUT_LIFE_MS = 24 * 3_600_000
CHECKOUT_TOKEN_BYTES = 24
OPEN = "open"

provider: PaymentProvider = SandboxProvider()
"""Where buyers pay; the sandbox is the only one for now."""


@dataclass(frozen=True)
class Buyer:
    """Whom an order is for: a customer, made on the way if there is none of that id, and with
    `entity` one of its entities, likewise."""

    id: str
    data: CustomerData = CustomerData()
    entity: NewEntity | None = None
    must_exist: bool = False
    """Refuse an unknown customer instead of making it."""


@dataclass(frozen=True)
class Terms:
    """How an order is to be paid for."""

    base_url: str
    success_url: str | None = None
    force_checkout: bool = False
    """Pay on the page even with a card on file."""
    setup_payment: bool = False
    """Have a card put on file if there is none, whatever the plan costs."""
    may_redirect: bool = True
    """Whether the buyer can be sent to the page at all."""


@dataclass(frozen=True)
class Answer:
    """What became of an order: `url` is where it waits to be paid, None when nothing waits."""

    quote: Quote
    url: str | None


async def attach(ctx: Context, buyer: Buyer, order: Order, terms: Terms) -> Answer:
    """Applies an order, or opens a checkout for it if it needs a payment that cannot be taken
    now. Raises ApiError as `orders.quote` does, 404 for an unknown entity, and 400 if it would need
    the page and may not have it; then nobody has been made."""
    return await _place(ctx, buyer, order, terms, True)


async def checkout(ctx: Context, buyer: Buyer, order: Order, terms: Terms) -> Answer:
    """Quotes an order, and opens a checkout for it if it needs a payment that cannot be taken
    now; never applies it. Raises ApiError as `attach`."""
    return await _place(ctx, buyer, order, terms, False)


async def preview(ctx: Context, customer_id: str, order: Order, terms: Terms) -> tuple[Quote, bool]:
    """What an order would do and cost, and whether it would have to wait for the page; nothing
    changes. Raises ApiError as `orders.quote`, and 404 for an unknown customer or entity."""
    now_ms = await ctx.clock.now_ms()

    def read(conn: Connection, catalog: Catalog) -> tuple[Quote, bool]:
        customer = _existing(conn, customer_id)
        what = quote_for(conn, catalog, customer, order, now_ms)
        return what, needs_page(customer, what, terms)

    return await ctx.store.read(read, await ctx.catalog.refresh())


async def setup_payment(ctx: Context, customer_id: str, order: Order | None, terms: Terms) -> str:
    """Opens a checkout that puts a card on file and then applies the order, if there is one;
    returns the page's address. Raises ApiError 404 `customer_not_found`, and as `orders.quote`."""

    def write(conn: Connection, catalog: Catalog, now_ms: int) -> str:
        change = Change.of(conn, catalog, now_ms, customer_id)
        if order is not None:
            quote_for(conn, catalog, change.customer, order, now_ms)
        return open_checkout(conn, change.customer, now_ms, order, terms)

    return await decide(ctx, write)


def needs_page(customer: Customer, what: Quote, terms: Terms) -> bool:
    """Whether the order must wait for the page: every plan with a price, pay-per-use included,
    needs a card on file."""
    if what.plan.is_paid and terms.force_checkout:
        return True
    return customer.payment_method is None and (what.plan.is_paid or terms.setup_payment)


def open_checkout(conn: Connection, customer: Customer, now_ms: int, order: Order | None, terms: Terms) -> str:
    """Keeps an order (None: only a card is collected) until it is paid. Returns the page's
    address."""
    token = secrets.token_urlsafe(CHECKOUT_TOKEN_BYTES)
    conn.execute(insert(checkouts).values(
        token=token, cid=customer.cid, status=OPEN, request=order.to_json() if order else {}, preview={},
        success_url=terms.success_url, created_at=now_ms, expires_at=now_ms + CHECKOUT_LIFE_MS,
    ))
    return provider.page_url(terms.base_url, token)


def quote_for(conn: Connection, catalog: Catalog, customer: Customer, order: Order, now_ms: int) -> Quote:
    """`orders.quote` for a customer by SQL. Raises ApiError 404 `entity_not_found` too."""
    if order.entity_id:
        open_entity_row(conn, customer.cid, order.entity_id)
    return quote(catalog, read_holdings(conn, catalog, customer.cid), order, now_ms)


def carry_out(change: Change, what: Quote, pays_debts: bool) -> None:
    """Applies a quoted order to the locked customer. With `pays_debts` what it buys first pays the
    debts there are."""
    order = what.order
    change.enable(what.plan, order.quantities, order.entity_id, what.replaced, order.moves(pays_debts))
    change.commit_step()


def _existing(conn: Connection, customer_id: str) -> Customer:
    found = customers.by_id(conn, customer_id)
    if found is None:
        raise not_found("customer", customer_id)
    return found


def _is_sent_to_page(customer: Customer, what: Quote, terms: Terms) -> bool:
    """As `needs_page`. Raises ApiError 400 where the page is needed and may not be had."""
    needed = needs_page(customer, what, terms)
    if needed and not terms.may_redirect:
        raise ApiError(400, "invalid_request", "redirect_mode: no card is on file, so this can only be paid on the page")
    return needed


class _Rehearsed(Exception):
    """Ends a transaction that was only to see whether it would go through."""


async def _place(ctx: Context, buyer: Buyer, order: Order, terms: Terms, apply: bool) -> Answer:
    currency, pays_debts = ctx.settings.currency, ctx.settings.persist_free_overage
    p = ctx.engine.partition_of(buyer.id)

    def rehearse(conn: Connection, catalog: Catalog, now_ms: int) -> None:
        assert buyer.entity is not None
        entity_feature(catalog, buyer.entity.feature_id)
        customer, _ = create(conn, catalog, now_ms, p, buyer.id, buyer.data)
        _is_sent_to_page(customer, quote(catalog, read_holdings(conn, catalog, customer.cid), order, now_ms), terms)
        raise _Rehearsed

    def write(conn: Connection, catalog: Catalog, now_ms: int) -> tuple[Answer, bool]:
        made = False
        if not buyer.must_exist:
            _, made = create(conn, catalog, now_ms, p, buyer.id, buyer.data)
        change = Change.of(conn, catalog, now_ms, buyer.id)
        what = quote_for(conn, catalog, change.customer, order, now_ms)
        if _is_sent_to_page(change.customer, what, terms):
            return Answer(what, open_checkout(conn, change.customer, now_ms, order, terms)), made
        if apply:
            if what.total:
                provider.charge(conn, change.customer, what.total, currency)
            carry_out(change, what, pays_debts)
        return Answer(what, None), made or apply

    if buyer.must_exist:
        await ctx.store.read(_existing, buyer.id)
    if buyer.entity is not None:  # a script opens it, in a step of its own: first see that the order can follow
        with suppress(_Rehearsed):
            await decide(ctx, rehearse)
        await get_or_create(ctx, buyer.id, buyer.data)
        await ensure_entity(ctx, buyer.id, buyer.entity)
    answer, changed = await decide(ctx, write)
    if changed:
        await project(ctx, buyer.id)
    return answer
