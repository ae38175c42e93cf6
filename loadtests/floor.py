"""What the benchmark measures against: a bare Starlette application on the sidecar's uvicorn settings
that parses the body and answers a constant. `python -m loadtests.floor PORT` reads the answers from
stdin, as a JSON object of path to text, and serves until SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Awaitable, Callable

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sidecar.run.http_worker import BACKLOG, KEEP_ALIVE_S, Worker


def application(answers: dict[str, bytes]) -> Starlette:
    """Answers a POST on each path with its constant, after parsing the body."""

    def answering(content: bytes) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            json.loads(await request.body())
            return Response(content, media_type="application/json")

        return respond

    return Starlette(routes=[Route(path, answering(content), methods=["POST"]) for path, content in answers.items()])


def main(port: int) -> None:
    """Serves."""
    answers = {path: text.encode() for path, text in json.load(sys.stdin).items()}
    config = uvicorn.Config(
        application(answers), host="127.0.0.1", port=port, loop="uvloop", http="httptools", ws="none", lifespan="off",
        log_config=None, access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_S,
        backlog=BACKLOG,
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Worker(config).serve())


if __name__ == "__main__":
    main(int(sys.argv[1]))
