"""Guarantee: the scripts' own arithmetic (credit conversion, reset dates) is exact and equals the
domain's, up to the ends of the range.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator

import msgpack
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.domain import intervals
from sidecar.domain.quantities import QUANTITY_MAX, credits_back, to_credits, to_units
from sidecar.engine import scripts

Evaluate = Callable[[str, list[list[int]]], list[Any]]


@pytest.fixture
def evaluate(valkey) -> Iterator[Evaluate]:
    """Calls a function of lua/include once for each argument list, in one script."""
    client = redis.Redis(unix_socket_path=valkey.socket_path)
    folder = scripts.lua_dir() / "include"
    includes = "\n".join((folder / f"{name}.lua").read_text() for name in ("rows", "calendar", "convert"))

    def call(function: str, arguments: list[list[int]]) -> list[Any]:
        source = f"""{includes}
            local answers = {{}}
            for i, arguments in ipairs(cmsgpack.unpack(ARGV[1])) do answers[i] = {function}(unpack(arguments)) or -1 end
            return cmsgpack.pack(answers)"""
        return msgpack.unpackb(client.eval(source, 0, msgpack.packb(arguments)))

    yield call
    client.close()


_large = st.one_of(st.integers(0, QUANTITY_MAX), st.integers(0, 1000), st.integers(QUANTITY_MAX - 1000, QUANTITY_MAX))
_cost = st.integers(1, 2**53 - 1).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, (2**53 - 1) // n))) | st.tuples(
    st.integers(0, 10**7), st.integers(1, 9 * 10**8)
)
_conversions = st.lists(st.tuples(_large, _cost), min_size=1, max_size=50)


@pytest.mark.parametrize(("function", "exact"), [("credits_of", to_credits), ("credits_back", credits_back)])
def test_credits_are_exact_or_out_of_range(function, exact, evaluate):
    @settings(max_examples=60, deadline=None)
    @given(_conversions)
    def check(drawn):
        arguments = [[units, n, d] for units, (n, d) in drawn]
        expected = [exact(*each) for each in arguments]
        assert evaluate(function, arguments) == [each if each <= QUANTITY_MAX else -1 for each in expected]

    check()


def test_units_paid_by_credits_are_exact(evaluate):
    @settings(max_examples=60, deadline=None)
    @given(_conversions)
    def check(drawn):
        # a walk asks for the units of credits that some amount in range did not get wholly paid by
        arguments = [[to_credits(units, n, d), n, d] for units, (n, d) in drawn if n and to_credits(units, n, d) <= QUANTITY_MAX]
        arguments = [each for each in arguments if to_units(*each) <= QUANTITY_MAX]
        if arguments:
            assert evaluate("units_of", arguments) == [to_units(*each) for each in arguments]

    check()


_dates = st.lists(
    st.tuples(
        st.integers(0, 4 * 10**12), st.integers(intervals.MINUTE, intervals.YEAR), st.integers(1, 40), st.integers(0, 10**14)
    ),
    min_size=1, max_size=50,
)


def test_reset_dates_are_the_domains(evaluate):
    @settings(max_examples=60, deadline=None)
    @given(_dates)
    def check(drawn):
        arguments = [[anchor, code, count, anchor + ahead] for anchor, code, count, ahead in drawn]
        assert evaluate("next_reset", arguments) == [intervals.next_reset(*each) for each in arguments]

    check()
