"""Bringing a decided change to Redis before its caller is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Sequence

from ..engine.errors import EngineError
from ..errors import ApiError

if TYPE_CHECKING:
    from ..api.endpoint import Context
    from ..engine.loader import StepOutcome


async def project(ctx: Context, customer_id: str, cid: int | None = None) -> Sequence[StepOutcome]:
    """Applies the decided steps of a customer (by `cid` a deleted one) in Redis; what became of
    those this call applied.

    Raises ApiError 504 `outcome_unknown` if Redis cannot be reached: the change is kept in SQL and
    the sync worker applies it when Redis is back, so the caller must not repeat it."""
    try:
        return await ctx.engine.project(customer_id, cid) or ()
    except EngineError as problem:
        raise ApiError(
            504, "outcome_unknown",
            f"the change is saved and takes effect as soon as Redis answers again; do not repeat it ({problem})",
        ) from problem
