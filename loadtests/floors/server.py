"""uvicorn for the floors, on the very settings of the sidecar's HTTP worker."""

from __future__ import annotations

import asyncio

import uvicorn
import uvloop
from starlette.applications import Starlette

from sidecar.run.http_worker import BACKLOG, KEEP_ALIVE_S, Worker


def serve(application: Starlette, port: int) -> None:
    """Serves until SIGTERM."""
    config = uvicorn.Config(
        application, host="127.0.0.1", port=port, loop="uvloop", http="httptools", ws="none", lifespan="off",
        log_config=None, access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_S,
        backlog=BACKLOG,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Worker(config).serve())
