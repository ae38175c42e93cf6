"""Latencies of many calls, counted by their value to three digits: small enough to pass between
processes and to keep."""

from __future__ import annotations

import math
from collections import Counter
from typing import Iterable, Mapping

DIGITS = 3
STEP = 1.1


class Histogram:
    """Counts by microseconds."""

    def __init__(self, counts: Mapping[float, int] | None = None):
        self._counts: Counter[float] = Counter(counts or {})

    @classmethod
    def of_ns(cls, values_ns: Iterable[int]) -> Histogram:
        """Of latencies in nanoseconds."""
        return cls(Counter(float(f"{value / 1000:.{DIGITS}g}") for value in values_ns))

    @classmethod
    def merged(cls, pairs: Iterable[Iterable[tuple[float, int]]]) -> Histogram:
        """Of what `pairs` of several gave."""
        whole = cls()
        for some in pairs:
            for value, count in some:
                whole._counts[value] += count
        return whole

    @property
    def count(self) -> int:
        """How many there are."""
        return self._counts.total()

    def pairs(self) -> list[tuple[float, int]]:
        """(microseconds, how many), from the least up."""
        return sorted(self._counts.items())

    def percentile_us(self, share: float) -> float:
        """The smallest value that at least `share` of them do not exceed; 0 of none."""
        wanted, seen, value = share * self.count, 0, 0.0
        for value, count in self.pairs():
            seen += count
            if seen >= wanted:
                break
        return value

    def coarse(self) -> list[tuple[float, int]]:
        """Counts by values a tenth apart, for a picture: (the least of them in microseconds, how many)."""
        found: Counter[int] = Counter()
        for value, count in self._counts.items():
            found[math.floor(math.log(max(value, 1.0), STEP))] += count
        return [(round(STEP**place, 1), count) for place, count in sorted(found.items())]
