"""The app over HTTP, and a world of buckets on it."""

import pytest

from tests.cases.world import World
from tests.http import Api, api, loop_runner, make_api, module_api, module_apps  # noqa: F401


@pytest.fixture
def world(api: Api) -> World:  # noqa: F811
    """An empty catalog to put a case's features and plans in."""
    return World(api)
