"""A whole sidecar (`sidecar serve`: embedded Valkey, HTTP and sync workers; SQLite, then
PostgreSQL) to drive over HTTP. One per database for tests that leave the clock alone and one for those
that move it: each makes customers of its own.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import pytest

from tests.conftest import _pg_database
from tests.flows import catalog
from tests.flows.client import KEY, Api
from tests.run.harness import Sidecar

SETTINGS = {"SIDECAR_SECRET_KEYS": KEY, "SIDECAR_PARTITIONS": "8", "SIDECAR_TEST_CLOCK": "1"}
DATABASES = ["sqlite", "postgres"]


@contextmanager
def running(request: pytest.FixtureRequest, database: str) -> Iterator[tuple[Sidecar, Api]]:
    """A sidecar on a new database of that kind, selling what `catalog.py` lists."""
    url = None
    if database == "postgres":
        databases = _pg_database(request.getfixturevalue("pg_server"), "template0")
        url = next(databases)
    with tempfile.TemporaryDirectory(prefix="sc-", dir="/tmp") as folder:
        settings = SETTINGS | ({"SIDECAR_DATABASE_URL": url} if url else {})
        sidecar = Sidecar(Path(folder) / "d", settings=settings)
        sidecar.start()
        api = Api(sidecar.url)
        try:
            api.sell(catalog.FEATURES, catalog.PRODUCTS)
            yield sidecar, api
        finally:
            api.close()
            sidecar.stop()
    if url:
        next(databases, None)


@pytest.fixture(scope="package")
def on_sqlite(request: pytest.FixtureRequest) -> Iterator[tuple[Sidecar, Api]]:
    """The sidecar of these tests on SQLite. Its test clock must not be moved."""
    with running(request, "sqlite") as both:
        yield both


@pytest.fixture(scope="package")
def on_postgres(request: pytest.FixtureRequest) -> Iterator[tuple[Sidecar, Api]]:
    """The same on PostgreSQL."""
    with running(request, "postgres") as both:
        yield both


@pytest.fixture(params=DATABASES)
def served(request: pytest.FixtureRequest) -> tuple[Sidecar, Api]:
    """Each of them in turn; with one fixture of two parameters, every file would start both anew."""
    found: tuple[Sidecar, Api] = request.getfixturevalue(f"on_{request.param}")
    return found


@pytest.fixture
def api(served: tuple[Sidecar, Api]) -> Api:
    """A client of that sidecar."""
    return served[1]


@pytest.fixture(scope="package")
def timed_on_sqlite(request: pytest.FixtureRequest) -> Iterator[tuple[Sidecar, Api]]:
    """Another sidecar on SQLite, whose test clock is only moved forward."""
    with running(request, "sqlite") as both:
        yield both


@pytest.fixture(scope="package")
def timed_on_postgres(request: pytest.FixtureRequest) -> Iterator[tuple[Sidecar, Api]]:
    """The same on PostgreSQL."""
    with running(request, "postgres") as both:
        yield both


@pytest.fixture(params=DATABASES)
def timed(request: pytest.FixtureRequest) -> tuple[Sidecar, Api]:
    """Each sidecar in turn whose clock a test may move, for customers that it makes itself."""
    found: tuple[Sidecar, Api] = request.getfixturevalue(f"timed_on_{request.param}")
    return found
