"""The README's tour, line by line, in one shell against a sidecar that its own line starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

from .harness import REPOSITORY, Sidecar, environment, wait_for

README = (REPOSITORY / "README.md").read_text()
TOUR = README.partition("\n## Five minutes\n")[2].partition("\n## ")[0]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TOUR, re.MULTILINE | re.DOTALL)
REFUSAL = re.compile(r'\{"message":.*,"code":.*\}')
SHOWN_MIN = 10
END = "-- end of block --"


class Shell:
    """One bash, fed block by block as a reader pastes them."""

    def __init__(self, folder: Path, settings: dict[str, str]):
        self._process = subprocess.Popen(
            ["bash"], cwd=folder, env=environment(settings), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )

    def run(self, block: str) -> list[str]:
        """The lines that a block prints. Fails if its last command does."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{block}\necho '{END}' $?\n")
        self._process.stdin.flush()
        lines = []
        for line in self._process.stdout:
            if line.startswith(END):
                assert line.split()[-1] == "0", (block, lines)
                return lines
            lines.append(line.rstrip("\n"))
        raise AssertionError(f"the shell ended: {block}\n{lines}")

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def is_within(shown: Any, answer: Any) -> bool:
    """Whether a shortened answer says nothing that the whole one does not."""
    if isinstance(shown, dict):
        return isinstance(answer, dict) and all(key in answer and is_within(shown[key], answer[key]) for key in shown)
    if isinstance(shown, list):
        return isinstance(answer, list) and len(shown) == len(answer) and all(map(is_within, shown, answer))
    return type(shown) is type(answer) and bool(shown == answer)


@pytest.fixture
def toured(tmp_path: Path) -> Iterator[Sidecar]:
    """A folder that looks like the clone after the README's first command, with a free port."""
    if not (Path(sys.prefix) / "bin" / "sidecar").exists():
        pytest.skip("the sidecar command is not installed beside this Python")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "docs").symlink_to(REPOSITORY / "docs")
    made = Sidecar(tmp_path / ".sidecar")
    yield made
    made.destroy()


def test_every_line_of_the_tour(toured: Sidecar) -> None:
    (kind, serve), *rest = BLOCKS
    assert kind == "sh" and serve.count("\n") == 1 and " serve " in serve
    toured.launch(command=["bash", "-c", serve])
    toured.wait_until_started()
    shell = Shell(toured.data_dir.parent, toured.settings)
    printed: list[str] = []
    shown = 0
    try:
        for kind, block in rest:
            if kind == "sh":
                if "sqlite3" in block:
                    wait_for("sync", lambda: toured.get("/readyz")["sync"]["behind_entries"] == 0)  # type: ignore[index]
                printed = shell.run(block.replace("8700", str(toured.port)))
                assert printed.count("200") == block.splitlines().count("pay"), (block, printed)
                assert not [line for line in printed if REFUSAL.fullmatch(line)], (block, printed)
                continue
            shown += 1
            if kind == "json":
                assert is_within(json.loads(block), json.loads(printed[-1])), (block, printed[-1])
            else:
                start, shortened, _ = block.rstrip("\n").partition("…")
                [line] = printed
                assert line.startswith(start) if shortened else line == start
    finally:
        shell.close()
    assert shown >= SHOWN_MIN
    assert toured.stop() == 0, toured.output
    assert toured.processes() == []


def test_a_shown_answer_that_differs_is_seen() -> None:
    answer = {"balance": 4.98, "breakdown": [{"interval": "month", "balance": 5}], "allowed": True}
    assert is_within({"balance": 4.98, "breakdown": [{"balance": 5}]}, answer)
    for wrong in ({"balance": 4.97}, {"breakdown": []}, {"breakdown": [{"balance": 6}]}, {"usage": 0}, {"allowed": 1}):
        assert not is_within(wrong, answer)


def test_the_first_command_and_every_link() -> None:
    first = re.search(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert first and first[0].endswith(".venv/bin/sidecar serve --catalog docs/examples/chat.py")
    for page in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_command_table_is_complete() -> None:
    help_text = subprocess.run(
        [sys.executable, "-P", "-m", "sidecar", "--help"], env=environment({"COLUMNS": "200"}), cwd=os.sep,
        capture_output=True, text=True, timeout=30,
    ).stdout
    commands = set(re.findall(r"│ ([a-z]+)  ", help_text)) - {"version"}
    assert commands >= {"serve", "push"}
    assert not [name for name in commands if f"`sidecar {name}" not in README]
