"""A whole sidecar (`sidecar serve`: embedded Valkey, HTTP and sync workers; SQLite, then
PostgreSQL) to drive over HTTP. One per database for tests that need no clock of their own: each
makes customers of its own.
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


@pytest.fixture(scope="package", params=DATABASES)
def served(request: pytest.FixtureRequest) -> Iterator[tuple[Sidecar, Api]]:
    """The sidecar of these tests. Its test clock must not be moved."""
    with running(request, request.param) as both:
        yield both


@pytest.fixture
def api(served: tuple[Sidecar, Api]) -> Api:
    """A client of that sidecar."""
    return served[1]


@pytest.fixture(params=DATABASES)
def timed(request: pytest.FixtureRequest) -> Iterator[tuple[Sidecar, Api]]:
    """A sidecar of the test's own, whose clock it may move."""
    with running(request, request.param) as both:
        yield both
