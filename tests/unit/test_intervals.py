"""Guarantee: reset dates are original anchor + k × interval on the UTC calendar, without drift."""

from __future__ import annotations

import calendar
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain import intervals
from sidecar.domain.intervals import add_interval, code_of, length_ms, next_reset
from sidecar.domain.layout import INTERVALS

DAY_MS = 86_400_000


def ms(*parts: int) -> int:
    return round(datetime(*parts, tzinfo=UTC).timestamp() * 1000)


def dates(anchor: int, name: str, count: int, ks: range) -> list[str]:
    days = [datetime.fromtimestamp(add_interval(anchor, code_of(name), count, k) / 1000, UTC) for k in ks]
    return [day.strftime("%Y-%m-%d") for day in days]


def test_the_31st_returns_after_february():
    assert dates(ms(2026, 1, 31), "month", 1, range(5)) == [
        "2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]


def test_february_has_its_leap_day():
    assert dates(ms(2024, 1, 30), "month", 1, range(1, 3)) == ["2024-02-29", "2024-03-30"]
    assert dates(ms(2100, 1, 31), "month", 1, range(1, 2)) == ["2100-02-28"]
    assert dates(ms(2000, 1, 31), "month", 1, range(1, 2)) == ["2000-02-29"]


def test_a_year_from_the_leap_day_comes_back_to_it():
    assert dates(ms(2024, 2, 29), "year", 1, range(1, 5)) == ["2025-02-28", "2026-02-28", "2027-02-28", "2028-02-29"]


def test_quarters_and_half_years_are_calendar_months():
    assert dates(ms(2025, 11, 30), "quarter", 1, range(1, 4)) == ["2026-02-28", "2026-05-30", "2026-08-30"]
    assert dates(ms(2025, 8, 31), "semi_annual", 1, range(1, 4)) == ["2026-02-28", "2026-08-31", "2027-02-28"]


def test_counts_above_one_multiply():
    assert dates(ms(2025, 12, 31), "month", 2, range(1, 4)) == ["2026-02-28", "2026-04-30", "2026-06-30"]
    assert dates(ms(2026, 3, 1), "week", 2, range(1, 3)) == ["2026-03-15", "2026-03-29"]
    assert dates(ms(2024, 2, 29), "year", 4, range(1, 2)) == ["2028-02-29"]
    assert add_interval(5, code_of("minute"), 7, 3) == 5 + 21 * 60_000


def test_the_time_of_day_is_kept():
    anchor = ms(2026, 1, 31, 23, 59, 59) + 999
    assert add_interval(anchor, code_of("month"), 1, 1) == ms(2026, 2, 28, 23, 59, 59) + 999


def test_dates_far_in_the_future_take_no_loop():
    started = time.perf_counter()
    anchor = ms(2026, 1, 31)
    assert add_interval(anchor, code_of("minute"), 1, 10**12) == anchor + 60_000 * 10**12
    assert add_interval(ms(2024, 2, 29), code_of("month"), 1, 4800 * 10**6) == (
        ms(2024, 2, 29) + 146_097 * DAY_MS * 10**6)  # 400 years have 146,097 days
    far = next_reset(anchor, code_of("month"), 1, 10**17)
    assert far > 10**17 and far - 10**17 <= 31 * DAY_MS
    assert time.perf_counter() - started < 0.1


def test_next_reset_is_strictly_later_than_now():
    anchor, month = ms(2026, 1, 31), code_of("month")
    assert next_reset(anchor, month, 1, anchor) == ms(2026, 2, 28)
    assert next_reset(anchor, month, 1, ms(2026, 2, 28) - 1) == ms(2026, 2, 28)
    assert next_reset(anchor, month, 1, ms(2026, 2, 28)) == ms(2026, 3, 31)
    assert next_reset(anchor, month, 1, ms(2026, 7, 31) - 1) == ms(2026, 7, 31)


def test_an_anchor_ahead_is_the_next_reset():
    """case 146: a date that was set by hand becomes the anchor, one month later the next."""
    anchor, month = ms(2026, 5, 10), code_of("month")
    assert next_reset(anchor, month, 1, ms(2026, 5, 1)) == anchor
    assert next_reset(anchor, month, 1, anchor) == ms(2026, 6, 10)


def test_lifetime_has_no_dates():
    assert next_reset(0, intervals.LIFETIME, 1, 10**15) == 0
    with pytest.raises(ValueError, match="lifetime"):
        add_interval(0, intervals.LIFETIME, 1, 1)


def test_codes_are_the_stored_ones():
    assert code_of(None) == code_of("lifetime") == 0
    assert [code_of(name) for name in INTERVALS] == list(range(9))
    with pytest.raises(ValueError, match="unknown interval 'fortnight'; one of lifetime"):
        code_of("fortnight")


def test_scripts_order_by_the_same_lengths():
    text = (Path(__file__).parents[2] / "lua/include/order.lua").read_text()
    table = re.search(r"LENGTH_MS = \{(.*?)\}", text, re.S).group(1)
    in_lua = {int(code): int(length) for code, length in re.findall(r"\[(\d)\] = (\d+)", table)}
    assert in_lua == {code: length_ms(code, 1) for code in range(9)}


def test_lengths_order_intervals():
    lengths = [length_ms(code, 1) for code in range(9)]
    assert lengths == sorted(lengths) and lengths[0] == 0
    assert length_ms(code_of("month"), 1) == 30 * DAY_MS
    assert length_ms(code_of("month"), 3) == length_ms(code_of("quarter"), 1)
    assert length_ms(code_of("month"), 6) == length_ms(code_of("semi_annual"), 1)
    assert length_ms(code_of("year"), 1) == length_ms(code_of("day"), 365)
    assert length_ms(code_of("week"), 4) < length_ms(code_of("month"), 1) < length_ms(code_of("week"), 5)


@given(st.datetimes(datetime(1900, 1, 1), datetime(2600, 1, 1)), st.integers(1, 60), st.integers(0, 400))
def test_calendar_months_agree_with_the_datetime_module(start, count, k):
    months = start.year * 12 + start.month - 1 + count * k
    year, month = divmod(months, 12)
    if year > 9000:
        return
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    expected = datetime(year, month + 1, day, start.hour, start.minute, start.second)
    epoch = datetime(1970, 1, 1)
    anchor = (start.replace(microsecond=0) - epoch) // timedelta(milliseconds=1)
    assert add_interval(anchor, code_of("month"), count, k) == (expected - epoch) // timedelta(milliseconds=1)


@given(st.integers(-10**12, 4 * 10**12), st.integers(1, 8), st.integers(1, 30), st.integers(-10**11, 10**14))
def test_next_reset_is_the_first_date_after_now(anchor, code, count, ahead):
    now = anchor + ahead
    date = next_reset(anchor, code, count, now)
    if ahead < 0:
        assert date == anchor
        return
    assert date > now
    guess = (date - anchor) * 12 // (365 * DAY_MS * count)  # near k for months; exact for the rest below
    ks = range(max(1, guess // 12 - 3), guess + 4) if code > 4 else [
        (date - anchor) // length_ms(code, count)]
    k = next(k for k in ks if add_interval(anchor, code, count, k) == date)
    assert k >= 1 and (k == 1 or add_interval(anchor, code, count, k - 1) <= now)
