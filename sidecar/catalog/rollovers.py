"""Validation of rollovers, and how many of them there can be at once."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..domain.intervals import LIFETIME, MONTH, add_interval, code_of, length_ms
from .fields import Fields, join
from .model import ROLLOVER_DURATIONS, Feature, Rollover

ROWS_MAX = 31
"""A bucket keeps one row for each reset whose units are still there; never-ending ones are one row."""
LENGTH_MAX = 10**5
ROLLOVER_FIELDS = ("max", "max_percentage", "duration", "length")
_MONTHS = {"month": 1, "quarter": 3, "semi_annual": 6, "year": 12}
_YEAR_START_MS, _MONTHS_PER_LEAP_CYCLE = 1_672_531_200_000, 48
"""1 January 2023; of the 48 months from there, one is a February of 29 days."""


def read_rollover(
    i: Fields, feature: Feature, interval: str | None, interval_count: int, strict: bool = False
) -> Rollover | None:
    """The rollover of an item, given as `rollover` or as `config.rollover` (both only if they say the
    same); None for none, and with a problem noted."""
    given = rollover_places(i)
    if not given or not _may_roll(i, next(iter(given)), feature, interval):
        return None
    before = len(i.problems)
    read = [_read(Fields(value, join(i.path, name), i.problems), feature, strict) for name, value in given.items()]
    if len(i.problems) > before or interval is None:
        return None
    if len(read) > 1 and read[0] != read[1]:
        i.wrong("config.rollover", "says something else than rollover; leave one of them out")
        return None
    rows = rows_max(code_of(interval), interval_count, read[0])
    if rows > ROWS_MAX:
        i.wrong(
            f"{next(iter(given))}.length", f"{read[0].length} months of what resets every {_every(interval, interval_count)} could be "
            f"{rows} rollovers at once, of which at most {ROWS_MAX} are kept; lower it, or let them stay forever",
        )
        return None
    return read[0]


def rows_max(interval: int, interval_count: int, rollover: Rollover) -> int:
    """The most rollovers of one bucket that can be there at a time, for an interval by its code."""
    if rollover.duration == "forever":
        return 1
    name_months = {code_of(name): months for name, months in _MONTHS.items()}
    if interval in name_months:
        return -(-rollover.length // (name_months[interval] * interval_count))
    return -(-_longest_ms(rollover.length) // length_ms(interval, interval_count))


def rollover_places(i: Fields) -> dict[str, Any]:
    """The rollovers that an item gives, by the names of the places where they stand."""
    config = i.raw.get("config")
    if config is not None and not isinstance(config, dict):
        i.wrong("config", "must be an object")
        config = None
    values = {"rollover": i.raw.get("rollover"), "config.rollover": (config or {}).get("rollover")}
    return {name: value for name, value in values.items() if value is not None}


def _may_roll(i: Fields, name: str, feature: Feature, interval: str | None) -> bool:
    """Whether there is anything that a reset could find unspent."""
    if feature.type in ("boolean", "continuous_use"):
        i.wrong(name, f"does not apply to {feature.id!r}, which is {feature.type} and never resets; leave it out")
    elif i.raw.get("included_usage") == "inf":
        i.wrong(name, 'does not go with included_usage "inf", of which nothing is ever left; leave one of them out')
    elif code_of(interval) == LIFETIME and not i.given("interval"):
        i.wrong(name, "needs an interval, at whose end it is made")
    else:
        return True
    return False


def _read(r: Fields, feature: Feature, strict: bool) -> Rollover:
    if strict:
        r.only(ROLLOVER_FIELDS)
    most, percentage = r.quantity("max", feature.precision), r.percent("max_percentage", 100)
    if r.given("max") and r.given("max_percentage"):
        r.wrong("max_percentage", "does not go with max; leave one of them out")
    duration = r.choice("duration", ROLLOVER_DURATIONS) or "month"
    length = r.integer("length", 1, LENGTH_MAX) or 1
    return Rollover(most, percentage, duration, length if duration == "month" else 1)  # type: ignore[arg-type]


@cache
def _longest_ms(months: int) -> int:
    """The most time that so many months can take."""
    starts = (add_interval(_YEAR_START_MS, MONTH, 1, k) for k in range(_MONTHS_PER_LEAP_CYCLE))
    return max(add_interval(start, MONTH, 1, months) - start for start in starts)


def _every(interval: str | None, count: int) -> str:
    return str(interval) if count == 1 else f"{count} {interval}s"
