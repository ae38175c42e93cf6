"""One app on a socket, with the short way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from tests.http import Api, apps, loop_runner  # noqa: F401


@pytest.fixture
def make_api(loop_runner: asyncio.Runner, valkey: Any, _sqlite_migrated: Path) -> Iterator[Callable[..., Api]]:  # noqa: F811
    """Starts apps on sockets, audited when the test ends: `make_api(**settings)`."""
    with apps(loop_runner, valkey, _sqlite_migrated, "short") as make:
        yield make


@pytest.fixture
def api(make_api: Callable[..., Api]) -> Api:
    """A caller of an app that sells messages to one customer, `c`."""
    return selling(make_api())


def selling(api: Api) -> Api:
    """Sells messages to one customer, `c`, and leaves no connection open."""
    api.feature("msg")
    api.plan("base", {"feature_id": "msg", "included_usage": 1_000_000}, is_default=True)
    api.post("/v1/customers", {"id": "c"})
    api.check("c")  # loaded into Redis, and its partition open
    api.run(api.client.aclose())  # the next call opens another
    return api
