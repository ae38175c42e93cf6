"""F3: the rate limiter `limits` (asynchronous, Redis) behind Starlette: `hit` for a track, `test` for a
check. `python -m loadtests.floors.limited PORT SOCKET moving|fixed`.
"""

from __future__ import annotations

import sys

from limits import RateLimitItemPerHour
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from .server import serve

STRATEGIES = {"moving": MovingWindowRateLimiter, "fixed": FixedWindowRateLimiter}
LIMIT = RateLimitItemPerHour(1_000_000)
"""More than a run uses up."""


def application(socket: str, strategy: str) -> Starlette:
    """Limits by that strategy, in the Redis on that socket."""
    storage = RedisStorage(f"async+redis+unix://{socket}", implementation="redispy", key_prefix=strategy)
    limiter = STRATEGIES[strategy](storage)

    async def track(request: Request) -> JSONResponse:
        customer_id = (await request.json())["customer_id"]
        return JSONResponse({"allowed": await limiter.hit(LIMIT, customer_id), "customer_id": customer_id})

    async def check(request: Request) -> JSONResponse:
        customer_id = (await request.json())["customer_id"]
        return JSONResponse({"allowed": await limiter.test(LIMIT, customer_id), "customer_id": customer_id})

    return Starlette(routes=[Route("/v1/track", track, methods=["POST"]), Route("/v1/check", check, methods=["POST"])])


if __name__ == "__main__":
    serve(application(sys.argv[2], sys.argv[3]), int(sys.argv[1]))
