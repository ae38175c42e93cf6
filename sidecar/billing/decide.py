"""One decision in SQL about what a customer gets, on a catalog that holds still meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from ..catalog import repository
from ..catalog.snapshot import Catalog
from ..errors import ApiError

if TYPE_CHECKING:
    from ..api.endpoint import Context

T = TypeVar("T")
P = ParamSpec("P")

ATTEMPTS_MAX = 20


async def decide(
    ctx: Context, fn: Callable[Concatenate[Connection, Catalog, int, P], T], *args: P.args, **kw: P.kwargs
) -> T:
    """`fn(connection, catalog, now_ms, …)` in one write transaction, with the newest catalog. No
    plan is edited until it commits, so that what `fn` grants is what the catalog says: else a plan
    could be edited in place between being read here and being held. Raises what `fn` raises, and
    ApiError 503 while the catalog does not stop changing."""
    for _ in range(ATTEMPTS_MAX):
        catalog = await ctx.catalog.refresh()
        now_ms = await ctx.clock.now_ms()

        def write(conn: Connection, catalog: Catalog = catalog, now_ms: int = now_ms) -> T:
            repository.confirm_version(conn, catalog.version)
            return fn(conn, catalog, now_ms, *args, **kw)

        try:
            return await ctx.store.write(write)
        except repository.CatalogMoved:
            continue
    raise ApiError(503, "unavailable", "not done: the catalog is being changed all the time", {"Retry-After": "1"})
