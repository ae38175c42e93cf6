"""Reading lua/: headers, includes, and source without comments or with its strings blanked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sidecar.engine import scripts

LUA = scripts.lua_dir()
FILES = sorted(LUA.glob("*.lua"))
INCLUDES = sorted((LUA / "include").glob("*.lua"))

_TOKEN = re.compile(
    r"--\[\[.*?\]\]|--[^\n]*|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"", re.DOTALL
)


@dataclass(frozen=True)
class Header:
    """What a script's opening comment promises."""

    purpose: str
    keys: dict[int, str]
    args: dict[int, str]
    answer: str
    codes: tuple[str, ...]


def header(path: Path) -> Header:
    """The header of a script. Fails the test if it is not in shape."""
    found = re.match(r"--\[\[\n(.*?)\n--\]\]\n", path.read_text(), re.DOTALL)
    assert found, f"{path.name} does not open with a header"
    lines = found[1].splitlines()
    assert lines[0].startswith(f"{path.stem}: "), f"{path.name}: the first line names the script and its purpose"
    keys: dict[int, str] = {}
    args: dict[int, str] = {}
    answers, codes = [], []
    for line in lines:
        if entry := re.match(r"(KEYS|ARGV) (\d+) ([a-z_]+)(?:\s|$)", line):
            into = keys if entry[1] == "KEYS" else args
            assert int(entry[2]) == len(into) + 1, f"{path.name}: {line!r} is out of order"
            into[int(entry[2])] = entry[3]
        elif line.startswith("ANSWER "):
            answers.append(line.removeprefix("ANSWER "))
        elif line == "CODES" or line.startswith("CODES "):
            codes.append(tuple(line.split()[1:]))
    assert len(answers) == len(codes) == 1, f"{path.name}: one ANSWER line and one CODES line"
    return Header(lines[0], keys, args, answers[0], codes[0])


def without_comments(text: str, blank_strings: bool = False) -> str:
    """Lua source without comments, lines kept; strings as they are or emptied."""

    def replace(match: re.Match[str]) -> str:
        token = match[0]
        if token.startswith("--"):
            return "\n" * token.count("\n")
        return token[0] * 2 if blank_strings else token

    return _TOKEN.sub(replace, text)


def included(name: str) -> str:
    """The text of an include with its own includes in their place."""
    text = (LUA / "include" / f"{name}.lua").read_text()
    return re.sub(r'^--- @include "(\w+)"$', lambda match: included(match[1]), text, flags=re.MULTILINE)
