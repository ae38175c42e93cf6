"""A sidecar of its own for a test, destroyed whatever happens."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from .harness import Sidecar


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    """A sidecar on a fresh folder and a free port, not started."""
    made = Sidecar(tmp_path / "data")
    yield made
    made.destroy()
