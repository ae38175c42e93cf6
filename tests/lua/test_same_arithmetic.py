"""Dates and credits come out the same in Lua and in Python: the includes, run in a real server, against
the domain's functions, over random inputs and at the edges of exact numbers."""

from __future__ import annotations

import math
from typing import Any

import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidecar.domain.intervals import MINUTE, YEAR, next_reset
from sidecar.domain.quantities import FRACTION_PRODUCT_LIMIT, QUANTITY_MAX, credits_back, to_credits, to_units
from tests.lua.source import included

QUICK = settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
DAY_MS = 86_400_000
Y2000, Y2400 = 946_684_800_000, 13_569_465_600_000

MANY = """
local results, width = {}, %d
for i = 1, #ARGV, width do
  local a = {}
  for j = 0, width - 1 do a[j + 1] = tonumber(ARGV[i + j]) end
  local result = %s(unpack(a))
  results[#results + 1] = result or 'none'
end
return results
"""


def in_lua(client: redis.Redis, include: str, function: str, rows: list[tuple[int, ...]]) -> list[Any]:
    """The function's answer for each row of arguments; None for nil."""
    text = included("rows") + included(include) + MANY % (len(rows[0]), function)
    return [None if answer == b"none" else answer for answer in client.eval(text, 0, *(n for row in rows for n in row))]


TIMES = st.one_of(
    st.integers(Y2000, Y2400),
    st.integers(Y2000 // DAY_MS, Y2400 // DAY_MS).map(lambda day: day * DAY_MS),
    st.integers(Y2000 // DAY_MS, Y2400 // DAY_MS).map(lambda day: day * DAY_MS - 1),
)


@st.composite
def reset_calls(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """(anchor, interval, count, now) with the anchor not after now, as resets have it."""
    anchor = draw(TIMES)
    code = draw(st.integers(MINUTE, YEAR))
    count = draw(st.integers(1, 36))
    periods = draw(st.integers(0, 50))
    near = next_reset(anchor, code, count, anchor)
    for _ in range(min(periods, 5)):
        near = next_reset(anchor, code, count, near)
    now = draw(st.one_of(st.sampled_from([near - 1, near, near + 1]), st.integers(anchor, anchor + 60 * 366 * DAY_MS)))
    return anchor, code, count, max(anchor, now)


@QUICK
@given(calls=st.lists(reset_calls(), min_size=1, max_size=60))
@example(calls=[(1_706_659_200_000, 5, 1, now) for now in range(1_706_659_200_000, 1_706_659_200_000 + 800 * DAY_MS, DAY_MS)])  # from 31 Jan 2024
def test_reset_dates_are_the_same(client: redis.Redis, calls: list[tuple[int, int, int, int]]) -> None:
    expected = [next_reset(*call) for call in calls]
    assert in_lua(client, "calendar", "next_reset", calls) == expected
    assert all(at > call[3] for at, call in zip(expected, calls))


@st.composite
def costs(draw: st.DrawFn) -> tuple[int, int]:
    """A reduced fraction n/d of scaled units with n · d < 2^53, often at that edge."""
    n = draw(st.one_of(st.integers(0, 10), st.integers(0, 10**6), st.sampled_from([0, 1, 2**26, 10**9, 2**52, 2**53 - 1])))
    most = (FRACTION_PRODUCT_LIMIT - 1) // max(n, 1)
    d = draw(st.one_of(st.integers(1, most), st.integers(1, min(most, 100)), st.just(most)))
    common = math.gcd(n, d)
    return n // common, d // common


@st.composite
def conversions(draw: st.DrawFn) -> tuple[int, int, int]:
    n, d = draw(costs())
    whole = QUANTITY_MAX * d // n if n else QUANTITY_MAX
    units = draw(st.one_of(
        st.integers(0, QUANTITY_MAX), st.integers(0, 1000), st.integers(-2, 2).map(lambda off: whole + off),
        st.integers(0, 50).map(lambda k: k * d), st.integers(0, 50).map(lambda k: k * d + 1), st.just(QUANTITY_MAX),
    ))
    return min(max(units, 0), QUANTITY_MAX), n, d


def within(value: int) -> int | None:
    return value if value <= QUANTITY_MAX else None


@QUICK
@given(calls=st.lists(conversions(), min_size=1, max_size=100))
@example(calls=[(QUANTITY_MAX, 1, 1), (QUANTITY_MAX, 2, 1), (2**52, 2, 1), (QUANTITY_MAX, 3, 2), (1, 1, 2**53 - 1), (QUANTITY_MAX, 2**53 - 1, 1)])
def test_credits_are_the_same(client: redis.Redis, calls: list[tuple[int, int, int]]) -> None:
    assert in_lua(client, "convert", "credits_of", calls) == [within(to_credits(*call)) for call in calls]
    assert in_lua(client, "convert", "credits_back", calls) == [within(credits_back(*call)) for call in calls]


@QUICK
@given(calls=st.lists(conversions().filter(lambda call: call[1] > 0), min_size=1, max_size=100))
def test_units_paid_are_the_same(client: redis.Redis, calls: list[tuple[int, int, int]]) -> None:
    """As far as a walk asks: for credits that units within the range have cost, or less."""
    asked = []
    for units, n, d in calls:
        most = min(to_credits(units, n, d), QUANTITY_MAX)
        asked += [(credits, n, d) for credits in {0, most, most // 2, most // 3, max(0, most - 1)} if to_units(credits, n, d) <= QUANTITY_MAX]
    assert in_lua(client, "convert", "units_of", asked) == [to_units(*call) for call in asked]


@QUICK
@given(call=conversions())
def test_what_fits_and_what_is_spent_agree(call: tuple[int, int, int]) -> None:
    """The walk's promise, on both functions: k units cost ⌈k·n/d⌉, and that many credits pay k units at
    least and never a whole unit more than they cover."""
    units, n, d = call
    if n == 0:
        return
    cost = to_credits(units, n, d)
    assert (cost - 1) * d < units * n <= cost * d
    assert to_units(cost, n, d) >= units and credits_back(units, n, d) <= cost
