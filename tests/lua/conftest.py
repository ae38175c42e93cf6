"""Scripts on the session's Valkey, emptied."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
import redis

from tests.http import loop_runner, make_api, undeclared_keys  # noqa: F401
from tests.lua.scripted import Scripted


@pytest.fixture
def client(valkey: Any) -> Iterator[redis.Redis]:
    """A plain client of an empty server."""
    with redis.Redis(unix_socket_path=valkey.socket_path) as connected:
        yield connected


@pytest.fixture
def scripted(client: redis.Redis) -> Iterator[Scripted]:
    """Partition 0, open; afterwards no key may be left without a TTL but the permanent ones."""
    yield Scripted(client)
    assert undeclared_keys(client) == []
