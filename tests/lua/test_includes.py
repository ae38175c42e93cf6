"""Includes: each in its place, each once; a missing one and a circle are refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from sidecar.engine.scripts import IncludeError, resolve
from tests.lua.source import FILES, INCLUDES

Write = Callable[..., Path]


@pytest.fixture
def lua(tmp_path: Path) -> Write:
    """Writes a lua folder: `main` and includes by name; returns main's path."""
    (tmp_path / "include").mkdir()

    def write(main: str, **includes: str) -> Path:
        for name, text in includes.items():
            (tmp_path / "include" / f"{name}.lua").write_text(text)
        (tmp_path / "main.lua").write_text(main)
        return tmp_path / "main.lua"

    return write


def take(name: str) -> str:
    return f'--- @include "{name}"\n'


def lines(path: Path) -> list[str]:
    return resolve(path).splitlines()


def test_an_include_stands_where_it_is_named(lua: Write) -> None:
    assert lines(lua("before\n" + take("a") + "after\n", a="in a\n")) == ["before", "in a", "after"]


def test_includes_of_includes_come_first(lua: Write) -> None:
    path = lua(take("b") + "main\n", b=take("a") + "in b\n", a="in a\n")
    assert lines(path) == ["in a", "in b", "main"]


def test_each_is_taken_once_where_it_is_named_first(lua: Write) -> None:
    path = lua(take("a") + take("b") + take("c") + take("a") + "main\n", a="in a\n", b=take("a") + "in b\n", c=take("b") + "in c\n")
    assert lines(path) == ["in a", "in b", "in c", "main"]


def test_a_file_without_a_newline_at_its_end(lua: Write) -> None:
    assert lines(lua(take("a") + "main", a="in a")) == ["in a", "main"]


def test_a_missing_file_is_named_with_who_wants_it(lua: Write) -> None:
    with pytest.raises(IncludeError, match=r"b\.lua includes a\.lua, which does not exist"):
        resolve(lua(take("b"), b=take("a")))
    with pytest.raises(IncludeError, match=r"main\.lua includes gone\.lua"):
        resolve(lua(take("gone")))


@pytest.mark.parametrize(
    "includes",
    [{"a": take("a")}, {"a": take("b"), "b": take("a")}, {"a": take("b"), "b": take("c"), "c": take("a")},
     {"a": "fine\n" + take("b"), "b": take("b")}],
    ids=["itself", "of two", "of three", "behind another"],
)
def test_a_circle_is_refused(lua: Write, includes: dict[str, str]) -> None:
    with pytest.raises(IncludeError, match="includes itself by way of"):
        resolve(lua(take("a"), **includes))


def test_a_circle_is_refused_even_after_the_file_was_taken(lua: Write) -> None:
    path = lua(take("b") + take("a"), a=take("b") + "in a\n", b="in b\n")
    assert lines(path) == ["in b", "in a"], "this is none: b is there already"


@pytest.mark.parametrize("line", ['  --- @include "a"', '-- @include "a"', '--- @include a', '--- @include "a" now'])
def test_what_only_looks_like_an_include_stays(lua: Write, line: str) -> None:
    assert lines(lua(line + "\n", a="in a\n")) == [line]


def test_every_include_of_the_release_is_used() -> None:
    taken = "".join(path.read_text() for path in (*FILES, *INCLUDES))
    assert [path.stem for path in INCLUDES if take(path.stem) not in taken] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_script_of_the_release_resolves_with_each_line_once(path: Path) -> None:
    defined = [line for line in lines(path) if line.startswith("local function ")]
    assert len(defined) == len(set(defined)), "a helper is defined twice"
