"""A sidecar with the example catalog for the published clients, and the clients."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.run.harness import REPOSITORY, Sidecar

from .client import KEY, AutumnJs, AutumnPy, Bridge
from .newer import AutumnJs13, AutumnPython, AutumnSdk

SETTINGS = {"SIDECAR_SECRET_KEYS": KEY, "SIDECAR_PARTITIONS": "8", "SIDECAR_TEST_CLOCK": "1"}


@pytest.fixture(scope="package")
def example() -> Iterator[Sidecar]:
    """The sidecar of these tests, started as the README says; its test clock is only moved forward."""
    with tempfile.TemporaryDirectory(prefix="sc-", dir="/tmp") as folder:
        running = Sidecar(Path(folder) / "d", settings=SETTINGS)
        running.start("--catalog", str(REPOSITORY / "docs" / "examples" / "chat.py"))
        try:
            yield running
        finally:
            running.stop()
            running.destroy()


@pytest.fixture(scope="package", params=[AutumnJs, AutumnPy], ids=["autumn-js-0.1.85", "autumn-py-3.1.9"])
def client(request: pytest.FixtureRequest, example: Sidecar) -> Iterator[Bridge]:
    """Each published client in turn."""
    bridge = request.param(example.url)
    yield bridge
    bridge.close()


@pytest.fixture(scope="package", params=[AutumnJs13, AutumnSdk], ids=["autumn-js-1.3.13", "autumn-sdk-1.2.0"])
def strict(request: pytest.FixtureRequest, example: Sidecar) -> Iterator[Any]:
    """Each client of 2.4 and 2.5 in turn."""
    bridge = request.param(example.url)
    yield bridge
    bridge.close()


@pytest.fixture(scope="package")
def lenient(example: Sidecar) -> Iterator[AutumnPython]:
    """The client of 2.0."""
    bridge = AutumnPython(example.url)
    yield bridge
    bridge.close()
