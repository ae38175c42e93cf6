"""One HTTP worker: uvicorn on sockets the supervisor bound, with the app of `sidecar.app`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import uvicorn
import uvloop

from .. import app, logs, settings
from ..api import fast
from . import heap
from .parent import watch_parent

KEEP_ALIVE_S = 75
BACKLOG = 2048


class Worker(uvicorn.Server):
    """uvicorn that tunes the garbage collector once it has started."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, then `heap.loaded`."""
        await super().startup(sockets)
        heap.loaded()


def main() -> int:
    """Serves until SIGTERM or the supervisor's end; calls in flight are finished."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to order
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until uvicorn takes over, and after it
    config = settings.load()
    logs.setup(config, "http")
    server = Worker(
        uvicorn.Config(
            app.build(config),
            loop="uvloop",
            http=fast.protocol(config.fast_path),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=config.shutdown_timeout_s,
            backlog=BACKLOG,
        )
    )

    def leave() -> None:
        server.should_exit = True

    watch_parent(leave, data_dir=config.data_dir if config.embedded_redis else None)
    sockets = [socket.socket(fileno=int(fd)) for fd in os.environ["SIDECAR_LISTEN_FDS"].split(",")]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve(sockets))
    return 0


if __name__ == "__main__":
    sys.exit(main())
