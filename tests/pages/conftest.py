"""The sidecar of the flow tests, on SQLite, and a browser."""

from __future__ import annotations

from typing import Iterator

import pytest

from tests.flows.client import Api
from tests.flows.conftest import running
from tests.pages.browser import Browser, missing


@pytest.fixture(scope="package")
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    """A client of a running sidecar."""
    with running(request, "sqlite") as (_, client):
        yield client


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium; skips with the reason where there is none."""
    if reason := missing():
        pytest.skip(reason)
    opened = Browser(tmp_path_factory.mktemp("chromium"))
    try:
        yield opened
    finally:
        opened.close()
