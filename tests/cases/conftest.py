"""The app over HTTP, and a world of buckets on it."""

import pytest

from tests.cases.desk import Desk
from tests.cases.world import World
from tests.http import Api, api, loop_runner, make_api, module_api, module_apps  # noqa: F401


@pytest.fixture
def world(api: Api) -> World:  # noqa: F811
    """An empty catalog to put a case's features and plans in."""
    return World(api)


@pytest.fixture(params=["1.2", "2.x"])
def desk(world: World, request: pytest.FixtureRequest) -> Desk:
    """Attaches by one generation of the wire."""
    return Desk(world, request.param == "2.x")
