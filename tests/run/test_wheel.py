"""The wheel alone is enough: scripts, pages and migrations are inside, and it runs from any folder."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .harness import REPOSITORY, Sidecar


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
    )
    assert done.returncode == 0, done.stderr
    [path] = out.glob("*.whl")
    return path


def test_everything_a_run_needs_is_inside(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"sidecar/{path.relative_to(REPOSITORY)}" for path in (REPOSITORY / "lua").rglob("*.lua")}
    for package in ("sidecar", "sync"):
        for path in (REPOSITORY / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                wanted.add(str(path.relative_to(REPOSITORY)))
    assert any(name.endswith("include/rows.lua") for name in wanted)
    assert any(name.startswith("sidecar/billing/pages/") for name in wanted)
    assert any(name.startswith("sidecar/store/migrations/versions/") for name in wanted)
    assert wanted <= inside, sorted(wanted - inside)
    assert not [name for name in inside if name.startswith(("tests/", "docs/", "loadtests/"))]


def test_it_serves_from_any_folder(wheel: Path, sidecar: Sidecar, tmp_path: Path) -> None:
    sidecar.package_root = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(sidecar.package_root)
    sidecar.start("--catalog", str(REPOSITORY / "docs" / "examples" / "chat.py"))
    assert sidecar.answers()
    environ = Path(f"/proc/{sidecar.one('watch').pid}/environ").read_bytes().split(b"\0")
    [path] = [value for value in environ if value.startswith(b"PYTHONPATH=")]  # of its own; the workers are copies
    assert path.startswith(f"PYTHONPATH={sidecar.package_root}".encode())
    assert sidecar.stop() == 0 and sidecar.processes() == []
