"""Guarantee: the scripts decide and count as the model of the balance rules does, and the test that
says so would notice if they did not.

SIDECAR_LONG=1 runs the long form. A failure prints the example and the line that repeats it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Iterator

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from sidecar.engine import scripts

from .machine import Comparison
from .subject import Scripts
from .whole import Whole

LONG = os.environ.get("SIDECAR_LONG") == "1"
EXAMPLES, STEPS = (4_000, 40) if LONG else (300, 14)
SEARCH = dict(
    max_examples=60, stateful_step_count=14, derandomize=True, database=None, phases=[Phase.generate],
    report_multiple_bugs=False,
)
"""A short search, the same every time; each planted bug is found well within it."""

PLANTED = {
    "lifetime before month": (
        "order.lua",
        "if (x == 0) ~= (y == 0) then return x ~= 0 end",
        "if (x == 0) ~= (y == 0) then return x == 0 end",
    ),
    "cap off by one unit": (
        "plan.lua",
        "return purchasable + (balance < 0 and balance or 0)",
        "return purchasable + 1 + (balance < 0 and balance or 0)",
    ),
    "reset twice": (
        "resets.lua",
        "blob[o + NEXT_RESET], blob[o + RESET_AT], blob[o + RESET_OVER], blob[o + HELD] = after,",
        "blob[o + NEXT_RESET], blob[o + RESET_AT], blob[o + RESET_OVER], blob[o + HELD] = due_at,",
    ),
    "refund above grant": ("plan.lua", "room = terms[o + GRANTED] - (balance > 0 and balance or 0)", "room = MAX"),
    "key ignored": ("begin_directly.lua", "if stored or lost_until then", "if lost_until then"),
}
"""Bugs to plant: file under lua/include, the text to replace, and the wrong one."""


@pytest.fixture
def client(valkey) -> Iterator[redis.Redis]:
    opened = redis.Redis(unix_socket_path=valkey.socket_path)
    yield opened
    opened.close()


def compare(real: Scripts, of: type[Comparison] = Comparison, **how) -> None:
    """Runs the comparison on these scripts; raises at the first difference."""
    machine = type(of.__name__, (of,), {"real": real})
    suppressed = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    run_state_machine_as_test(machine, settings=settings(deadline=None, suppress_health_check=suppressed, **how))


def test_scripts_answer_and_count_as_the_model_does(client):
    compare(Scripts(client), max_examples=EXAMPLES, stateful_step_count=STEPS, print_blob=True)


def test_the_whole_engine_does_as_the_model_does(client):
    """With rollovers, caps, holds, exact refunds and corrections."""
    how = dict(max_examples=EXAMPLES, stateful_step_count=2 * STEPS, print_blob=True)
    compare(Scripts(client), Whole, **how, **({} if LONG else {"derandomize": True, "database": None}))


def test_the_short_search_finds_nothing_in_the_right_scripts(client):
    """So what it finds below is the planted bug, nothing else."""
    compare(Scripts(client), **SEARCH)


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug, client, tmp_path):
    file, right, wrong = PLANTED[bug]
    folder = tmp_path / "lua"
    shutil.copytree(scripts.lua_dir(), folder)
    _plant(folder / "include" / file, right, wrong)
    with pytest.raises(AssertionError) as found:
        compare(Scripts(client, folder), **SEARCH)
    print(f"{bug}: {_last_line(found)}")


def _last_line(found: pytest.ExceptionInfo[AssertionError]) -> str:
    return str(found.traceback[-1]).strip()


def _plant(path: Path, right: str, wrong: str) -> None:
    source = path.read_text()
    assert source.count(right) == 1, f"{path.name} has changed: say anew how to plant this bug"
    path.write_text(source.replace(right, wrong))
