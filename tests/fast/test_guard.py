"""The short way is taken only with a uvicorn that has all it stands on."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import structlog
import uvicorn
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sidecar.api import fast
from sidecar.api.heads import Head
from tests.run.harness import REPOSITORY


def test_this_uvicorn_is_the_pinned_one_and_usable() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (pinned,) = (line for line in project["dependencies"] if line.startswith("uvicorn"))
    minor = ".".join(uvicorn.__version__.split(".")[:2])
    above = f"0.{int(minor.split('.')[1]) + 1}"
    assert pinned == f"uvicorn>={minor},<{above}"
    assert fast.usable() and fast.protocol(True) is fast.FastProtocol
    assert fast.protocol(False) == "httptools"


@pytest.mark.parametrize("name", [*fast.METHODS])
def test_without_a_method_it_stays_off(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delattr(HttpToolsProtocol, name)
    with structlog.testing.capture_logs() as said:
        assert not fast.usable() and fast.protocol(True) == "httptools"
    assert [entry["event"] for entry in said] == ["fast_path_off"]


def test_with_other_attributes_it_stays_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpToolsProtocol, "__init__", _Other.__init__)
    assert not fast.usable()


class _Other:
    def __init__(self, *_: Any) -> None:
        self.something = 1


@pytest.mark.parametrize("name", ["RequestResponseCycle", "FlowControl"])
def test_with_other_members_it_stays_off(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(httptools_impl, name, _Other)
    assert not fast.usable()
    monkeypatch.delattr(httptools_impl, name)
    assert not fast.usable()


def test_it_knows_every_member_of_a_cycle_that_uvicorn_looks_at() -> None:
    """What `HttpToolsProtocol` reads of `self.cycle`, from its own code."""
    import ast
    import inspect

    used = {
        node.attr for node in ast.walk(ast.parse(inspect.getsource(httptools_impl)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "cycle"
    }
    assert used <= fast.CYCLE_MEMBERS, f"uvicorn also uses {used - fast.CYCLE_MEMBERS}"
    cycle = fast.FastCycle(None, Head("check", (1, 2), "sandbox", None, 1), True, b"")  # type: ignore[arg-type]
    assert all(hasattr(cycle, name) for name in fast.CYCLE_MEMBERS)
