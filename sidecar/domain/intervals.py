"""Reset intervals: their codes, their order by length, and reset dates on the UTC calendar.

A reset date is always anchor + k × interval counted from the *original* anchor, clamped to the end
of a short month, so that 31 January leads to 28 February and then to 31 March. Everything is in
closed form and in integers (milliseconds since the epoch), for any year. It must not know what
resets.
"""

from __future__ import annotations

INTERVALS = ("lifetime", "minute", "hour", "day", "week", "month", "quarter", "semi_annual", "year")
"""Interval names; the index is the code stored in a row."""

LIFETIME, MINUTE, HOUR, DAY, WEEK, MONTH, QUARTER, SEMI_ANNUAL, YEAR = range(len(INTERVALS))

_MINUTE_MS = 60_000
_DAY_MS = 86_400_000
_FIXED_MS = {MINUTE: _MINUTE_MS, HOUR: 60 * _MINUTE_MS, DAY: _DAY_MS, WEEK: 7 * _DAY_MS}
_MONTHS = {MONTH: 1, QUARTER: 3, SEMI_ANNUAL: 6, YEAR: 12}
_ORDER_DAYS = {MONTH: 30, QUARTER: 90, SEMI_ANNUAL: 180, YEAR: 365}


def code_of(name: str | None) -> int:
    """The code of an interval's name; None is lifetime. Raises ValueError naming the known ones."""
    if name is None:
        return LIFETIME
    try:
        return INTERVALS.index(name)
    except ValueError:
        raise ValueError(f"unknown interval {name!r}; one of {', '.join(INTERVALS)}") from None


def length_ms(code: int, count: int) -> int:
    """The length of `count` intervals, for ordering buckets only: a month counts as 30 days, a
    quarter as 90, a half-year as 180, a year as 365; lifetime is 0. `lua/include/order.lua` has
    the same numbers."""
    if code == LIFETIME:
        return 0
    return count * (_FIXED_MS.get(code) or _ORDER_DAYS[code] * _DAY_MS)


def add_interval(anchor_ms: int, code: int, count: int, k: int) -> int:
    """The date k × count intervals after the anchor: calendar months in UTC, the day clamped to
    the month's end, the time of day kept. Raises ValueError for lifetime, which has no dates."""
    if code == LIFETIME:
        raise ValueError("a lifetime bucket has no reset dates")
    if code in _FIXED_MS:
        return anchor_ms + k * count * _FIXED_MS[code]
    days, time_of_day = divmod(anchor_ms, _DAY_MS)
    year, month, day = _civil(days)
    months = year * 12 + (month - 1) + k * count * _MONTHS[code]
    year, month = months // 12, months % 12 + 1
    return _days(year, month, min(day, _month_days(year, month))) * _DAY_MS + time_of_day


def next_reset(anchor_ms: int, code: int, count: int, now_ms: int) -> int:
    """The first of anchor, anchor + 1 × interval, anchor + 2 × interval … that is later than now;
    0 for lifetime. Takes the same time however many periods have passed."""
    if code == LIFETIME:
        return 0
    if anchor_ms > now_ms:
        return anchor_ms
    k = _periods_before(anchor_ms, code, count, now_ms)
    date = add_interval(anchor_ms, code, count, k)
    return date if date > now_ms else add_interval(anchor_ms, code, count, k + 1)


def _periods_before(anchor_ms: int, code: int, count: int, now_ms: int) -> int:
    """A k ≥ 1 such that k − 1 intervals have certainly passed and k + 1 certainly have not."""
    if code in _FIXED_MS:
        return (now_ms - anchor_ms) // (count * _FIXED_MS[code]) + 1
    year, month, _ = _civil(anchor_ms // _DAY_MS)
    now_year, now_month, _ = _civil(now_ms // _DAY_MS)
    passed = (now_year - year) * 12 + now_month - month
    return max(1, passed // (count * _MONTHS[code]))


def _month_days(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 of a date of the Gregorian calendar. Years begin in March here, so
    that the leap day is the last; the datetime module ends at the year 9999."""
    year -= month <= 2
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return 365 * year + year // 4 - year // 100 + year // 400 + day_of_year - 719_468


def _civil(days: int) -> tuple[int, int, int]:
    """(year, month, day) of days since 1970-01-01: the inverse of `_days`."""
    era, of_era = divmod(days + 719_468, 146_097)
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return era * 400 + year_of_era + (month <= 2), month, of_year - (153 * shifted + 2) // 5 + 1
