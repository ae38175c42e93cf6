"""F1: a bare Starlette application that parses the body and answers a constant. No key, no Redis, no
decision. `python -m loadtests.floors.bare PORT` reads the answers from stdin, as a JSON object of path
to text, and serves until SIGTERM.
"""

from __future__ import annotations

import json
import sys
from typing import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .server import serve


def application(answers: dict[str, bytes]) -> Starlette:
    """Answers a POST on each path with its constant, after parsing the body."""

    def answering(content: bytes) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            json.loads(await request.body())
            return Response(content, media_type="application/json")

        return respond

    return Starlette(routes=[Route(path, answering(content), methods=["POST"]) for path, content in answers.items()])


if __name__ == "__main__":
    serve(application({path: text.encode() for path, text in json.load(sys.stdin).items()}), int(sys.argv[1]))
