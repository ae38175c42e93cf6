"""F3: Starlette and redis-py as the two are commonly put together: a pooled client, one EVALSHA of a
minimal script (`track.lua`, `check.lua`) a request. `python -m loadtests.floors.plain PORT SOCKET`.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from .server import serve

SHAS = {
    name: hashlib.sha1(Path(__file__).with_name(f"{name}.lua").read_bytes()).hexdigest() for name in ("track", "check")
}
"""`floors.start.Peers` has loaded them."""
LOG = "log"


def application(socket: str) -> Starlette:
    """Tracks and checks in the Redis on that socket."""
    redis = Redis(unix_socket_path=socket, decode_responses=True)

    async def track(request: Request) -> JSONResponse:
        content = await request.body()
        body = await request.json()
        entry, a, b = await redis.evalsha(SHAS["track"], 2, f"c:{body['customer_id']}", LOG, body["value"], content)
        return JSONResponse({"allowed": entry != "", "id": entry, "customer_id": body["customer_id"], "balance": a + b})

    async def check(request: Request) -> JSONResponse:
        body = await request.json()
        allowed, a, b = await redis.evalsha(SHAS["check"], 1, f"c:{body['customer_id']}", 1)
        return JSONResponse({"allowed": bool(allowed), "customer_id": body["customer_id"], "balance": a + b})

    return Starlette(routes=[Route("/v1/track", track, methods=["POST"]), Route("/v1/check", check, methods=["POST"])])


if __name__ == "__main__":
    serve(application(sys.argv[2]), int(sys.argv[1]))
