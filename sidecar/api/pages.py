"""The sandbox payment page: plain HTML, no script, no key. Its address is the secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Awaitable, Callable

import structlog
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from ..billing import checkout
from ..billing.checkout import Page
from ..billing.orders import Quote
from ..catalog.model import Item
from ..errors import ApiError
from .catalog_views import display_json, money
from .endpoint import Context

log = structlog.get_logger()

_templates = Environment(
    loader=FileSystemLoader(Path(checkout.__file__).parent / "pages"), autoescape=True, undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}
_TITLES = {404: "This checkout does not exist", 409: "Nothing was charged", 410: "This checkout is closed"}


def page(handler: Callable[[Request, Context], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a page: a refusal is shown as HTML to browsers and as JSON to others."""

    async def respond(request: Request) -> Response:
        try:
            return await handler(request, request.app.state.context)
        except ApiError as error:
            return _refusal(request, error)
        except Exception:
            log.exception("page_failed", route=handler.__name__)
            return _refusal(request, ApiError(500, "internal_error", "something went wrong; nothing was charged unless this page says so"))

    respond.__name__ = handler.__name__
    respond.__doc__ = handler.__doc__
    return respond


@page
async def show(request: Request, ctx: Context) -> Response:
    """What is bought, what it costs, and the two buttons."""
    shown = await checkout.show(ctx, request.path_params["token"])
    if shown.status == checkout.PAID:
        return _html("closed.html", title="Payment complete", **_paid(shown))
    return _html("checkout.html", **_content(ctx, shown, str(request.url.path).rstrip("/")))


@page
async def pay(request: Request, ctx: Context) -> Response:
    """Pays, then goes on to the address the seller gave."""
    shown = await checkout.pay(ctx, request.path_params["token"])
    if shown.success_url:
        return RedirectResponse(shown.success_url, 303, {"Cache-Control": "no-store"})
    return _answer(request, {"status": "paid"}, title="Payment complete", **_paid(shown))


@page
async def cancel(request: Request, ctx: Context) -> Response:
    """Closes the checkout."""
    await checkout.cancel(ctx, request.path_params["token"])
    return _answer(
        request, {"status": "cancelled"}, title="Checkout cancelled",
        message="Nothing was charged and nothing has changed. You can close this page.", link=None,
    )


def _content(ctx: Context, shown: Page, path: str) -> dict[str, Any]:
    currency = ctx.settings.currency
    content: dict[str, Any] = {
        "path": path, "customer": shown.customer_name, "lines": [], "terms": [], "currency": currency.upper(),
        "title": "Add a payment method", "total": money(0, currency), "button": "Save card",
    }
    if shown.quote is not None:
        total = money(shown.quote.total, currency)
        content.update(
            title=shown.quote.plan.name, total=total, terms=_terms(ctx, shown.quote),
            lines=[(line.description, money(line.amount, currency)) for line in shown.quote.lines],
            button=f"Pay {total}" if shown.quote.total else "Save card and start",
        )
    return content


def _terms(ctx: Context, quote: Quote) -> list[str]:
    """What the buyer should know besides the lines: the items of the plan, and what comes again."""
    features, currency = ctx.catalog.current.features, ctx.settings.currency

    def text(item: Item) -> str:
        display = display_json(item, features.get(item.feature_id or ""), currency=currency)
        first, second = display["primary_text"], display["secondary_text"]
        return f"{first}{',' if second.startswith('then') else ''} {second}" if second else str(first)

    terms = [text(item) for item in quote.plan.items if item.feature_id is not None]
    if quote.next_total:
        terms.append(f"{money(quote.next_total, currency)} again each period, until cancelled")
    return terms


def _paid(shown: Page) -> dict[str, Any]:
    return {
        "message": "Thank you. What you bought is ready to use; nothing more will be charged here.",
        "link": shown.success_url,
    }


def _answer(request: Request, body: dict[str, Any], **content: Any) -> Response:
    if _wants_html(request):
        return _html("closed.html", **content)
    return JSONResponse(body, headers=_HEADERS)


def _refusal(request: Request, error: ApiError) -> Response:
    if _wants_html(request):
        title = _TITLES.get(error.status, "This did not work")
        return _html("closed.html", error.status, title=title, message=error.message, link=None)
    return JSONResponse({"message": error.message, "code": error.code}, error.status, headers=_HEADERS)


def _html(template: str, status: int = 200, **content: Any) -> Response:
    html = _templates.get_template(template).render(**content)
    return Response(html, status, _HEADERS, "text/html; charset=utf-8")


def _wants_html(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


routes = [
    Route("/checkout/{token}", show, methods=["GET"]),
    Route("/checkout/{token}/pay", pay, methods=["POST"]),
    Route("/checkout/{token}/cancel", cancel, methods=["POST"]),
]
