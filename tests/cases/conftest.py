"""The app over HTTP, and a world of buckets on it."""

import pytest

from tests.cases.desk import Desk
from tests.cases.world import World
from tests.http import WAYS, Api, api, loop_runner, make_api, module_api, module_apps  # noqa: F401

GENERATIONS = ("1.2", "2.x")


@pytest.fixture
def world(api: Api) -> World:  # noqa: F811
    """An empty catalog to put a case's features and plans in."""
    return World(api)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """By each generation of the wire, and each way in, but not each by each: plans are attached by Starlette
    whatever the way, and how a call is answered does not depend on what attached the plan."""
    if "desk" in metafunc.fixturenames:
        pairs = list(zip(WAYS, GENERATIONS, strict=True))
        metafunc.definition.add_marker(pytest.mark.parametrize(("make_api", "desk"), pairs, indirect=True))


@pytest.fixture
def desk(world: World, request: pytest.FixtureRequest) -> Desk:
    """Attaches by one generation of the wire."""
    return Desk(world, request.param == "2.x")
