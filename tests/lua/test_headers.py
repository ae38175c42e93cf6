"""Each script does what its header says and its Python wrapper expects: keys, arguments, codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar.engine import scripts
from tests.lua.source import FILES, header, without_comments

BY_NAME = {script.name: script for script in scripts.SCRIPTS}
each_script = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def test_every_script_has_a_wrapper_and_every_wrapper_a_script() -> None:
    assert {path.stem for path in FILES} == set(BY_NAME)


@each_script
def test_names_of_keys_and_arguments_agree_in_order(path: Path) -> None:
    told, script = header(path), BY_NAME[path.stem]
    assert tuple(told.keys.values()) == script.keys
    assert tuple(told.args.values()) == script.args


@each_script
def test_codes_agree_and_are_those_the_source_answers(path: Path) -> None:
    told, script = header(path), BY_NAME[path.stem]
    assert told.codes == script.codes and len(set(told.codes)) == len(told.codes)
    source = without_comments(scripts.resolve(path))
    answered = set(re.findall(r"\{'([A-Z]+)'", source)) | set(re.findall(r"return '([A-Z]+)'", source))
    assert answered == {*told.codes, "OK"}
    assert told.answer.startswith("OK")
    spoken = {part.split()[0] for part in told.answer.split("|")}
    assert spoken <= {*told.codes, "OK"}, "ANSWER names a code that CODES does not"


@each_script
def test_the_source_uses_every_key_and_argument_and_no_others(path: Path) -> None:
    told = header(path)
    source = without_comments(scripts.resolve(path))
    for name, declared in (("KEYS", told.keys), ("ARGV", told.args)):
        used = {int(number) for number in re.findall(rf"\b{name}\[(\d+)\]", source)}
        assert used <= set(declared), f"{name} beyond the header's"
        unused = set(declared) - used
        variadic = {max(declared)} if re.search(rf"#{name}\b|unpack\({name}\b|\b{name}\[[^\d\]]", source) and declared else set()
        via_constant = {int(n) for n in re.findall(r"local FIELDS_AT[^=]*= (\d+)", source)} if name == "ARGV" else set()
        assert unused <= variadic | via_constant, f"{name} {unused} of the header is never read"


@each_script
def test_what_a_release_ships_is_what_redis_runs(path: Path) -> None:
    script = BY_NAME[path.stem]
    assert script.sha == re.sub(r"\s", "", script.sha) and len(script.sha) == 40
    assert "@include" not in script.source and "KEYS 1" not in script.source
    assert not re.search(r"^\s*--", script.source, re.MULTILINE)


@each_script
def test_no_shebang_without_flags_chosen_on_purpose(path: Path) -> None:
    assert not path.read_text().startswith("#!")
